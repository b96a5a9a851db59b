package jsonschema

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	validator "github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// MaxViolations is how many fields an error names, beside how many more there are: it keeps the error of a wholly unfit document small.
const MaxViolations = 20

// explain turns a validator's tree of failures into one violation per field,
// sorted by path.
func explain(root string, document any, failure *validator.ValidationError) *violation.Error {
	e := explainer{root: root, document: document}
	e.add(failure)
	slices.SortFunc(e.found, func(a, b violation.Violation) int {
		if byField := strings.Compare(a.Field, b.Field); byField != 0 {
			return byField
		}
		return strings.Compare(a.Description, b.Description)
	})
	e.found = slices.Compact(e.found)
	if more := len(e.found) - MaxViolations; more > 0 {
		e.found = append(e.found[:MaxViolations],
			violation.Violation{Field: root, Description: fmt.Sprintf("has %d more fields that do not fit", more)})
	}
	return &violation.Error{Violations: e.found}
}

// maxQuoted is how many bytes of a caller's own text an error repeats.
const maxQuoted = 64

type explainer struct {
	root     string
	document any
	found    []violation.Violation
}

func (e *explainer) add(failure *validator.ValidationError) {
	switch k := failure.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			e.report(append(slices.Clone(failure.InstanceLocation), name), "is required")
		}
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			e.report(append(slices.Clone(failure.InstanceLocation), name), "is not a field of this input")
		}
	case *kind.AnyOf, *kind.OneOf:
		e.addAlternatives(failure)
	default:
		if len(failure.Causes) == 0 {
			e.report(failure.InstanceLocation, describeFailure(failure.ErrorKind))
			return
		}
		for _, cause := range failure.Causes {
			e.add(cause)
		}
	}
}

// addAlternatives explains a value that fits none of several forms: when its
// type is that of none, by the types that would do; else by what is wrong with
// it in the forms of its type.
func (e *explainer) addAlternatives(failure *validator.ValidationError) {
	var wanted []string
	got := ""
	near := false
	for _, alternative := range failure.Causes {
		mismatch, ok := typeMismatch(alternative, failure.InstanceLocation)
		if !ok {
			near = true
			e.add(alternative)
			continue
		}
		got = mismatch.Got
		wanted = append(wanted, mismatch.Want...)
	}
	if !near {
		e.report(failure.InstanceLocation, describeType(wanted, got))
	}
}

// typeMismatch returns the failure of the value at location to be of the right
// type, if that is why an alternative failed.
func typeMismatch(failure *validator.ValidationError, location []string) (*kind.Type, bool) {
	if mismatch, ok := failure.ErrorKind.(*kind.Type); ok {
		return mismatch, slices.Equal(failure.InstanceLocation, location)
	}
	for _, cause := range failure.Causes {
		if mismatch, ok := typeMismatch(cause, location); ok {
			return mismatch, true
		}
	}
	return nil, false
}

func (e *explainer) report(location []string, description string) {
	e.found = append(e.found, violation.Violation{Field: e.path(location), Description: description})
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// path writes a location as people do: input.fields[2].name, input["odd key"].
func (e *explainer) path(location []string) string {
	var path strings.Builder
	path.WriteString(e.root)
	at := e.document
	for _, token := range location {
		if items, ok := at.([]any); ok {
			path.WriteString("[" + token + "]")
			at = nil
			if i, err := strconv.Atoi(token); err == nil && i < len(items) {
				at = items[i]
			}
			continue
		}
		if identifier.MatchString(token) {
			path.WriteString("." + violation.Clip(token, maxQuoted))
		} else {
			path.WriteString("[" + strconv.Quote(violation.Clip(token, maxQuoted)) + "]")
		}
		members, _ := at.(map[string]any)
		at = members[token]
	}
	return path.String()
}

// describeFailure completes the sentence that a field's path begins.
func describeFailure(failure validator.ErrorKind) string {
	switch k := failure.(type) {
	case *kind.Type:
		return describeType(k.Want, k.Got)
	case *kind.Enum:
		return "must be one of " + listValues(k.Want)
	case *kind.Const:
		return "must be " + listValues([]any{k.Want})
	case *kind.MinLength:
		if k.Want == 1 {
			return "must not be empty"
		}
		return fmt.Sprintf("must be at least %d characters long", k.Want)
	case *kind.MaxLength:
		return fmt.Sprintf("must be at most %d characters long, is %d", k.Want, k.Got)
	case *kind.Pattern:
		return "must match the pattern " + k.Want
	case *kind.MinItems:
		return fmt.Sprintf("must have at least %d, has %d", k.Want, k.Got)
	case *kind.MaxItems:
		return fmt.Sprintf("must have at most %d, has %d", k.Want, k.Got)
	case *kind.MinProperties:
		return fmt.Sprintf("must have at least %d fields, has %d", k.Want, k.Got)
	case *kind.MaxProperties:
		return fmt.Sprintf("must have at most %d fields, has %d", k.Want, k.Got)
	case *kind.Minimum:
		return "must be at least " + k.Want.RatString()
	case *kind.Maximum:
		return "must be at most " + k.Want.RatString()
	}
	return "does not fit its schema"
}

func describeType(wanted []string, got string) string {
	forms := make([]string, len(wanted))
	for i, name := range wanted {
		forms[i] = withArticle(name)
	}
	return "must be " + strings.Join(forms, " or ") + ", is " + withArticle(got)
}

func withArticle(typeName string) string {
	switch typeName {
	case "null":
		return typeName
	case "array", "object", "integer":
		return "an " + typeName
	}
	return "a " + typeName
}

func listValues(values []any) string {
	texts := make([]string, len(values))
	for i, value := range values {
		text, err := json.Marshal(value)
		if err != nil {
			text = []byte("?")
		}
		texts[i] = string(text)
	}
	return strings.Join(texts, ", ")
}
