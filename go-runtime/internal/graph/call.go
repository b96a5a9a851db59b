package graph

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
)

// maxNesting bounds how deep graphs run each other.
const maxNesting = 25

// Call is what a node is given beside the state: which task it is, and what it can ask
// of the run. It is the call's alone, and of one goroutine.
type Call struct {
	Task Task
	// Thread is the thread of the graph that the node is of.
	Thread string
	Step   int

	run *run
	// answers are those to the questions of this task, of which asked were asked by now.
	answers []any
	asked   int
	// below are the answers to the questions of its subgraphs, of which called were called.
	below  map[string]any
	called int
	// left says that nobody waits for the call any more.
	left atomic.Bool
}

// interruptError leaves a node that asks or awaits; it is no failure of its.
type interruptError struct {
	value any
	run   string
}

// Waits reports whether the error of a node says that it waits for something, and so is no failure.
func Waits(err error) bool {
	if err == nil {
		return false
	}
	_, own := errors.AsType[*interruptError](err)
	_, below := errors.AsType[*InterruptedError](err)
	return own || below
}

func (*interruptError) Error() string {
	return "the node waits, and its error must be returned as it is"
}

// Interrupt asks something, such as a person: the first call returns an error, which the
// node returns as it is. Once there is an answer the node is called again from its top,
// and this returns the answer. Several questions are told apart by their order.
func (c *Call) Interrupt(question any) (any, error) {
	place := c.asked
	c.asked++
	if place < len(c.answers) {
		return c.answers[place], nil
	}
	value, err := plain(question)
	if err != nil {
		return nil, err
	}
	return nil, &interruptError{value: value}
}

// Await is the error of a node that waits for the end of a run elsewhere. Whoever runs
// the graph answers it, with anything, once that has ended: the node is called again from
// its top and looks for itself.
func (*Call) Await(run string) error { return &interruptError{run: run} }

// parentError has a command for the graph above.
type parentError struct{ command Command }

func (*parentError) Error() string {
	return "the command is for the graph above, and the error must be returned as it is"
}

// Emit tells who observes the run of something. The name is the caller's own.
func (c *Call) Emit(name string, data any) { c.tell(Event{Kind: Custom, Name: name, Data: data}) }

// EmitMessage tells who observes the run of a piece of the text that a model is writing. It
// may be called beside the node, as long as that has not returned.
func (c *Call) EmitMessage(piece any) { c.tell(Event{Kind: Piece, Data: piece}) }

func (c *Call) tell(e Event) {
	e.Step, e.Node, e.Task = c.Step, c.Task.Node, c.Task.ID
	if !c.left.Load() {
		c.run.tell(e)
	}
}

// Store is the memory that threads share; nil where whoever runs the graph has given none.
func (c *Call) Store() Store { return c.run.options.Store }

// Run runs another graph as a part of this task, in a thread of its own, with an input.
// What it asks is asked by this task, whose node returns the error as it is. What it has
// done is not done again when the node is called again: graphs are told apart by the
// order in which a node runs them.
//
// The two graphs have states of their own, and it is the node's to say what of its own
// goes into the input, and what of the state that comes back it writes, also where
// channels have the same names: a list that was handed over comes back with what was in
// it, which Append would add again, and Messages, which goes by ids, would not. An
// Overwrite drops what other tasks of the step have written.
func (c *Call) Run(ctx context.Context, g *Graph, input State) (State, error) {
	thread := c.Thread + "." + c.Task.ID + "." + strconv.Itoa(c.called)
	c.called++
	options := c.run.options
	if options.depth++; options.depth > maxNesting {
		return nil, &NestingError{Limit: maxNesting}
	}
	if err := options.total.addGraph(options.MaxGraphs); err != nil {
		return nil, err
	}
	if options.Observe != nil {
		options.Observe = func(e Event) {
			e.Node = c.Task.Node + "/" + e.Node
			if !c.left.Load() {
				c.run.tell(e)
			}
		}
	}
	if options.Saver == nil {
		return g.Run(ctx, Request{Thread: thread, Input: input}, options)
	}
	before, err := options.Saver.Load(ctx, g, thread)
	if err != nil {
		return nil, err
	}
	if before == nil {
		return g.Run(ctx, Request{Thread: thread, Input: input}, options)
	}
	answers := maps.Clone(c.below)
	open := idsOf(before.Interrupts)
	maps.DeleteFunc(answers, func(id string, _ any) bool { return !slices.Contains(open, id) })
	return g.Run(ctx, Request{Thread: thread, Answers: answers}, options)
}
