// Package jsonvalue checks the JSON texts that callers hand in, and reads numbers without
// loss. A text that was checked is kept byte for byte, never decoded and encoded again, so
// that numbers beyond a double, the order of keys and every other detail survive.
package jsonvalue

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// MaxDepth is how many arrays and objects may lie within each other. It bounds
// the stack of every reader: Python's own decoder gives up not far above it.
const MaxDepth = 200

// MaxNumberBytes is how long a number may be: Python reads no integer with more digits.
const MaxNumberBytes = 4300

// Validate reports whether b is one JSON text (RFC 8259) in valid UTF-8, nested
// at most MaxDepth levels deep, with nothing but white space around it, and with
// numbers that every reader can take: at most MaxNumberBytes long, and no fraction
// or power of ten beyond a double's range, which Python would read as infinite. The
// error is a *violation.Error of the field that says what is wrong and at which byte.
// A text that passes costs no allocation.
func Validate(field string, b []byte) error {
	if len(b) == 0 {
		return violation.New(field, "must be a JSON text, but is empty")
	}
	if at := tooDeepAt(b); at >= 0 {
		return violation.New(field, "is nested more than %d levels deep at byte %d", MaxDepth, at)
	}
	if !json.Valid(b) {
		return syntaxError(field, b)
	}
	if !utf8.Valid(b) {
		return violation.New(field, "is not valid UTF-8 at byte %d", invalidUTF8At(b))
	}
	if at := badNumberAt(b); at >= 0 {
		return violation.New(field, "has a number that is too long or too large at byte %d", at)
	}
	return nil
}

// ValidateObject is Validate for a text that must be a JSON object.
func ValidateObject(field string, b []byte) error {
	if err := Validate(field, b); err != nil {
		return err
	}
	for _, c := range b {
		switch c {
		case ' ', '\t', '\r', '\n':
		case '{':
			return nil
		default:
			return violation.New(field, "must be a JSON object, but is %s", kindOf(c))
		}
	}
	return nil
}

// tooDeepAt returns the offset of the bracket that exceeds MaxDepth, or -1. It
// runs before the text is known to be JSON, so that a text made of brackets alone
// costs no parser stack; on a text that is none its answer means nothing more.
func tooDeepAt(b []byte) int {
	depth := 0
	inString := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '[' || c == '{':
			depth++
			if depth > MaxDepth {
				return i
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return -1
}

// badNumberAt returns the offset of the first number of a JSON text that some
// reader cannot take, or -1.
func badNumberAt(b []byte) int {
	at, _ := firstNumber(b, func(number []byte, whole bool) bool {
		return len(number) > MaxNumberBytes || !whole && overflows(number)
	})
	return at
}

// firstNumber returns the first number of a JSON text that is one that is looked for, and
// its offset, or -1; whole says of a number that it is an integer.
func firstNumber(b []byte, is func(number []byte, whole bool) bool) (at int, number []byte) {
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			i = stringEnd(b, i)
		case c == '-' || '0' <= c && c <= '9':
			end, whole := numberEnd(b, i)
			if is(b[i:end], whole) {
				return i, b[i:end]
			}
			i = end - 1
		}
	}
	return -1, nil
}

// CheckExact refuses integers of a valid text that no double holds exactly: who reads
// them as doubles would go on with other numbers.
func CheckExact(field string, b []byte) error {
	at, number := firstNumber(b, func(number []byte, whole bool) bool {
		if !whole || len(number) <= exactDigits {
			return false
		}
		_, exact := double(string(number))
		return !exact
	})
	if at < 0 {
		return nil
	}
	return violation.New(field, "has the number %.40s at byte %d, which a double does not hold: send it as a string", number, at)
}

// Decode reads a JSON text with its numbers as they were written, each a json.Number where
// into does not say otherwise.
func Decode(b []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.UseNumber()
	return decoder.Decode(into)
}

// Doubles has doubles in the place of the numbers that Decode read, and, in the place of
// integers that no double holds exactly, strings of their digits. It changes the value.
func Doubles(value any) any {
	switch v := value.(type) {
	case json.Number:
		if number, exact := double(v.String()); exact {
			return number
		}
		return v.String()
	case []any:
		for i := range v {
			v[i] = Doubles(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = Doubles(v[name])
		}
	}
	return value
}

// exactDigits is how many digits of an integer every double holds.
const exactDigits = 15

// double returns the double next to a number; exact is false for an integer that is another one.
func double(number string) (value float64, exact bool) {
	value, err := strconv.ParseFloat(number, 64)
	if len(number) <= exactDigits || strings.ContainsAny(number, ".eE") {
		return value, true
	}
	return value, err == nil && strconv.FormatFloat(value, 'f', 0, 64) == number
}

// stringEnd returns the offset of the quote that ends the string that begins at i.
func stringEnd(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i
}

// numberEnd returns the offset after the number that begins at i, and whether it is an integer.
func numberEnd(b []byte, i int) (end int, whole bool) {
	whole = true
	for ; i < len(b); i++ {
		switch b[i] {
		case '.', 'e', 'E':
			whole = false
		case '-', '+', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		default:
			return i, whole
		}
	}
	return i, whole
}

// overflows reports whether a double cannot hold a number. One without an
// exponent and with fewer digits than the largest double has always fits.
func overflows(number []byte) bool {
	if len(number) < 300 && bytes.IndexByte(number, 'e') < 0 && bytes.IndexByte(number, 'E') < 0 {
		return false
	}
	_, err := strconv.ParseFloat(string(number), 64)
	return err != nil
}

// syntaxError finds out why a text is no JSON.
func syntaxError(field string, b []byte) error {
	var (
		raw    json.RawMessage
		syntax *json.SyntaxError
	)
	if err := json.Unmarshal(b, &raw); !errors.As(err, &syntax) {
		return violation.New(field, "is not a JSON text")
	}
	// The decoder counts the bytes it has read, the offending one included; a
	// text that ends too early has no offending byte.
	reason := syntax.Error()
	if strings.HasPrefix(reason, "unexpected end") {
		return violation.New(field, "is not a JSON text: it ends too early, after byte %d", len(b)-1)
	}
	return violation.New(field, "is not a JSON text: %s at byte %d", reason, syntax.Offset-1)
}

func invalidUTF8At(b []byte) int {
	at := 0
	for at < len(b) {
		r, size := utf8.DecodeRune(b[at:])
		if r == utf8.RuneError && size <= 1 {
			return at
		}
		at += size
	}
	return at
}

// kindOf names the JSON value that begins with c.
func kindOf(c byte) string {
	switch c {
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	default:
		return "a number"
	}
}
