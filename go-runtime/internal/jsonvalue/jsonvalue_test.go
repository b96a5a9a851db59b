package jsonvalue

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

func nested(levels int) string {
	return strings.Repeat("[", levels) + strings.Repeat("]", levels)
}

func TestValidateAccepts(t *testing.T) {
	t.Parallel()

	tests := map[string]string{
		"null":                     `null`,
		"beyond a double":          `9223372036854775807`,
		"negative zero":            `-0.0`,
		"large float":              `1e308`,
		"integer beyond any float": strings.Repeat("9", MaxNumberBytes),
		"number too small":         `1e-999`,
		"number in a string":       `"1e999"`,
		"emoji":                    `"👩‍🚀"`,
		"lone surrogate escape":    `"\ud800"`,
		"white space around":       " \t\r\n{}\n",
		"200 levels":               nested(200),
		"200 levels of objects":    strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200),
		"brackets in a string":     `"` + strings.Repeat("[", 300) + `"`,
		"brackets after an escape": `"\"` + strings.Repeat("[", 300) + `"`,
		"300 arrays side by side":  "[" + strings.Repeat("[],", 300) + "[]]",
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			if err := Validate("value", []byte(text)); err != nil {
				t.Errorf("Validate(%q) = %v, want nil", text, err)
			}
		})
	}
}

func TestValidateRefusesAndSaysWhere(t *testing.T) {
	t.Parallel()

	tests := map[string]struct{ text, want string }{
		"empty":                {"", "value: must be a JSON text, but is empty"},
		"white space only":     {"  ", "value: is not a JSON text: it ends too early, after byte 1"},
		"ends early":           {`{"a":`, "value: is not a JSON text: it ends too early, after byte 4"},
		"NaN":                  {`{"a":NaN}`, "value: is not a JSON text: …"},
		"trailing data":        {`{} {}`, "value: is not a JSON text: …"},
		"control character":    {"\"a\nb\"", "value: is not a JSON text: …"},
		"invalid UTF-8":        {"\"a\xffb\"", "value: is not valid UTF-8 at byte 2"},
		"encoded surrogate":    {"\"\xed\xa0\x80\"", "value: is not valid UTF-8 at byte 1"},
		"byte order mark":      {"\ufeff1", "value: is not a JSON text: …"},
		"power too large":      {`{"a":[1e308,1e309]}`, "value: has a number that is too long or too large at byte 12"},
		"power in an exponent": {`-1E+999`, "value: has a number that is too long or too large at byte 0"},
		"fraction too large":   {strings.Repeat("9", 400) + ".5", "value: has a number that is too long or too large at byte 0"},
		"integer too long":     {`["",` + strings.Repeat("9", MaxNumberBytes+1) + `]`, "value: has a number that is too long or too large at byte 4"},
		"201 levels":           {nested(201), "value: is nested more than 200 levels deep at byte 200"},
		"a million brackets":   {strings.Repeat("[", 1_000_000), "value: is nested more than 200 levels deep at byte 200"},
		"brackets that repeat": {strings.Repeat("]", 300), "value: is not a JSON text: …"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			err := Validate("value", []byte(test.text))
			if _, ok := errors.AsType[*violation.Error](err); !ok {
				t.Fatalf("Validate() = %v, want a *violation.Error", err)
			}
			// What follows is encoding/json's own text, which differs between Go versions.
			if want, open := strings.CutSuffix(test.want, "…"); !strings.HasPrefix(err.Error(), want) || !open && err.Error() != want {
				t.Errorf("Validate() = %q, want %q", err, test.want)
			}
		})
	}
}

func TestValidateObject(t *testing.T) {
	t.Parallel()

	tests := map[string]struct{ text, want string }{
		"object":                   {`{"a": 1}`, ""},
		"object after white space": {"\r\n\t {}", ""},
		"array":                    {`[]`, "metadata: must be a JSON object, but is an array"},
		"string":                   {`"{}"`, "metadata: must be a JSON object, but is a string"},
		"number":                   {`-1`, "metadata: must be a JSON object, but is a number"},
		"boolean":                  {`false`, "metadata: must be a JSON object, but is a boolean"},
		"null":                     {`null`, "metadata: must be a JSON object, but is null"},
		"no JSON":                  {`{`, "metadata: is not a JSON text: it ends too early, after byte 0"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			got := ""
			if err := ValidateObject("metadata", []byte(test.text)); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("ValidateObject(%q) = %q, want %q", test.text, got, test.want)
			}
		})
	}
}

// withinBounds is a second opinion on nesting and numbers, by the standard library's tokens.
func withinBounds(text []byte) bool {
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.UseNumber()
	depth, fits := 0, true
	for {
		token, err := decoder.Token()
		if err != nil {
			return fits
		}
		switch token := token.(type) {
		case json.Delim:
			if token == '[' || token == '{' {
				depth++
				fits = fits && depth <= MaxDepth
			} else {
				depth--
			}
		case json.Number:
			_, err := token.Float64()
			fits = fits && len(token) <= MaxNumberBytes && (err == nil || !strings.ContainsAny(string(token), ".eE"))
		}
	}
}

func FuzzValidate(f *testing.F) {
	for _, seed := range []string{
		`null`, `{"a":[1,-0.0,1e308,"\u0000\\\""]}`, "\"\xff\"", `[[[`, nested(200), nested(201), `"[\"[["`, ` 1 2`, "",
		`[1e309]`, `{"1e309":-1.5E+3}`,
	} {
		f.Add([]byte(seed))
	}

	f.Fuzz(func(t *testing.T, text []byte) {
		err := Validate("value", text)
		want := json.Valid(text) && utf8.Valid(text) && withinBounds(text)
		if (err == nil) != want {
			t.Errorf("Validate(%q) = %v, want valid %v", text, err, want)
		}

		var object map[string]json.RawMessage
		isObject := want && json.Unmarshal(text, &object) == nil && object != nil
		if err := ValidateObject("value", text); (err == nil) != isObject {
			t.Errorf("ValidateObject(%q) = %v, want an object %v", text, err, isObject)
		}
	})
}

func BenchmarkValidate(b *testing.B) {
	text := []byte(`[` + strings.Repeat(`{"name": "a value", "numbers": [1, 2.5, -3e4]},`, 100) + `null]`)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Validate("value", text); err != nil {
			b.Fatal(err)
		}
	}
}

func TestIntegersThatNoDoubleHolds(t *testing.T) {
	t.Parallel()
	for text, test := range map[string]struct {
		want  string
		exact bool
	}{
		`9007199254740992`:                           {`9007199254740992`, true},
		`9007199254740993`:                           {`"9007199254740993"`, false},
		`-9007199254740993`:                          {`"-9007199254740993"`, false},
		`18446744073709551616`:                       {`18446744073709552000`, true},
		`{"a": [1, 2.5, 12345678901234567891, ""]}`:  {`{"a":[1,2.5,"12345678901234567891",""]}`, false},
		`["9007199254740993", 1e300, 0.12345678901]`: {`["9007199254740993",1e+300,0.12345678901]`, true},
		`-0`:   {`-0`, true},
		`true`: {`true`, true},
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			var value any
			if err := Decode([]byte(text), &value); err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(Doubles(value))
			if err != nil || string(got) != test.want {
				t.Errorf("%s, %v, want %s", got, err, test.want)
			}
			if err := CheckExact("value", []byte(text)); (err == nil) != test.exact {
				t.Errorf("%v, want exact %v", err, test.exact)
			}
		})
	}
}
