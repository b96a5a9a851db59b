package graph

// Kind says what an event tells.
type Kind string

// The kinds of events.
const (
	NodeStarted Kind = "node.started"
	// NodeFinished tells of what a node writes.
	NodeFinished Kind = "node.finished"
	NodeFailed   Kind = "node.failed"
	// Asked tells of a question that is open now.
	Asked Kind = "interrupt"
	// Awaits tells of a run that a node waits for.
	Awaits Kind = "awaits"
	// Begins tells of the state that a run has before its first step: behind its input, or
	// where it goes on.
	Begins Kind = "begin"
	// StepDone tells of the state that a step left.
	StepDone Kind = "step"
	// Saved tells of a checkpoint that was saved.
	Saved Kind = "checkpoint"
	// Piece is of the text that a model is writing.
	Piece Kind = "message"
	// Custom events are a node's own.
	Custom Kind = "custom"
)

// Event is something that happens in a run. There is one stream of them; Filter makes a
// stream mode of it.
type Event struct {
	// Sequence rises by one for each event of a run, those of its subgraphs among them.
	Sequence int    `json:"seq"`
	Step     int    `json:"step"`
	Kind     Kind   `json:"kind"`
	Name     string `json:"name,omitempty"`
	// Node is the node; of a subgraph, `node/node`.
	Node string `json:"node,omitempty"`
	Task string `json:"task,omitempty"`
	// Cached says that the node was not called: its result was known.
	Cached bool `json:"cached,omitempty"`
	// Tasks are those of a step that is done, in the order in which their updates are
	// folded.
	Tasks []string `json:"tasks,omitempty"`
	// Data is the update, the question, the error's text, what is saved, the piece, or the
	// node's own.
	Data any `json:"data,omitempty"`
	// State is that of Begins and StepDone, shared with the run. It is left out of JSON, or a
	// log of events would have all of the state again for each step: see Changes.
	State State `json:"-"`
}

// SavedCheckpoint is the Data of a Saved event.
type SavedCheckpoint struct {
	Revision uint64   `json:"revision"`
	Source   Source   `json:"source"`
	Status   Status   `json:"status"`
	Next     []string `json:"next,omitempty"`
}

// Mode is a stream mode, by LangGraph's names.
type Mode string

// The stream modes.
const (
	ModeValues      Mode = "values"
	ModeUpdates     Mode = "updates"
	ModeMessages    Mode = "messages"
	ModeCustom      Mode = "custom"
	ModeCheckpoints Mode = "checkpoints"
	ModeTasks       Mode = "tasks"
	ModeDebug       Mode = "debug"
)

// Filter reports of events whether any of the modes has them. What is asked is in
// ModeValues, ModeUpdates and ModeTasks; ModeDebug has all events.
func Filter(modes ...Mode) func(Event) bool {
	kinds := map[Kind]bool{}
	all := false
	for _, mode := range modes {
		switch mode {
		case ModeValues:
			kinds[Begins], kinds[StepDone], kinds[Asked], kinds[Awaits] = true, true, true, true
		case ModeUpdates:
			kinds[NodeFinished], kinds[Asked], kinds[Awaits] = true, true, true
		case ModeMessages:
			kinds[Piece] = true
		case ModeCustom:
			kinds[Custom] = true
		case ModeCheckpoints:
			kinds[Saved] = true
		case ModeTasks:
			kinds[NodeStarted], kinds[NodeFinished], kinds[NodeFailed] = true, true, true
			kinds[Asked], kinds[Awaits] = true, true
		case ModeDebug:
			all = true
		}
	}
	return func(e Event) bool { return all || kinds[e.Kind] }
}
