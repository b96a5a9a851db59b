package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"text/template"
	"unicode"

	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonschema"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
)

// sample makes the answer that stands in for a model's when none is configured:
// a template whose output is JSON that fits the task type's answer schema. It
// is given .Input (the input as decoded JSON) and .Notice, and these functions:
//
//	json value            the value as JSON, on one line
//	indent value          the value as JSON, on several lines
//	dict key value …      an object
//	render "name" data    the output of another template in the same file
//	words "text"          the words that carry meaning, in lower case
//	snake, kebab, camel, pascal, join   words made into an identifier
//	oneline "text"        the text on one line, harmless inside a comment
//	cell value            the same for a cell of a Markdown table
//	lower "text"          the text in lower case
//	lines "text"          how many lines it has
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
		"snake":   func(parts []string) string { return strings.Join(nameable(parts), "_") },
		"kebab":   func(parts []string) string { return strings.Join(parts, "-") },
		"join":    func(parts []string) string { return strings.Join(nameable(parts), "") },
		"pascal":  pascal,
		"camel":   camel,
		"oneline": oneline,
		"cell":    func(text string) string { return strings.ReplaceAll(oneline(text), "|", "/") },
		"lower":   strings.ToLower,
		"lines":   func(text string) int { return strings.Count(strings.TrimRight(text, "\n"), "\n") + 1 },
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
	if err := jsonvalue.Decode(input, &data.Input); err != nil {
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
const fillers = " a an the that which to of for in on by at it its be do so we i and with some please " +
	"implement write create make build add function code method program "

// keywords of common languages cannot be names in them.
const keywords = " and as assert async await bool break case catch chan class const continue def default defer del " +
	"delete elif else enum except export extends false finally float from func global go goto if import instanceof " +
	"int interface is lambda let map new nil none not null or package pass print raise range return select static " +
	"string struct super switch this throw true try type typeof undefined use var void while yield "

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
		if strings.Contains(fillers, " "+word+" ") || len(found) == 0 && unicode.IsDigit(rune(word[0])) {
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

// nameable keeps a name of one word from being a keyword.
func nameable(parts []string) []string {
	if len(parts) == 1 && strings.Contains(keywords, " "+parts[0]+" ") {
		return []string{"do", parts[0]}
	}
	return parts
}

func pascal(parts []string) string {
	var out strings.Builder
	for _, part := range parts {
		out.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return out.String()
}

func camel(parts []string) string {
	text := pascal(nameable(parts))
	return strings.ToLower(text[:1]) + text[1:]
}

// oneline keeps a text inside the comment or docstring that it is put into.
func oneline(text string) string {
	return strings.NewReplacer("*/", "* /", `"""`, `'''`, `\`, "/", "`", "'").
		Replace(strings.Join(strings.Fields(text), " "))
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

// sampleOf is an answer that fits a schema, made without a model: texts are the given one.
func sampleOf(schema *jsonschema.Schema, text string) (string, error) {
	if schema == nil {
		return text, nil
	}
	var described map[string]any
	if err := json.Unmarshal(schema.Raw(), &described); err != nil {
		return "", err
	}
	made, err := encode(sampleValue(described, text, 0))
	return string(made), err
}

// sampleValue is a value for a JSON Schema, as far as it says what it wants plainly.
func sampleValue(schema map[string]any, text string, depth int) any {
	const deepest = 10
	if choices, limited := schema["enum"].([]any); limited && len(choices) > 0 {
		return choices[0]
	}
	kind := schema["type"]
	if several, many := kind.([]any); many && len(several) > 0 {
		kind = several[0]
	}
	switch kind {
	case "string":
		return text
	case "integer", "number":
		return orDefault(schema["minimum"], 0)
	case "boolean":
		return false
	case "array":
		return []any{}
	case "null":
		return nil
	}
	object := map[string]any{}
	properties, _ := schema["properties"].(map[string]any)
	required, _ := schema["required"].([]any)
	for _, name := range required {
		property, _ := properties[fmt.Sprint(name)].(map[string]any)
		if depth < deepest {
			object[fmt.Sprint(name)] = sampleValue(property, text, depth+1)
		}
	}
	return object
}
