package jsonschema

import (
	"strings"
	"testing"
)

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

func TestSchemasOfOtherDraftsAreTaken(t *testing.T) {
	t.Parallel()
	for _, draft := range []string{
		"http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema#",
		"https://json-schema.org/draft/2019-09/schema", "https://json-schema.org/draft/2020-12/schema",
	} {
		s, err := New("test", []byte(`{"$schema": "`+draft+`", "properties": {"a": {"$ref": "#/definitions/a"}}, "definitions": {"a": {"type": "string"}}}`))
		if err != nil {
			t.Errorf("%s: %v", draft, err)
			continue
		}
		if err := s.Check("input", []byte(`{"a": 1}`)); err == nil || err.Error() != "input.a: must be a string, is a number" {
			t.Errorf("%s: %v", draft, err)
		}
	}
}

func TestSchemasReadNothingElse(t *testing.T) {
	t.Parallel()
	for _, reference := range []string{"file:///etc/hostname", "http://127.0.0.1:1/schema", "other.json", "ftp://a"} {
		if _, err := New("test", []byte(`{"$ref": "`+reference+`"}`)); err == nil {
			t.Errorf("a reference to %s is taken", reference)
		}
	}
}

// TestCostlyChecksEnd holds schemas to a budget that would take longer than anybody lives.
func TestCostlyChecksEnd(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)
	tests := map[string]string{
		"twice the same":    `{"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}`,
		"alternatives":      `{"properties": {"a": {"anyOf": [{"$ref": "#/$defs/b"}, {"$ref": "#/$defs/c"}]}}, "$defs": {"b": {"$ref": "#", "required": ["x"]}, "c": {"$ref": "#", "required": ["y"]}}}`,
		"negated":           `{"properties": {"a": {"not": {"$ref": "#"}, "if": {"$ref": "#"}}}}`,
		"dynamic":           `{"$dynamicAnchor": "m", "properties": {"a": {"allOf": [{"$dynamicRef": "#m"}, {"$dynamicRef": "#m"}]}}}`,
		"below an old name": `{"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}`,
	}
	for name, raw := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := New("test", []byte(raw))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Check("input", []byte(deep)); err == nil || !strings.Contains(err.Error(), "takes too long to check") {
				t.Errorf("the check says %v", err)
			}
			if err := s.Check("input", []byte(`{"a": {"x": 1}}`)); err != nil && strings.Contains(err.Error(), "too long") {
				t.Errorf("after it, a small text: %v", err)
			}
		})
	}
}

func TestCostlyNumbersInSchemas(t *testing.T) {
	t.Parallel()
	s, err := New("test", []byte(`{"properties": {"a": {"multipleOf": 1e-300, "maximum": 1e300, "const": 1.000000000000000000000000000000000000001e300}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Check("input", []byte(`{"a": 1}`)); err == nil {
		t.Error("1 is another number")
	}
}
