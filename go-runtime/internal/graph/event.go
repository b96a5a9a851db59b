package graph

// Kind says what an event tells.
type Kind string

// The kinds of events.
const (
	NodeStarted  Kind = "node.started"
	NodeFinished Kind = "node.finished"
	NodeFailed   Kind = "node.failed"
	// Asked tells of a question that is open now.
	Asked Kind = "interrupt"
	// Awaits tells of a run that a node waits for.
	Awaits Kind = "awaits"
	// StepDone tells of the state that a step left.
	StepDone Kind = "step"
	// Custom events are a node's own.
	Custom Kind = "custom"
)

// Event is something that happens in a run. All stream modes of LangGraph are events:
// `values` is StepDone, `updates` NodeFinished, `custom` and `messages` Custom, `debug`
// all of them.
type Event struct {
	// Sequence rises by one for each event of a run, those of its subgraphs among them.
	Sequence int    `json:"seq"`
	Step     int    `json:"step"`
	Kind     Kind   `json:"kind"`
	Name     string `json:"name,omitempty"`
	// Node is the node; of a subgraph, `node/node`.
	Node string `json:"node,omitempty"`
	Task string `json:"task,omitempty"`
	// Data is the update, the question, the state, the error's text, or the node's own.
	Data any `json:"data,omitempty"`
}
