package graph

import (
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// encoder makes the JSON of checkpoints as package json does, but for the order of
// members and what need not be escaped, at a part of the price: each step makes one.
type encoder struct {
	text []byte
	err  error
}

// member begins a member of an object that has others before it.
func (e *encoder) member(name string) {
	e.text = append(e.text, ',', '"')
	e.text = append(e.text, name...)
	e.text = append(e.text, '"', ':')
}

// checkpoint adds a checkpoint, whose members are those of the type's tags.
func (e *encoder) checkpoint(c *Checkpoint, whole bool) {
	e.text = append(e.text, '{')
	if whole {
		e.text = append(e.text, `"whole":true,`...)
	}
	e.text = append(e.text, `"graph":`...)
	e.string(c.Graph)
	e.member("source")
	e.string(string(c.Source))
	e.member("time")
	e.text = append(e.text, '"')
	e.text = c.Time.AppendFormat(e.text, time.RFC3339Nano)
	e.text = append(e.text, '"')
	if c.Parent > 0 {
		e.member("parent")
		e.text = strconv.AppendUint(e.text, c.Parent, 10)
	}
	if c.Request != "" {
		e.member("request")
		e.string(c.Request)
	}
	if c.Run != "" {
		e.member("run")
		e.string(c.Run)
	}
	e.member("status")
	e.string(string(c.Status))
	e.member("step")
	e.text = strconv.AppendInt(e.text, int64(c.Step), 10)
	if whole && len(c.State) > 0 {
		e.member("state")
		e.object(c.State)
	}
	if whole && len(c.channels) > 0 {
		e.member("channels")
		e.other(c.channels)
	}
	if !whole && len(c.Folded) > 0 {
		e.member("folded")
		e.folded(c.Folded)
	}
	if len(c.Returned) > 0 {
		e.member("returned")
		e.strings(c.Returned)
	}
	if len(c.Tasks) > 0 {
		e.member("tasks")
		e.tasks(c.Tasks)
	}
	e.rest(c)
	e.text = append(e.text, '}')
}

// rest adds what most steps have nothing of.
func (e *encoder) rest(c *Checkpoint) {
	for _, member := range []struct {
		name  string
		value any
		empty bool
	}{
		{"written", markedWritten(c.Written), len(c.Written) == 0},
		{"interrupts", c.Interrupts, len(c.Interrupts) == 0},
		{"answers", c.Answers, len(c.Answers) == 0},
		{"below", c.Below, len(c.Below) == 0},
		{"arrived", c.Arrived, len(c.Arrived) == 0},
		{"deferred", c.Deferred, len(c.Deferred) == 0},
		{"error", c.Error, c.Error == ""},
	} {
		if !member.empty {
			e.member(member.name)
			e.other(member.value)
		}
	}
}

func (e *encoder) folded(steps [][]Update) {
	e.text = append(e.text, '[')
	for i, step := range steps {
		e.comma(i)
		e.text = append(e.text, '[')
		for i, update := range step {
			e.comma(i)
			e.text = append(e.text, `{"node":`...)
			e.string(update.Node)
			if len(update.Writes) > 0 {
				e.member("writes")
				e.object(marked(update.Writes))
			}
			e.text = append(e.text, '}')
		}
		e.text = append(e.text, ']')
	}
	e.text = append(e.text, ']')
}

func (e *encoder) tasks(tasks []Task) {
	e.text = append(e.text, '[')
	for i, task := range tasks {
		e.comma(i)
		e.text = append(e.text, `{"id":`...)
		e.string(task.ID)
		e.member("node")
		e.string(task.Node)
		if task.Input != nil {
			e.member("input")
			e.value(task.Input)
		}
		if len(task.Beside) > 0 {
			e.member("beside")
			e.object(task.Beside)
		}
		e.text = append(e.text, '}')
	}
	e.text = append(e.text, ']')
}

func (e *encoder) strings(list []string) {
	e.text = append(e.text, '[')
	for i, text := range list {
		e.comma(i)
		e.string(text)
	}
	e.text = append(e.text, ']')
}

// comma separates what has the place from what is before it.
func (e *encoder) comma(place int) {
	if place > 0 {
		e.text = append(e.text, ',')
	}
}

func (e *encoder) object(object map[string]any) {
	e.text = append(e.text, '{')
	place := 0
	for name, value := range object {
		e.comma(place)
		place++
		e.string(name)
		e.text = append(e.text, ':')
		e.value(value)
	}
	e.text = append(e.text, '}')
}

func (e *encoder) value(value any) {
	switch v := value.(type) {
	case nil:
		e.text = append(e.text, "null"...)
	case bool:
		e.text = strconv.AppendBool(e.text, v)
	case string:
		e.string(v)
	case float64:
		e.number(v)
	case []any:
		e.text = append(e.text, '[')
		for i, item := range v {
			e.comma(i)
			e.value(item)
		}
		e.text = append(e.text, ']')
	case map[string]any:
		e.object(v)
	case Overwrite:
		e.text = append(e.text, `{"`+overwriteKey+`":`...)
		e.value(v.Value)
		e.text = append(e.text, '}')
	default:
		e.other(value)
	}
}

// number adds a number; most are whole, and small.
func (e *encoder) number(number float64) {
	const exact = 1 << 53
	if whole := int64(number); float64(whole) == number && -exact < whole && whole < exact && (whole != 0 || !math.Signbit(number)) {
		e.text = strconv.AppendInt(e.text, whole, 10)
		return
	}
	e.other(number)
}

func (e *encoder) string(text string) {
	ascii := true
	for i := range len(text) {
		switch b := text[i]; {
		case b < ' ' || b == '"' || b == '\\':
			e.other(text)
			return
		case b >= utf8.RuneSelf:
			ascii = false
		}
	}
	if !ascii && !utf8.ValidString(text) {
		e.other(text)
		return
	}
	e.text = append(e.text, '"')
	e.text = append(e.text, text...)
	e.text = append(e.text, '"')
}

// other adds what package json has to make.
func (e *encoder) other(value any) {
	text, err := json.Marshal(value)
	if err != nil && e.err == nil {
		e.err = err
	}
	e.text = append(e.text, text...)
}
