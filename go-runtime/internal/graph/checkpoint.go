package graph

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"
)

// Status says how a thread stands.
type Status string

// The states of a thread.
const (
	// Running threads have tasks to do; so have those whose runner died.
	Running Status = "running"
	// Waiting threads have questions open.
	Waiting Status = "waiting"
	// Done threads have no tasks left; a new input begins with the state that they have.
	Done Status = "done"
	// Failed threads have a task whose node failed; running them again repeats it alone.
	Failed Status = "failed"
)

// Source says what a checkpoint was saved for.
type Source string

// The sources of checkpoints.
const (
	// Begun is a turn that began with an input.
	Begun Source = "input"
	// Resumed is a run that goes on, before it does.
	Resumed Source = "resume"
	// Stepped is a step that is done, waits or failed.
	Stepped Source = "step"
	// Updated is a state that was changed from outside, see Graph.Update.
	Updated Source = "update"
	// Forked is a copy of another one, see Graph.Fork.
	Forked Source = "fork"
)

// Task is a call of a node in a step, as a Send had it.
type Task struct {
	// ID is the same whenever the step is done again.
	ID     string `json:"id"`
	Node   string `json:"node"`
	Input  any    `json:"input,omitempty"`
	Beside State  `json:"beside,omitempty"`
}

func taskID(thread string, step int, node string, place int) string {
	const length, most = 8, 128
	text := append(make([]byte, 0, most), thread...)
	text = strconv.AppendInt(append(text, 0), int64(step), 10)
	text = append(append(text, 0), node...)
	text = strconv.AppendInt(append(text, 0), int64(place), 10)
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:length])
}

// Checkpoint is a thread between two steps, or in one that waits or failed. It is JSON,
// so that others can read it.
type Checkpoint struct {
	// Revision is its number among those of the thread, from 1 on, which the next one is
	// saved behind; 0: none was saved.
	Revision uint64 `json:"-"`
	// Graph is the name of the graph that it is of.
	Graph  string    `json:"graph"`
	Source Source    `json:"source"`
	Time   time.Time `json:"time"`
	// Parent is the revision that a Forked one was made of.
	Parent uint64 `json:"parent,omitempty"`
	// Request is what a saver was told to name an Updated or Forked one by, so that a repeat
	// of the call is known.
	Request string `json:"request,omitempty"`
	// Run is what a saver was told to name whoever saved it by; empty: it was not.
	Run    string `json:"run,omitempty"`
	Status Status `json:"status"`
	// Step numbers the step to be done. It only ever rises in a thread.
	Step  int   `json:"step"`
	State State `json:"state,omitempty"`
	// Folded is what was folded into the state since the checkpoint before it, by steps:
	// a saver may keep it in the place of the state, and have Replay make that of it.
	Folded [][]Update `json:"folded,omitempty"`
	// Returned are the nodes whose tasks were those of the step before.
	Returned []string `json:"returned,omitempty"`
	// Tasks are those of the step to be done.
	Tasks []Task `json:"tasks,omitempty"`
	// Written is what the tasks of this step that have returned write, by task.
	Written map[string]Command `json:"written,omitempty"`
	// Interrupts are the questions that are open, in the order of the tasks.
	Interrupts []Interrupt `json:"interrupts,omitempty"`
	// Answers are those that tasks of this step have got, in the order of the questions.
	Answers map[string][]any `json:"answers,omitempty"`
	// Below are the answers that subgraphs of tasks have got, by task and by question.
	Below map[string]map[string]any `json:"below,omitempty"`
	// Arrived are the nodes that joins have seen, by the place of the join.
	Arrived map[int][]string `json:"arrived,omitempty"`
	// Deferred are the nodes that wait until no other tasks are left.
	Deferred []string `json:"deferred,omitempty"`
	// Error says why a Failed thread failed.
	Error string `json:"error,omitempty"`

	// channels are those of the graph that it is made with; nil: they cannot be kept.
	channels map[string]keptChannel
	// whole is how many bytes the latest whole one has that was packed, deltas those
	// of what was packed since, latest those of what was packed last.
	whole, deltas, latest int
}

// Durability is when what a run has done by then outlives a crash.
type Durability string

// The durabilities.
const (
	// Async is soon after each step, and when the run waits or has ended.
	Async Durability = "async"
	// Sync is before the next step begins.
	Sync Durability = "sync"
	// Exit is when the run waits or has ended; see Options.OnlyEnds.
	Exit Durability = "exit"
)

// Saver keeps the checkpoints of threads.
type Saver interface {
	// Load returns the latest checkpoint of a thread of a graph; nil: it has none.
	Load(ctx context.Context, g *Graph, thread string) (*Checkpoint, error)
	// List returns the checkpoints of a thread that come before a revision, all for 0,
	// newest first and limit of them at most. Old ones may be gone.
	List(ctx context.Context, g *Graph, thread string, before uint64, limit int) ([]*Checkpoint, error)
	// Save keeps a checkpoint as the thread's latest, and sets its Revision. It returns
	// ErrConflict when the one with that Revision is not the latest any more. The
	// checkpoint is the caller's again afterwards, who goes on to change it.
	Save(ctx context.Context, thread string, c *Checkpoint) error
}

// Update is what a task wrote.
type Update struct {
	Node   string `json:"node"`
	Writes State  `json:"writes,omitempty"`
}

// Replay returns the state that a checkpoint's Folded makes of the one before it.
func (g *Graph) Replay(state State, folded [][]Update) (State, error) {
	for _, step := range folded {
		next, err := g.fold(state, step)
		if err != nil {
			return nil, err
		}
		state = next
	}
	return state, nil
}
