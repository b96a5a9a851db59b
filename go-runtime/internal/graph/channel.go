package graph

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
)

// State is the values of channels by name; a channel that was never written and has no
// initial value is left out. Nodes share it: they do not change it.
type State = map[string]any

// Channel holds one value of the state.
type Channel struct {
	// Reduce folds what is written into the value; nil: what is written takes its place,
	// and two writers in one step are an error.
	Reduce Reducer
	// Initial is the value in a new thread; nil: none.
	Initial any
	// Ephemeral channels are empty again after the step that could read them.
	Ephemeral bool

	// reducer is the name of Reduce among Reducers; empty: it is none of them.
	reducer string
	// adds says that what is written is the same to Reduce one by one and as one list.
	adds bool
}

// withKind says of a channel what its reducer is known for.
func (c Channel) withKind(reducers map[string]Reducer) Channel {
	at := reflect.ValueOf(c.Reduce).Pointer()
	for name, reduce := range reducers {
		if at == reflect.ValueOf(reduce).Pointer() {
			c.reducer = name
		}
	}
	c.adds = c.reducer == appendReducer || c.reducer == messagesReducer
	return c
}

// Reducer returns the value of a channel after a write. It returns a new value, and
// leaves old as it is: others may be reading it. old is nil while there is none.
type Reducer func(old, write any) (any, error)

// Overwrite is a write that takes the place of a channel's value, whatever its reducer.
// Two of them in one step are an error.
type Overwrite struct{ Value any }

// overwriteKey marks an Overwrite as JSON, as LangGraph does.
const overwriteKey = "__overwrite__"

// MarshalJSON makes it survive in a checkpoint.
func (o Overwrite) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{overwriteKey: o.Value})
}

const (
	appendReducer   = "append"
	messagesReducer = "messages"
)

// Reducers by the names that documents use.
func Reducers() map[string]Reducer {
	return map[string]Reducer{"last": nil, appendReducer: Append, "add": Add, "merge": Merge, messagesReducer: Messages}
}

// keptChannel is what checkpoints have of a channel: how its values were made, so that they
// are read so when the graph has become another.
type keptChannel struct {
	Reducer   string `json:"reducer"`
	Ephemeral bool   `json:"ephemeral,omitempty"`
}

// keptChannels are those of a graph; nil: it has reducers that have no names.
func keptChannels(channels map[string]Channel) map[string]keptChannel {
	kept := make(map[string]keptChannel, len(channels))
	for name, channel := range channels {
		if channel.reducer == "" {
			return nil
		}
		kept[name] = keptChannel{channel.reducer, channel.Ephemeral}
	}
	return kept
}

// of returns a graph that folds as the one did that had these channels; g for nil.
func (g *Graph) of(kept map[string]keptChannel) (*Graph, error) {
	if kept == nil || maps.Equal(kept, g.kept) {
		return g, nil
	}
	reducers := Reducers()
	channels := make(map[string]Channel, len(kept))
	for name, channel := range kept {
		reduce, known := reducers[channel.Reducer]
		if !known {
			return nil, fmt.Errorf("channel %s: there is no reducer %q", name, channel.Reducer)
		}
		channels[name] = Channel{Reduce: reduce, Ephemeral: channel.Ephemeral}
	}
	return New(g.name, channels), nil
}

// Append adds a value to a list, and the items of a list one by one.
func Append(old, write any) (any, error) {
	list, err := listOf(old)
	if err != nil {
		return nil, err
	}
	if items, isList := write.([]any); isList {
		return concat(list, items), nil
	}
	return concat(list, []any{write}), nil
}

// Add adds numbers.
func Add(old, write any) (any, error) {
	sum, isNumber := old.(float64)
	term, isTerm := write.(float64)
	if old != nil && !isNumber || !isTerm {
		return nil, fmt.Errorf("cannot add %s to %s", kindOf(write), kindOf(old))
	}
	return sum + term, nil
}

// Merge sets the members of an object; a member that is null is removed.
func Merge(old, write any) (any, error) {
	object, isObject := old.(map[string]any)
	changes, isChanges := write.(map[string]any)
	if old != nil && !isObject || !isChanges {
		return nil, fmt.Errorf("cannot merge %s into %s", kindOf(write), kindOf(old))
	}
	merged := make(map[string]any, len(object)+len(changes))
	maps.Copy(merged, object)
	for name, value := range changes {
		if value == nil {
			delete(merged, name)
		} else {
			merged[name] = value
		}
	}
	return merged, nil
}

// The members of messages that Messages looks at.
const (
	messageID   = "id"
	messageRole = "role"
	// RemoveRole is the role of a message that has the one with its id removed.
	RemoveRole = "remove"
	// RemoveAll, as the id of such a message, has all that are there removed.
	RemoveAll = "__remove_all__"
)

// Messages appends messages, which are objects, or one of them. One whose `id` is
// there already takes that one's place; one with the role RemoveRole removes it.
func Messages(old, write any) (any, error) {
	list, err := listOf(old)
	if err != nil {
		return nil, err
	}
	written, isList := write.([]any)
	if !isList {
		written = []any{write}
	}
	// Most writes append, and need no look at what is there.
	places := map[string]int(nil)
	kept := concat(list, nil)
	removed := 0
	for i, item := range written {
		message, isObject := item.(map[string]any)
		if !isObject {
			return nil, fmt.Errorf("message %d is %s, and must be an object", i, kindOf(item))
		}
		id, _ := message[messageID].(string)
		if id == "" {
			kept = append(kept, item)
			continue
		}
		if places == nil {
			places = placesOf(kept)
		}
		place, found := places[id]
		switch {
		case message[messageRole] != RemoveRole && found:
			kept[place] = item
		case message[messageRole] != RemoveRole:
			places[id] = len(kept)
			kept = append(kept, item)
		case id == RemoveAll:
			kept, places, removed = kept[:0:0], map[string]int{}, 0
		case !found:
			return nil, fmt.Errorf("message %d removes %q, which is not there", i, id)
		default:
			kept[place] = nil
			delete(places, id)
			removed++
		}
	}
	if removed == 0 {
		return kept, nil
	}
	left := make([]any, 0, len(kept)-removed)
	for _, item := range kept {
		if item != nil {
			left = append(left, item)
		}
	}
	return left, nil
}

func placesOf(messages []any) map[string]int {
	places := make(map[string]int, len(messages))
	for i, item := range messages {
		if message, isObject := item.(map[string]any); isObject {
			if id, _ := message[messageID].(string); id != "" {
				places[id] = i
			}
		}
	}
	return places
}

func listOf(value any) ([]any, error) {
	list, isList := value.([]any)
	if value != nil && !isList {
		return nil, fmt.Errorf("cannot append to %s", kindOf(value))
	}
	return list, nil
}

// concat is a new list: appending in place could write behind what another list shows.
func concat(a, b []any) []any {
	return append(append(make([]any, 0, len(a)+len(b)), a...), b...)
}

func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case float64:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	default:
		return fmt.Sprintf("a %T", value)
	}
}
