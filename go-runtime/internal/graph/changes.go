package graph

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Change is an operation of JSON Patch, RFC 6902: add, replace or remove. What is added to
// a list is added behind its end.
type Change struct {
	Op   string `json:"op"`
	Path string `json:"path"`
	// Value is nothing where Op is remove.
	Value any `json:"value"`
}

// Changes returns what makes one state of another: of a list that grew the items that are
// new, of an object its members that are others. So a log of the states behind steps takes
// about the bytes of what was written, and whoever reads it needs no reducers.
func Changes(before, after State) []Change {
	return changesOf(nil, "", before, after)
}

func changesOf(changes []Change, place string, before, after map[string]any) []Change {
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, kept := after[name]; !kept {
			changes = append(changes, Change{Op: "remove", Path: place + "/" + pointerToken(name)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		at, is := place+"/"+pointerToken(name), after[name]
		was, known := before[name]
		if !known {
			changes = append(changes, Change{Op: "add", Path: at, Value: is})
			continue
		}
		changes = changesOfValue(changes, at, was, is)
	}
	return changes
}

func changesOfValue(changes []Change, at string, was, is any) []Change {
	oldObject, wasObject := was.(map[string]any)
	newObject, isObject := is.(map[string]any)
	if wasObject && isObject {
		return changesOf(changes, at, oldObject, newObject)
	}
	oldList, wasList := was.([]any)
	newList, isList := is.([]any)
	if wasList && isList && len(oldList) <= len(newList) && reflect.DeepEqual(oldList, newList[:len(oldList):len(oldList)]) {
		for _, item := range newList[len(oldList):] {
			changes = append(changes, Change{Op: "add", Path: at + "/-", Value: item})
		}
		return changes
	}
	if reflect.DeepEqual(was, is) {
		return changes
	}
	return append(changes, Change{Op: "replace", Path: at, Value: is})
}

// pointerToken is a name as JSON Pointer, RFC 6901, has it in a path.
func pointerToken(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
