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
	state := make(State, len(before))
	for name, value := range before {
		if !g.channels[name].Ephemeral {
			state[name] = value
		}
	}
	writers := map[string][]string{}
	replaced := map[string]bool{}
	for _, update := range step {
		for _, name := range slices.Sorted(maps.Keys(update.Writes)) {
			channel, known := g.channels[name]
			writers[name] = append(writers[name], update.Node)
			wrong := func(reason string) error { return &UpdateError{Channel: name, Nodes: writers[name], Reason: reason} }
			if !known {
				return nil, wrong("the graph has no such channel")
			}
			written := update.Writes[name]
			overwrite, isOverwrite := written.(Overwrite)
			switch {
			case isOverwrite && replaced[name]:
				return nil, wrong("it takes one Overwrite in a step")
			case isOverwrite:
				replaced[name], state[name] = true, overwrite.Value
			case replaced[name]:
				// It replaces what the others of the step write, whatever their order.
			case channel.Reduce == nil && len(writers[name]) > 1:
				return nil, wrong("it takes one value in a step: give it a reducer")
			case channel.Reduce == nil:
				state[name] = written
			default:
				value, err := channel.Reduce(state[name], written)
				if err != nil {
					return nil, wrong(err.Error())
				}
				state[name] = value
			}
		}
	}
	return state, nil
}
