// Package violation is how a request that does not fit is described: which
// field, and why. Every package that validates a request returns these errors,
// and the gRPC edge turns them into INVALID_ARGUMENT and TOO_LARGE.
package violation

import (
	"errors"
	"fmt"
	"strings"
)

// Violation is one field of a request that does not fit.
type Violation struct {
	// Field is the path of the field as the caller wrote it, `operations[2].key`.
	Field string
	// Description completes the sentence that the field begins: "is required".
	Description string
}

// Error refuses a request. It has at least one violation.
type Error struct {
	Violations []Violation
}

// New returns an error with one violation; format and args make its description.
func New(field, format string, args ...any) *Error {
	return &Error{Violations: []Violation{{Field: field, Description: fmt.Sprintf(format, args...)}}}
}

// Error lists the violations, "key: is required; ttl: must be at least one second".
func (e *Error) Error() string {
	texts := make([]string, len(e.Violations))
	for i, v := range e.Violations {
		texts[i] = v.Field + ": " + v.Description
	}
	return strings.Join(texts, "; ")
}

// Join makes one error of the checks of one request, so that the caller sees
// every mistake at once: nil when all are nil, an *Error with all violations
// when all are *Error, else the first error that is none.
func Join(errs ...error) error {
	var joined Error
	for _, err := range errs {
		if err == nil {
			continue
		}
		var v *Error
		if !errors.As(err, &v) {
			return err
		}
		joined.Violations = append(joined.Violations, v.Violations...)
	}
	if len(joined.Violations) == 0 {
		return nil
	}
	return &joined
}

// In puts a part of a request where it belongs: it returns err with path before
// the fields that it names, and false if it is neither an *Error nor a *TooLargeError.
func In(path string, err error) (names bool, moved error) {
	if e, found := errors.AsType[*Error](err); found {
		var all Error
		for _, v := range e.Violations {
			all.Violations = append(all.Violations, Violation{Field: path + "." + v.Field, Description: v.Description})
		}
		return true, &all
	}
	if e, found := errors.AsType[*TooLargeError](err); found {
		return true, &TooLargeError{Field: path + "." + e.Field, Size: e.Size, Limit: e.Limit}
	}
	return false, nil
}

// maxNameBytes is how long a name may be.
const maxNameBytes = 100

// IsName reports whether a text is fit to name what users define, such as a graph or a
// thread: 1 to 100 letters of ASCII, digits, dashes and underscores.
func IsName(text string) bool {
	return text != "" && len(text) <= maxNameBytes && !strings.ContainsFunc(text, func(r rune) bool {
		isLetter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		return !isLetter && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}

// Clip cuts a text that an error repeats to so many bytes, and says so.
func Clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// TooLargeError refuses a value above its limit.
type TooLargeError struct {
	// Field is the path of the field, as in Violation.
	Field string
	// Size and Limit are in bytes.
	Size, Limit int
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s: is %d bytes long, the limit is %d", e.Field, e.Size, e.Limit)
}
