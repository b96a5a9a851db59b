package span

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
)

// mask stands in the place of a value that is redacted.
const mask = "[redacted]"

// maxContentBytes bounds an attribute with content. A text in it that is longer than a
// step allows is cut, first at the first step, then, while the whole is too large, at the next.
const maxContentBytes = 64 << 10

func textSteps() []int { return []int{16 << 10, 2 << 10, 256} }

// redactor masks the values of JSON members by their names.
type redactor struct {
	exact    map[string]bool
	patterns []string
}

func newRedactor(names []string) redactor {
	r := redactor{exact: map[string]bool{}}
	for _, name := range names {
		name = strings.ToLower(name)
		if strings.Contains(name, "*") {
			r.patterns = append(r.patterns, name)
		} else {
			r.exact[name] = true
		}
	}
	return r
}

// CheckRedact says what is wrong with a name for Config.Redact, or nil.
func CheckRedact(name string) error {
	if name == "" || strings.ContainsAny(name, `?[\/`) {
		return fmt.Errorf("%q: want the name of a JSON member, in which * stands for any characters", name)
	}
	return nil
}

func (r *redactor) masks(name string) bool {
	name = strings.ToLower(name)
	if r.exact[name] {
		return true
	}
	for _, pattern := range r.patterns {
		// No pattern is malformed, and a name with a slash is like another.
		if fits, _ := path.Match(pattern, strings.ReplaceAll(name, "/", "_")); fits {
			return true
		}
	}
	return false
}

// text is a value as JSON, with what is to be redacted masked and what is too long cut;
// empty where it is no JSON.
func (r *redactor) text(value any) string {
	raw, isRaw := value.(json.RawMessage)
	if !isRaw {
		var err error
		if raw, err = json.Marshal(value); err != nil {
			return ""
		}
	}
	var decoded any
	if jsonvalue.Decode(raw, &decoded) != nil {
		return ""
	}
	decoded = r.redact(decoded, 0)
	for _, longest := range textSteps() {
		if text := encode(cut(decoded, longest)); len(text) <= maxContentBytes {
			return text
		}
	}
	return encode(fmt.Sprintf("[%d bytes of JSON, more than the limit of %d]", len(raw), maxContentBytes))
}

// maxNested is how many JSON texts inside of JSON texts are looked into.
const maxNested = 3

func (r *redactor) redact(value any, nested int) any {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			if r.masks(name) {
				v[name] = mask
			} else {
				v[name] = r.redact(member, nested)
			}
		}
	case []any:
		for i, item := range v {
			v[i] = r.redact(item, nested)
		}
	case string:
		return r.redactInside(v, nested)
	}
	return value
}

// redactInside redacts a text that is JSON itself, such as the arguments of a tool.
func (r *redactor) redactInside(text string, nested int) string {
	trimmed := strings.TrimSpace(text)
	if nested == maxNested || trimmed == "" || trimmed[0] != '{' && trimmed[0] != '[' {
		return text
	}
	var inner any
	decoder := json.NewDecoder(strings.NewReader(trimmed))
	decoder.UseNumber()
	if decoder.Decode(&inner) != nil || decoder.More() {
		return text
	}
	return encode(r.redact(inner, nested+1))
}

// cut returns a value whose texts have at most so many bytes.
func cut(value any, longest int) any {
	switch v := value.(type) {
	case map[string]any:
		members := make(map[string]any, len(v))
		for name, member := range v {
			members[name] = cut(member, longest)
		}
		return members
	case []any:
		items := make([]any, len(v))
		for i, item := range v {
			items[i] = cut(item, longest)
		}
		return items
	case string:
		return clip(v, longest)
	}
	return value
}

// clip returns a text of at most so many bytes, and how long it was where that is less.
func clip(text string, longest int) string {
	if len(text) <= longest {
		return text
	}
	end := longest
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return fmt.Sprintf("%s… [%d bytes]", text[:end], len(text))
}

func encode(value any) string {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return ""
	}
	return strings.TrimSuffix(text.String(), "\n")
}
