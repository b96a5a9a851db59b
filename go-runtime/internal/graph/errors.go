package graph

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// ErrConflict says that another runner has saved a checkpoint of the thread meanwhile.
var ErrConflict = errors.New("another runner has the thread")

// ErrUnknownThread says that there is nothing to go on with.
var ErrUnknownThread = errors.New("the thread has no checkpoint")

// ErrUnknownRevision says that a thread has no checkpoint of that revision, or has it no more.
var ErrUnknownRevision = errors.New("the thread has no such checkpoint")

// RecursionError says that a run took more steps than it may.
type RecursionError struct{ Limit int }

func (e *RecursionError) Error() string {
	return fmt.Sprintf("the graph has not ended after %d steps: raise its recursion limit, or see whether a loop has no way out", e.Limit)
}

// FanOutError says that more tasks would follow than a step may have.
type FanOutError struct{ Limit int }

func (e *FanOutError) Error() string {
	return fmt.Sprintf("more than %d tasks follow, and a step may have no more", e.Limit)
}

// NestingError says that graphs run each other too deep.
type NestingError struct{ Limit int }

func (e *NestingError) Error() string {
	return fmt.Sprintf("graphs run each other more than %d deep: see whether one runs itself without an end", e.Limit)
}

// Permanent says that it comes again.
func (*NestingError) Permanent() bool { return true }

// SizeError says that a state has become too large.
type SizeError struct {
	// Channel is the one with the most of it.
	Channel string
	// Bytes are those of the whole state, about, with the Sent ones that tasks read beside it.
	Bytes, Limit int
	Sent         int
}

func (e *SizeError) Error() string {
	if e.Sent > 0 {
		return fmt.Sprintf("the state has about %d bytes with the %d that are sent to tasks beside it, at most %d are allowed: "+
			"send less, such as the places of items in a list", e.Bytes, e.Sent, e.Limit)
	}
	return fmt.Sprintf("the state has about %d bytes, at most %d are allowed; channel %q has the most: "+
		"keep large values elsewhere, and their names in the state", e.Bytes, e.Limit, e.Channel)
}

// StuckError says that a node did not return although its context had ended.
type StuckError struct{ After time.Duration }

func (e *StuckError) Error() string {
	return fmt.Sprintf("it has not returned %s after it was told to stop, and was left alone", e.After)
}

var errNoParent = errors.New("its command is for the graph above, and there is none")

// IsPermanent reports whether an error comes again however often a node is called: a
// *violation.Error, or one whose method Permanent says so.
func IsPermanent(err error) bool {
	if _, isMistake := errors.AsType[*violation.Error](err); isMistake {
		return true
	}
	marked, isMarked := errors.AsType[interface {
		error
		Permanent() bool
	}](err)
	return isMarked && marked.Permanent()
}

// InterruptedError says that a run waits for answers; Run with Answers goes on with it.
type InterruptedError struct{ Interrupts []Interrupt }

func (e *InterruptedError) Error() string {
	return "the run waits for answers to " + strings.Join(idsOf(e.Interrupts), ", ")
}

// Interrupt is what a node waits for: an answer to a question of its, or the end of a run.
type Interrupt struct {
	// ID names it in the thread, and is what its answer is given to. Those of subgraphs
	// have the tasks that they belong to before them: `task/id`.
	ID string `json:"id"`
	// Node is the node that asks; of a subgraph, `node/node`.
	Node  string `json:"node"`
	Value any    `json:"value"`
	// Run is the run whose end is awaited, in the place of an answer; empty: it is a question.
	Run string `json:"run,omitempty"`
}

func idsOf(questions []Interrupt) []string {
	ids := make([]string, len(questions))
	for i, question := range questions {
		ids[i] = question.ID
	}
	return ids
}

// taskOf returns the task that asks a question, and the question's id in the task's
// subgraph; empty: it is the task's own.
func taskOf(id string) (task, below string) {
	task, below, nested := strings.Cut(id, "/")
	if !nested {
		task, _, _ = strings.Cut(task, ".")
	}
	return task, below
}

// UnknownInterruptError says that an answer is for a question that is not open.
type UnknownInterruptError struct {
	ID   string
	Open []string
}

func (e *UnknownInterruptError) Error() string {
	return fmt.Sprintf("there is no open question %q; open are: %s", e.ID, strings.Join(e.Open, ", "))
}

// NodeError says in which node of which step a run failed.
type NodeError struct {
	Node  string
	Step  int
	Cause error
}

func (e *NodeError) Error() string {
	return fmt.Sprintf("node %s in step %d: %v", e.Node, e.Step, e.Cause)
}

// Unwrap returns what the node returned.
func (e *NodeError) Unwrap() error { return e.Cause }

// UpdateError says why what was written cannot be folded into a channel.
type UpdateError struct {
	Channel string
	// Nodes are those that wrote it in the step.
	Nodes  []string
	Reason string
}

func (e *UpdateError) Error() string {
	return fmt.Sprintf("channel %q, written by %s: %s", e.Channel, strings.Join(e.Nodes, " and "), e.Reason)
}
