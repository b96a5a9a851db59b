package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"text/template"
	"unicode"
)

// sample makes the answer that stands in for a model's when none is configured:
// a template whose output is JSON that fits the task type's answer schema. It
// is given .Input (the input as decoded JSON) and .Notice, and these functions:
//
//	json value            the value as JSON, on one line
//	indent value          the value as JSON, on several lines
//	dict key value …      an object
//	render "name" data    the output of another template in the same file
//	words "text"          the words that carry meaning, lower case
//	snake, camel, pascal, kebab   words joined as an identifier
//	oneline "text"        the text on one line, harmless inside a comment
//	plain value           a string as it is, anything else as JSON
//	default value other   the value, or other when it is missing or empty
type sample struct {
	root *template.Template
}

func parseSample(files fs.FS, file string) (*sample, error) {
	text, err := fs.ReadFile(files, file)
	if err != nil {
		return nil, err
	}
	root := template.New(file).Option("missingkey=zero")
	root.Funcs(template.FuncMap{
		"json":    jsonText,
		"indent":  indentedJSON,
		"dict":    dict,
		"words":   words,
		"snake":   func(w []string) string { return strings.Join(w, "_") },
		"kebab":   func(w []string) string { return strings.Join(w, "-") },
		"pascal":  pascal,
		"camel":   camel,
		"oneline": oneline,
		"plain":   plain,
		"default": orDefault,
		"render": func(name string, data any) (string, error) {
			var out strings.Builder
			err := root.ExecuteTemplate(&out, name, data)
			return strings.TrimLeft(out.String(), "\n"), err
		},
	})
	if _, err := root.Parse(string(text)); err != nil {
		return nil, fmt.Errorf("parse %s: %w", file, err)
	}
	return &sample{root: root}, nil
}

func (s *sample) render(input []byte, notice string) (string, error) {
	data := struct {
		Input  map[string]any
		Notice string
	}{Notice: notice}
	decoder := json.NewDecoder(bytes.NewReader(input))
	decoder.UseNumber()
	if err := decoder.Decode(&data.Input); err != nil {
		return "", fmt.Errorf("read input: %w", err)
	}
	var out strings.Builder
	if err := s.root.Execute(&out, data); err != nil {
		return "", fmt.Errorf("render sample: %w", err)
	}
	return out.String(), nil
}

// jsonText escapes what HTML gives a meaning to: a sample may be a page's script.
func jsonText(value any) (string, error) {
	text, err := json.Marshal(value)
	return string(text), err
}

func indentedJSON(value any) (string, error) {
	text, err := json.MarshalIndent(value, "", "  ")
	return string(text), err
}

func dict(pairs ...any) (map[string]any, error) {
	object := make(map[string]any, len(pairs)/2)
	for pair := range slices.Chunk(pairs, 2) {
		key, ok := pair[0].(string)
		if !ok || len(pair) != 2 {
			return nil, errors.New("dict takes pairs of a string and a value")
		}
		object[key] = pair[1]
	}
	return object, nil
}

// fillers say what to do rather than what it is about.
var fillers = map[string]bool{
	"a": true, "an": true, "the": true, "that": true, "which": true, "to": true, "of": true, "for": true, "in": true,
	"and": true, "with": true, "implement": true, "write": true, "create": true, "make": true, "build": true,
	"add": true, "please": true, "function": true, "code": true, "some": true,
}

const (
	maxWords      = 5
	maxWordLength = 24
)

// words returns the first words of a text that are more than fillers, in ASCII
// lower case, fit to make an identifier of; at least one.
func words(text string) []string {
	var found []string
	split := func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) }
	for _, word := range strings.FieldsFunc(text, split) {
		word = strings.ToLower(word[:min(len(word), maxWordLength)])
		if fillers[word] || len(found) == 0 && unicode.IsDigit(rune(word[0])) {
			continue
		}
		if found = append(found, word); len(found) == maxWords {
			break
		}
	}
	if len(found) == 0 {
		return []string{"example"}
	}
	return found
}

func pascal(parts []string) string {
	var out strings.Builder
	for _, part := range parts {
		out.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return out.String()
}

func camel(parts []string) string {
	text := pascal(parts)
	return strings.ToLower(text[:1]) + text[1:]
}

// oneline keeps a text inside the comment or docstring that it is put into.
func oneline(text string) string {
	return strings.NewReplacer("*/", "* /", `"""`, `'''`, `\`, "/", "`", "'", "-->", "-- >", "{{", "{ {").
		Replace(strings.Join(strings.Fields(text), " "))
}

func plain(value any) (string, error) {
	if text, ok := value.(string); ok {
		return text, nil
	}
	return jsonText(value)
}

func orDefault(value, other any) any {
	switch v := value.(type) {
	case nil:
		return other
	case string:
		if v == "" {
			return other
		}
	case []any:
		if len(v) == 0 {
			return other
		}
	}
	return value
}
