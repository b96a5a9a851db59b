package graph

import (
	"maps"
	"slices"
)

// fold writes what the tasks of a step have written into the state.
func (r *run) fold(tasks []finished) error {
	step := make([]Update, len(tasks))
	for i, f := range tasks {
		step[i] = Update{Node: f.task.Node, Writes: f.command.Update}
	}
	state, err := r.graph.fold(r.at.State, step)
	if err != nil {
		return err
	}
	if err := r.grow(state, step); err != nil {
		return err
	}
	r.at.State = state
	if r.options.Saver != nil {
		r.at.Folded = append(r.at.Folded, step)
	}
	return nil
}

// grow refuses a state that has become too large. All of it is looked at only where what
// was written since it last was might have made it so.
func (r *run) grow(state State, step []Update) error {
	if r.size == 0 {
		r.size = sizeOf(r.at.State)
	}
	for _, update := range step {
		r.size += sizeOf(update.Writes)
	}
	if r.size <= r.options.MaxStateBytes {
		return nil
	}
	r.size = sizeOf(state)
	if r.size <= r.options.MaxStateBytes {
		return nil
	}
	wrong := &SizeError{Bytes: r.size, Limit: r.options.MaxStateBytes}
	largest := 0
	for name, value := range state {
		if size := sizeOf(value); size > largest {
			wrong.Channel, largest = name, size
		}
	}
	return wrong
}

// fold returns the state behind a step: what its tasks wrote, in their order.
func (g *Graph) fold(before State, step []Update) (State, error) {
	f := folding{graph: g, state: make(State, len(before)+1)}
	for name, value := range before {
		if !g.channels[name].Ephemeral {
			f.state[name] = value
		}
	}
	for _, update := range step {
		// Sorted, so that of several mistakes always the same is told.
		names := slices.Collect(maps.Keys(update.Writes))
		slices.Sort(names)
		for _, name := range names {
			if err := f.write(name, update.Node, update.Writes[name], len(step) > 1); err != nil {
				return nil, err
			}
		}
	}
	for name, items := range f.gathered {
		value, err := g.channels[name].Reduce(f.state[name], items)
		if err != nil {
			return nil, f.wrong(name, err.Error())
		}
		f.state[name] = value
	}
	return f.state, nil
}

// folding is a fold under way.
type folding struct {
	graph *Graph
	state State
	// writers are the nodes that have written a channel, where there are several tasks.
	writers  map[string][]string
	replaced map[string]bool
	// gathered is what is to be added to lists: all at once, or each task would have the
	// whole list copied.
	gathered map[string][]any
}

func (f *folding) wrong(channel, reason string) error {
	return &UpdateError{Channel: channel, Nodes: f.writers[channel], Reason: reason}
}

func (f *folding) write(name, node string, written any, several bool) error {
	channel, known := f.graph.channels[name]
	if several || !known || channel.Reduce != nil {
		f.writers = put(f.writers, name, append(f.writers[name], node))
	}
	if !known {
		return f.wrong(name, "the graph has no such channel")
	}
	overwrite, isOverwrite := written.(Overwrite)
	switch {
	case isOverwrite && f.replaced[name]:
		return f.wrong(name, "it takes one Overwrite in a step")
	case isOverwrite:
		f.replaced = put(f.replaced, name, true)
		f.state[name] = overwrite.Value
		delete(f.gathered, name)
	case f.replaced[name]:
		// It replaces what the others of the step write, whatever their order.
	case channel.Reduce == nil && len(f.writers[name]) > 1:
		return f.wrong(name, "it takes one value in a step: give it a reducer")
	case channel.Reduce == nil:
		f.state[name] = written
	case several && channel.adds:
		if items, isList := written.([]any); isList {
			f.gathered = put(f.gathered, name, append(f.gathered[name], items...))
		} else {
			f.gathered = put(f.gathered, name, append(f.gathered[name], written))
		}
	default:
		value, err := channel.Reduce(f.state[name], written)
		if err != nil {
			return f.wrong(name, err.Error())
		}
		f.state[name] = value
	}
	return nil
}

// put sets a member of a map, which it makes where there is none.
func put[V any](m map[string]V, name string, value V) map[string]V {
	if m == nil {
		m = map[string]V{}
	}
	m[name] = value
	return m
}
