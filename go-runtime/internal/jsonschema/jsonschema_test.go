package jsonschema

import "testing"

func TestOpenSchemasTakeObjectsOnly(t *testing.T) {
	t.Parallel()
	for raw, open := range map[string]bool{
		`{"description": "d", "type": "object"}`: true,
		`{"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "t", "description": "d", "type": "object"}`: true,
		`{"description": "d"}`:                                       false,
		`{"description": "d", "type": ["object", "array"]}`:          false,
		`{"description": "d", "type": "object", "maxProperties": 1}`: false,
	} {
		s, err := New("test", []byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		if s.open != open {
			t.Errorf("%s is open: %t", raw, s.open)
		}
		if err := s.Check("input", []byte(`{"a": [1]}`)); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		for _, text := range []string{`7`, `{"a": 1`, `{"a": 1} {}`} {
			if open && s.Check("input", []byte(text)) == nil {
				t.Errorf("%s takes %s", raw, text)
			}
		}
	}
}
