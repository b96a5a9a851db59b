package document

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// With reads the members of a node's `with`, and collects what is wrong with them.
type With struct {
	members map[string]any
	read    map[string]bool
	wrong   *[]error
	// uncached is why the node cannot have a cache, or empty.
	uncached *string
	// unrepeated is why the node cannot have a timeout and a retry, or empty.
	unrepeated *string
}

func newWith(members map[string]any) With {
	return With{members: members, read: map[string]bool{}, wrong: new([]error), uncached: new(string), unrepeated: new(string)}
}

// String is a member that is a text, or empty where it is left out.
func (w With) String(name string) string {
	w.read[name] = true
	value, given := w.members[name]
	if !given {
		return ""
	}
	said, isString := value.(string)
	if !isString {
		w.Refusef(name, "must be a text, is a %T", value)
	}
	return said
}

// Required is a member that is a text, which must be there.
func (w With) Required(name string) string {
	said := w.String(name)
	if said == "" {
		w.Refusef(name, "is required")
	}
	return said
}

// Bool is a member that is true or false, or false where it is left out.
func (w With) Bool(name string) bool {
	w.read[name] = true
	value, given := w.members[name]
	said, isBool := value.(bool)
	if given && !isBool {
		w.Refusef(name, "must be true or false, is a %T", value)
	}
	return said
}

// Strings is a member that is an object of texts, or nil where it is left out.
func (w With) Strings(name string) map[string]string {
	object := w.Object(name)
	if object == nil {
		return nil
	}
	texts := make(map[string]string, len(object))
	for member, value := range object {
		said, isString := value.(string)
		if !isString {
			w.Refusef(name+"."+member, "must be a text, is a %T", value)
		}
		texts[member] = said
	}
	return texts
}

// List is a member that is a list, or empty where it is left out.
func (w With) List(name string) []any {
	w.read[name] = true
	value, given := w.members[name]
	list, isList := value.([]any)
	if given && !isList {
		w.Refusef(name, "must be a list, is a %T", value)
	}
	return list
}

// Text is a member that is a text with expressions in it, which must be there.
func (w With) Text(name string) func(ctx context.Context, state graph.State) (string, error) {
	raw := w.String(name)
	if raw == "" {
		w.Refusef(name, "is required")
	}
	t, err := newText(raw)
	if err != nil {
		w.Refusef(name, "%s", err.Error())
		return nil
	}
	return t.render
}

// Values is a member that is an object whose values are expressions; nil where it is left
// out. What it returns has a value for each.
func (w With) Values(name string) func(ctx context.Context, state graph.State) (map[string]any, error) {
	w.read[name] = true
	value, given := w.members[name]
	if !given {
		return nil
	}
	object, isObject := value.(map[string]any)
	if !isObject {
		w.Refusef(name, "must be an object of expressions, is a %T", value)
	}
	expressions := make(map[string]*expression, len(object))
	for _, member := range slices.Sorted(maps.Keys(object)) {
		e, err := newExpression(fmt.Sprint(object[member]), anyType)
		if err != nil {
			w.Refusef(name+"."+member, "%s", err.Error())
		}
		expressions[member] = e
	}
	return func(ctx context.Context, state graph.State) (map[string]any, error) {
		values := make(map[string]any, len(expressions))
		for member, e := range expressions {
			var err error
			if values[member], err = e.eval(ctx, state, nil); err != nil {
				return nil, fmt.Errorf("%s.%s: %w", name, member, err)
			}
		}
		return values, nil
	}
}

// Has reports whether a member is there.
func (w With) Has(name string) bool {
	_, given := w.members[name]
	return given
}

// Refusef notes that a member does not fit.
func (w With) Refusef(name, format string, args ...any) {
	*w.wrong = append(*w.wrong, violation.New(name, format, args...))
}

// RefuseCache says why a node of the kind cannot have a cache: it completes the sentence
// that "cache" begins.
func (w With) RefuseCache(why string) { *w.uncached = why }

// RefuseRepeats says why a node of the kind cannot have a timeout and a retry: it completes
// the sentence that either begins.
func (w With) RefuseRepeats(why string) { *w.unrepeated = why }

// Object is a member that is an object as it stands, or nil where it is left out.
func (w With) Object(name string) map[string]any {
	w.read[name] = true
	value, given := w.members[name]
	object, isObject := value.(map[string]any)
	if given && !isObject {
		w.Refusef(name, "must be an object, is a %T", value)
	}
	return object
}

// Check returns a *violation.Error of what is wrong, members that nobody has read among it.
func (w With) Check() error {
	wrong := *w.wrong
	for _, name := range slices.Sorted(maps.Keys(w.members)) {
		if !w.read[name] {
			wrong = append(wrong, violation.New(name, "is not known; known are: %s", names(w.read)))
		}
	}
	return violation.Join(wrong...)
}
