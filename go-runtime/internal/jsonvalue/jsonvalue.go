// Package jsonvalue checks the JSON texts that callers hand in. Texts are never
// decoded and encoded again: what was checked is kept byte for byte, so that
// numbers beyond a double, the order of keys and every other detail survive.
package jsonvalue

import (
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// MaxDepth is how many arrays and objects may lie within each other. It bounds
// the stack of every reader: Python's own decoder gives up not far above it.
const MaxDepth = 200

// Validate reports whether b is one JSON text (RFC 8259) in valid UTF-8, nested
// at most MaxDepth levels deep, with nothing but white space around it. The
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
