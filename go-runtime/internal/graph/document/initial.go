package document

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// startsWith is what reducers fold into, where that is not any value.
func startsWith(reducer string) string {
	return map[string]string{"add": aNumber, "append": aList, "merge": anObject, "messages": aList}[reducer]
}

const (
	aNumber  = "a number"
	aList    = "a list"
	anObject = "an object"
)

// initial refuses a value that a channel cannot begin with; nil: it begins with none.
func (c *compiler) initial(place, reducer string, value any) {
	if value == nil {
		return
	}
	if want, is := startsWith(reducer), kindOf(value); want != "" && is != want {
		c.refusef(place, "must be %s for the reducer %s, is %s", want, reducer, is)
		return
	}
	if messages, isList := value.([]any); isList && reducer == "messages" {
		for i, message := range messages {
			if is := kindOf(message); is != anObject {
				c.refusef(fmt.Sprintf("%s[%d]", place, i), "must be %s, is %s", anObject, is)
			}
		}
	}
	c.plain(place, value)
}

// plain refuses what YAML has and JSON has not.
func (c *compiler) plain(place string, value any) {
	switch v := value.(type) {
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			c.refusef(place, "must be a finite number")
		}
	case []any:
		for i, item := range v {
			c.plain(fmt.Sprintf("%s[%d]", place, i), item)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			c.plain(place+"."+name, v[name])
		}
	case map[any]any:
		c.refusef(place, "must have texts as its keys: put those that are none, such as 1, in quotes")
	}
}

func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case int, int64, uint64, float64:
		return aNumber
	case []any:
		return aList
	case map[string]any, map[any]any:
		return anObject
	default:
		return "a text"
	}
}
