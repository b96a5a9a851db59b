package model

import (
	"encoding/json"
	"strings"
)

// maxObjectStarts bounds the search of findObject, each start of which may read to the end.
const maxObjectStarts = 64

// findObject returns the longest JSON object in a text, so that fences, thoughts
// and polite sentences around it do no harm; the text itself when there is none.
func findObject(text string) string {
	if _, answer, thought := strings.Cut(text, "</think>"); thought {
		text = answer
	}
	longest := ""
	rest := text
	for range maxObjectStarts {
		start := strings.IndexByte(rest, '{')
		if start < 0 {
			break
		}
		rest = rest[start:]
		var object json.RawMessage
		if err := json.NewDecoder(strings.NewReader(rest)).Decode(&object); err != nil {
			rest = rest[1:]
			continue
		}
		if len(object) > len(longest) {
			longest = string(object)
		}
		rest = rest[len(object):]
	}
	if longest == "" {
		return strings.TrimSpace(text)
	}
	return longest
}
