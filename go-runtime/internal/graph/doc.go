// Package graph runs graphs with the semantics of LangGraph. A graph has channels,
// which hold its state, and nodes, which read the state and say what to write.
//
// It runs in supersteps. All tasks of a step read the state that the step before it
// left; what they write is folded into the channels by their reducers once all have
// returned, in the order of the tasks and not in that in which they finished, so that
// a step that is done again gives the same state. Edges, branches and commands then
// name the tasks of the next step; the run is over when there are none.
//
// After each step a checkpoint is saved for the thread, on the condition that the one
// before it is still the latest. A task that interrupts is left, and its node called
// again from its top once there is an answer; what the others of its step have written
// is kept with the checkpoint, so that they are not done again. A run that died goes on
// with the step that it was at: a node tolerates being called again with the same
// Task.ID.
//
// A thread can be looked at, with its history, changed as if a node had written, and
// forked: Graph.State, History, Update and Fork. Savers are Memory, that of package
// thread, which keeps threads over many runs, and whoever implements Saver.
//
// What happens is told as one stream of events, of which LangGraph's stream modes are
// filters: see Filter, and Changes for a log of the states behind steps.
//
// What nodes do is bounded: the steps of a run, the tasks of a step, the bytes of a state,
// and how deep and how often graphs run each other; see Options.
//
// Values are those of JSON: nil, bool, float64, string, []any and map[string]any. What
// nodes write is converted when it is written, so that they read the same before and
// after a crash.
package graph
