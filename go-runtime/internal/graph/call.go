package graph

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
)

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
}

// interruptError leaves a node that asks or awaits; it is no failure of its.
type interruptError struct {
	value any
	run   string
}

// Waits reports whether the error of a node says that it waits for something, and so is no failure.
func Waits(err error) bool {
	return errors.As(err, new(*interruptError)) || errors.As(err, new(*InterruptedError))
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

// Emit tells who observes the run of something. The name is the caller's own.
func (c *Call) Emit(name string, data any) {
	c.run.tell(Event{Kind: Custom, Name: name, Node: c.Task.Node, Task: c.Task.ID, Data: data})
}

// Run runs another graph as a part of this task, in a thread of its own, with an input.
// What it asks is asked by this task, whose node returns the error as it is. What it has
// done is not done again when the node is called again: graphs are told apart by the
// order in which a node runs them.
func (c *Call) Run(ctx context.Context, g *Graph, input State) (State, error) {
	thread := c.Thread + "." + c.Task.ID + "." + strconv.Itoa(c.called)
	c.called++
	options := c.run.options
	above := c.run
	node := c.Task.Node
	options.Observe = func(e Event) {
		e.Node = node + "/" + e.Node
		above.tell(e)
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
