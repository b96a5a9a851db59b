package graph

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
)

// packed is a checkpoint as savers keep it: a whole one, or one without the state, which
// what was folded makes of that of the checkpoint before it.
type packed struct {
	Checkpoint

	// Whole comes first in the text: IsWhole reads no further.
	Whole bool `json:"whole,omitempty"`
	// Channels are those with which a whole one was made, and what follows it.
	Channels map[string]keptChannel `json:"channels,omitempty"`
}

const wholePrefix = `{"whole":true`

// Pack returns the checkpoint as a saver keeps it, a JSON object: with what was folded
// since the one before it or, once that has come to as many bytes as the latest whole
// one, with its whole state. So all of a thread takes few times the bytes of what its
// nodes wrote, and the latest state is read from not many more bytes than it has.
func (c *Checkpoint) Pack() ([]byte, error) {
	whole := c.whole == 0 || c.deltas >= c.whole
	// About as long as the one before, or as all since the latest whole one.
	const most = 1 << 10
	size := min(c.latest+c.latest/8, most)
	if whole {
		size = c.whole + c.deltas
	}
	e := encoder{text: make([]byte, 0, size)}
	e.checkpoint(c, whole)
	if e.err != nil {
		return nil, fmt.Errorf("encode checkpoint: %w", e.err)
	}
	c.count(e.text)
	return e.text, nil
}

// count notes that a text is the latest that was packed.
func (c *Checkpoint) count(text []byte) {
	c.latest = len(text)
	if IsWhole(text) {
		c.whole, c.deltas = len(text), 0
	} else {
		c.deltas += len(text)
	}
}

// IsWhole reports whether a packed checkpoint can be read without those before it.
func IsWhole(text []byte) bool { return bytes.HasPrefix(text, []byte(wholePrefix)) }

// Unpack reads checkpoints of a thread that follow each other, the first of them a whole
// one and the last one that with the revision, and returns the last n, newest first. The
// reducers that the graph had then make the states; where it had such as have no names, its
// present ones.
func (g *Graph) Unpack(texts [][]byte, revision uint64, n int) ([]*Checkpoint, error) {
	if len(texts) == 0 || !IsWhole(texts[0]) {
		return nil, fmt.Errorf("checkpoint %d: the state that it goes on from is missing", revision)
	}
	n = min(n, len(texts))
	read := make([]*Checkpoint, n)
	last, maker := &Checkpoint{}, g
	for i, text := range texts {
		c := &packed{}
		err := json.Unmarshal(text, c)
		if err != nil {
			return nil, fmt.Errorf("decode checkpoint %d: %w", revision-uint64(len(texts)-1-i), err)
		}
		next := &c.Checkpoint
		next.Revision = revision - uint64(len(texts)-1-i)
		next.restoreOverwrites()
		if next.State == nil {
			next.State = State{}
		}
		if !c.Whole {
			next.channels = last.channels
			state, err := maker.replay(last.State, next.Folded)
			if err != nil {
				return nil, fmt.Errorf("replay checkpoint %d: %w", next.Revision, err)
			}
			next.State, next.Folded = state, nil
		} else {
			next.channels = c.Channels
			if maker, err = g.of(c.Channels); err != nil {
				return nil, fmt.Errorf("read checkpoint %d: %w", next.Revision, err)
			}
		}
		next.whole, next.deltas = last.whole, last.deltas
		next.count(text)
		last = next
		if place := len(texts) - 1 - i; place < n {
			read[place] = next
		}
	}
	return read, nil
}

// replay returns the state that steps make of the one before them.
func (g *Graph) replay(state State, steps [][]Update) (State, error) {
	for _, step := range steps {
		next, err := g.fold(state, step)
		if err != nil {
			return nil, err
		}
		state = next
	}
	return state, nil
}

// Data that looks like the mark of an Overwrite is kept with one more of these behind its key.
const dataMark = "!"

// isMarked reports whether a value is an object that has the key of an Overwrite alone, with
// marks behind it or without.
func isMarked(value any) (key string, is bool) {
	object, isObject := value.(map[string]any)
	if !isObject || len(object) != 1 {
		return "", false
	}
	for key := range object {
		rest, is := strings.CutPrefix(key, overwriteKey)
		return key, is && strings.Trim(rest, dataMark) == ""
	}
	return "", false
}

// marked is what nodes wrote, with data kept from being read as an Overwrite.
func marked(update State) State {
	var copied State
	for name, value := range update {
		if key, is := isMarked(value); is {
			if copied == nil {
				copied = maps.Clone(update)
			}
			copied[name] = map[string]any{key + dataMark: value.(map[string]any)[key]} //nolint:forcetypeassert // it is one
		}
	}
	if copied == nil {
		return update
	}
	return copied
}

// markedWritten is marked for what tasks wrote that have returned.
func markedWritten(written map[string]Command) map[string]Command {
	if len(written) == 0 {
		return nil
	}
	kept := make(map[string]Command, len(written))
	for task, command := range written {
		command.Update = marked(command.Update)
		kept[task] = command
	}
	return kept
}

func (c *Checkpoint) restoreOverwrites() {
	for _, command := range c.Written {
		restoreOverwrites(command.Update)
	}
	for _, step := range c.Folded {
		for _, update := range step {
			restoreOverwrites(update.Writes)
		}
	}
}

func restoreOverwrites(update State) {
	for name, value := range update {
		key, is := isMarked(value)
		if !is {
			continue
		}
		was := value.(map[string]any)[key] //nolint:forcetypeassert // it is one
		if data, isData := strings.CutSuffix(key, dataMark); isData {
			update[name] = map[string]any{data: was}
		} else {
			update[name] = Overwrite{was}
		}
	}
}

// Log is the packed checkpoints of one thread in memory. The zero value is empty; it is
// for one goroutine at a time.
type Log struct{ texts [][]byte }

// Add adds what Pack returned.
func (l *Log) Add(text []byte) { l.texts = append(l.texts, text) }

// Revision is that of the latest checkpoint, as many as there are; 0: there is none.
func (l *Log) Revision() uint64 {
	if l == nil {
		return 0
	}
	return uint64(len(l.texts))
}

// Latest returns the latest checkpoint; nil: there is none.
func (l *Log) Latest(g *Graph) (*Checkpoint, error) {
	list, err := l.List(g, 0, 1)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

// List is that of a Saver.
func (l *Log) List(g *Graph, before uint64, limit int) ([]*Checkpoint, error) {
	upTo := l.Revision()
	if before > 0 {
		upTo = min(upTo, before-1)
	}
	if upTo == 0 || limit <= 0 {
		return nil, nil
	}
	oldest := max(0, int(upTo)-limit)
	from := oldest
	for from > 0 && !IsWhole(l.texts[from]) {
		from--
	}
	return g.Unpack(l.texts[from:upTo], upTo, int(upTo)-oldest)
}
