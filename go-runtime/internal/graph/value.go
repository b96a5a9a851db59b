package graph

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// maxDepth bounds values, as the runtime bounds the JSON that it takes.
const maxDepth = 200

var errDeep = errors.New("nests too deep")

// plain returns a value as JSON has it: itself, where it is that already.
func plain(value any) (any, error) {
	read, _, err := convert(value, 0)
	return read, err
}

// plainState is plain for what a node writes; an Overwrite is kept as one. Its error is
// an *UpdateError.
func plainState(node string, update State) (State, error) {
	var converted State
	for name, value := range update {
		overwrite, isOverwrite := value.(Overwrite)
		if isOverwrite {
			value = overwrite.Value
		}
		read, changed, err := convert(value, 0)
		if err != nil {
			return nil, &UpdateError{Channel: name, Nodes: []string{node}, Reason: "is no JSON: " + err.Error()}
		}
		if !changed {
			continue
		}
		if isOverwrite {
			read = Overwrite{read}
		}
		if converted == nil {
			converted = maps.Clone(update)
		}
		converted[name] = read
	}
	if converted == nil {
		return update, nil
	}
	return converted, nil
}

// sizeOf is about how many bytes a value has as JSON.
func sizeOf(value any) int {
	const scalar = 8
	switch v := value.(type) {
	case string:
		return len(v) + len(`"",`)
	case []any:
		size := len(`[],`)
		for _, item := range v {
			size += sizeOf(item)
		}
		return size
	case map[string]any:
		size := len(`{},`)
		for name, item := range v {
			size += len(name) + len(`"":`) + sizeOf(item)
		}
		return size
	case Overwrite:
		return sizeOf(v.Value)
	default:
		return scalar
	}
}

// convert returns a value as JSON has it, and whether that is another one.
func convert(value any, depth int) (read any, changed bool, err error) {
	if depth > maxDepth {
		return nil, false, errDeep
	}
	switch v := value.(type) {
	case nil, bool, float64, string:
		return value, false, nil
	case int:
		return float64(v), true, nil
	case []any:
		return convertList(v, depth)
	case map[string]any:
		return convertMembers(v, depth)
	}
	text, err := json.Marshal(value)
	if err != nil {
		return nil, false, err
	}
	if err := json.Unmarshal(text, &read); err != nil {
		return nil, false, err
	}
	return read, true, nil
}

func convertList(list []any, depth int) (any, bool, error) {
	var converted []any
	for i, item := range list {
		read, changed, err := convert(item, depth+1)
		if err != nil {
			return nil, false, fmt.Errorf("[%d]: %w", i, err)
		}
		if !changed {
			continue
		}
		if converted == nil {
			converted = slices.Clone(list)
		}
		converted[i] = read
	}
	if converted == nil {
		return list, false, nil
	}
	return converted, true, nil
}

func convertMembers(object map[string]any, depth int) (map[string]any, bool, error) {
	var converted map[string]any
	for name, item := range object {
		read, changed, err := convert(item, depth+1)
		if err != nil {
			return nil, false, fmt.Errorf(".%s: %w", name, err)
		}
		if !changed {
			continue
		}
		if converted == nil {
			converted = maps.Clone(object)
		}
		converted[name] = read
	}
	if converted == nil {
		return object, false, nil
	}
	return converted, true, nil
}
