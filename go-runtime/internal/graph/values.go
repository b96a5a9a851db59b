package graph

import "strings"

// Values makes the states behind the steps of a run of its events, as ModeValues has them,
// for a reader who has the events of ModeUpdates and StepDone alone, such as from a log:
// all of the states are read for the price of what was written. It is for one goroutine.
type Values struct {
	graph   *Graph
	state   State
	updates map[string]Update
}

// Values begins with the state behind the input, which the first checkpoint of the run
// has, or behind any later step.
func (g *Graph) Values(begin State) *Values {
	return &Values{graph: g, state: begin, updates: map[string]Update{}}
}

// Take takes the next event, one that was read from JSON too, and returns the state that
// a step left; nil: the event ends none. Those of subgraphs are passed over.
func (v *Values) Take(e Event) (State, error) {
	if strings.Contains(e.Node, "/") {
		return nil, nil
	}
	switch e.Kind {
	case NodeFinished:
		writes, _ := e.Data.(map[string]any)
		restoreOverwrites(writes)
		v.updates[e.Task] = Update{Node: e.Node, Writes: writes}
	case StepDone:
		step := make([]Update, len(e.Tasks))
		for i, task := range e.Tasks {
			step[i] = v.updates[task]
		}
		clear(v.updates)
		state, err := v.graph.fold(v.state, step)
		if err != nil {
			return nil, err
		}
		v.state = state
		return state, nil
	default:
	}
	return nil, nil
}
