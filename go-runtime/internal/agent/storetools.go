package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Bounds of what models and nodes keep in the long-term store.
const (
	maxNamespaceParts = 8
	maxPartBytes      = 100
	maxItemBytes      = 32 << 10
	// maxFound is how many items a search gives, and maxFoundBytes is about how long their
	// values are together, so that a result is not cut.
	maxFound      = 50
	defaultFound  = 10
	maxFoundBytes = 48 << 10
)

// StoreTools are tools with which an agent keeps items over runs: those of one namespace of
// the long-term store and of what is below it.
type StoreTools struct {
	// Namespace is where the items are. The model can name parts below it, and nothing else.
	Namespace []string `yaml:"namespace"`
	// Tools are those that are offered; none: all.
	Tools []string `yaml:"tools"`
	// Approval are those that a person must agree to.
	Approval []string `yaml:"approval"`
}

// storeTools are the tools for items of a namespace, which a call names below a prefix. They
// reach the items of the namespace of the runtime whose run calls them, and no others.
func storeTools(store func(namespace string) graph.Store, prefix []string) []tool.Tool {
	i := itemTools{store, prefix}
	const (
		namespace = `"namespace": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 100}, "maxItems": 8,
			"description": "Where items are, from the outside in, such as [\"orders\", \"7\"]. Leave it out if one place is enough."}`
		key  = `"key": {"type": "string", "minLength": 1, "maxLength": 200, "description": "The item's name."}`
		open = `{"type": "object", "additionalProperties": false, "properties": {`
	)
	return []tool.Tool{
		{
			Name: "put_item", Description: "Keeps an item under a key for later, in the place of what was there.",
			Schema: []byte(open + namespace + `, ` + key + `, "value": {"type": "object", "description": "What is kept."},
				"ttl_seconds": {"type": "integer", "minimum": 1, "maximum": 315360000,
				"description": "For how long; left out: without an end."}}, "required": ["key", "value"]}`),
			Call: i.call(i.put),
		},
		{
			Name: "get_item", Description: "Reads the item that is kept under a key.",
			Schema: []byte(open + namespace + `, ` + key + `}, "required": ["key"]}`),
			Call:   i.call(i.get),
		},
		{
			Name: "search_items", Description: "Lists the items of a namespace and below it, in the order of their names.",
			Schema: []byte(open + namespace + `,
				"limit": {"type": "integer", "minimum": 1, "maximum": 50, "description": "How many at most; left out: 10."}}}`),
			Call: i.call(i.search),
		},
		{
			Name: "delete_item", Description: "Removes the item that is kept under a key.",
			Schema: []byte(open + namespace + `, ` + key + `}, "required": ["key"]}`),
			Call:   i.call(i.remove),
		},
	}
}

// storeToolNames are those of storeTools.
func storeToolNames() []string {
	var names []string
	for _, t := range storeTools(nil, nil) {
		names = append(names, t.Name)
	}
	return names
}

// itemTools work in the store of the namespace that calls them, below a prefix.
type itemTools struct {
	store  func(namespace string) graph.Store
	prefix []string
}

type itemArguments struct {
	Namespace  []string       `json:"namespace"`
	Key        string         `json:"key"`
	Value      map[string]any `json:"value"`
	TTLSeconds int64          `json:"ttl_seconds"`
	Limit      int            `json:"limit"`
}

// foundItem is an item as a search gives it: its namespace is that below the prefix.
type foundItem struct {
	Namespace []string `json:"namespace"`
	Key       string   `json:"key"`
	// Value is an object, left out where it is too long, as Note says.
	Value any    `json:"value,omitempty"`
	Note  string `json:"note,omitempty"`
}

// call is a tool whose arguments fit its schema. What of them the store does not take is
// told to the model.
func (i itemTools) call(
	work func(ctx context.Context, s graph.Store, a itemArguments) (tool.Result, error),
) func(context.Context, tool.Call) (tool.Result, error) {
	return func(ctx context.Context, c tool.Call) (tool.Result, error) {
		var a itemArguments
		if err := json.Unmarshal(c.Arguments, &a); err != nil {
			return tool.Result{}, err
		}
		a.Namespace = slices.Concat(i.prefix, a.Namespace)
		result, err := work(ctx, i.store(c.Namespace), a)
		if errors.As(err, new(*violation.Error)) || errors.As(err, new(*violation.TooLargeError)) {
			return refusal(err.Error()), nil
		}
		return result, err
	}
}

func (itemTools) put(ctx context.Context, s graph.Store, a itemArguments) (tool.Result, error) {
	size, err := sizeOf(a.Value)
	if err != nil {
		return tool.Result{}, err
	}
	if size > maxItemBytes {
		return tool.Result{}, &violation.TooLargeError{Field: "value", Size: size, Limit: maxItemBytes}
	}
	err = s.Put(ctx, a.Namespace, a.Key, a.Value, time.Duration(a.TTLSeconds)*time.Second)
	return tool.Result{Text: "put " + a.Key}, err
}

func (itemTools) get(ctx context.Context, s graph.Store, a itemArguments) (tool.Result, error) {
	item, err := s.Get(ctx, a.Namespace, a.Key)
	if err != nil {
		return tool.Result{}, err
	}
	if item == nil {
		return resultOf(map[string]any{"found": false})
	}
	return resultOf(map[string]any{"found": true, "value": item.Value})
}

func (itemTools) remove(ctx context.Context, s graph.Store, a itemArguments) (tool.Result, error) {
	return tool.Result{Text: "deleted " + a.Key}, s.Delete(ctx, a.Namespace, a.Key)
}

func (i itemTools) search(ctx context.Context, s graph.Store, a itemArguments) (tool.Result, error) {
	if a.Limit == 0 {
		a.Limit = defaultFound
	}
	limit := min(a.Limit, maxFound)
	// One more says whether there are more.
	items, err := s.Search(ctx, a.Namespace, limit+1)
	if err != nil {
		return tool.Result{}, err
	}
	found := make([]foundItem, 0, limit)
	room := maxFoundBytes
	for _, item := range items[:min(limit, len(items))] {
		size, err := sizeOf(item.Value)
		if err != nil {
			return tool.Result{}, err
		}
		shown := foundItem{Namespace: item.Namespace[len(i.prefix):], Key: item.Key, Value: item.Value}
		if size > maxItemBytes {
			shown.Value, shown.Note = nil, fmt.Sprintf("Its value is left out: it is %d bytes long.", size)
			size = len(shown.Note)
		}
		if room -= size; room < 0 {
			break
		}
		found = append(found, shown)
	}
	return resultOf(map[string]any{"items": found, "more": len(found) < len(items)})
}

func sizeOf(value any) (int, error) {
	text, err := json.Marshal(value)
	return len(text), err
}

// check names what is wrong with a source of tools, whose place in the document field is.
func (s *StoreTools) check(field string) error {
	var wrong []error
	if len(s.Namespace) == 0 || len(s.Namespace) > maxNamespaceParts {
		wrong = append(wrong, violation.New(field+".namespace", "must have 1 to %d parts, has %d", maxNamespaceParts, len(s.Namespace)))
	}
	for i, part := range s.Namespace {
		if part == "" || len(part) > maxPartBytes {
			wrong = append(wrong, violation.New(fmt.Sprintf("%s.namespace[%d]", field, i), "must be 1 to %d bytes long", maxPartBytes))
		}
	}
	known := storeToolNames()
	refuse := func(member string, named []string) {
		for i, name := range named {
			if !slices.Contains(known, name) {
				wrong = append(wrong, violation.New(fmt.Sprintf("%s.%s[%d]", field, member, i),
					"there is no %q; there are %s", clip(name), strings.Join(known, ", ")))
			}
		}
	}
	refuse("tools", s.Tools)
	refuse("approval", s.Approval)
	return violation.Join(wrong...)
}

// choose returns those of the tools that an agent has.
func (s *StoreTools) choose(store func(namespace string) graph.Store) []tool.Tool {
	var chosen []tool.Tool
	for _, t := range storeTools(store, s.Namespace) {
		if len(s.Tools) > 0 && !slices.Contains(s.Tools, t.Name) {
			continue
		}
		t.Approval = slices.Contains(s.Approval, t.Name)
		chosen = append(chosen, t)
	}
	return chosen
}
