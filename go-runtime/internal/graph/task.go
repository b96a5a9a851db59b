package graph

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
)

// do does the tasks of a step that are not done, and returns them in their order: those
// that have returned, and the questions of those that wait. Errors of several are joined.
func (r *run) do(ctx context.Context) (returned []finished, questions []Interrupt, err error) {
	tasks := r.at.Tasks
	// held are the questions of tasks none of whose questions was answered.
	held := map[string][]Interrupt{}
	for _, question := range r.at.Interrupts {
		if task, _ := taskOf(question.ID); len(r.at.Below[task]) == 0 {
			held[task] = append(held[task], question)
		}
	}
	commands := make([]Command, len(tasks))
	errs := make([]error, len(tasks))
	r.each(len(tasks), func(i int) {
		task := tasks[i]
		if written, done := r.at.Written[task.ID]; done {
			commands[i] = written
			return
		}
		if len(held[task.ID]) == 0 {
			commands[i], errs[i] = r.call(ctx, task)
		}
	})
	for i, task := range tasks {
		var asks *interruptError
		var waits *InterruptedError
		switch {
		case len(held[task.ID]) > 0:
			questions = append(questions, held[task.ID]...)
		case errs[i] == nil:
			returned = append(returned, finished{task, commands[i]})
		case errors.As(errs[i], &asks):
			id := fmt.Sprintf("%s.%d", task.ID, len(r.at.Answers[task.ID]))
			questions = append(questions, Interrupt{ID: id, Node: task.Node, Value: asks.value, Run: asks.run})
		case errors.As(errs[i], &waits):
			for _, question := range waits.Interrupts {
				question.ID, question.Node = task.ID+"/"+question.ID, task.Node+"/"+question.Node
				questions = append(questions, question)
			}
		default:
			err = errors.Join(err, &NodeError{Node: task.Node, Step: r.at.Step, Cause: errs[i]})
		}
	}
	if err == nil {
		for _, question := range questions {
			kind := Asked
			if question.Run != "" {
				kind = Awaits
			}
			r.tell(Event{Kind: kind, Node: question.Node, Data: question})
		}
	}
	return returned, questions, err
}

// each calls work for 0 to n-1, several at a time, and returns when all have returned.
func (r *run) each(n int, work func(int)) {
	if n == 1 {
		work(0)
		return
	}
	var running sync.WaitGroup
	places := make(chan struct{}, r.options.Parallel)
	for i := range n {
		places <- struct{}{}
		running.Go(func() {
			defer func() { <-places }()
			work(i)
		})
	}
	running.Wait()
}

// call calls the node of a task, again where it fails and may be.
func (r *run) call(ctx context.Context, task Task) (Command, error) {
	node := r.graph.nodes[task.Node]
	state := r.at.State
	if task.Input != nil {
		input, isObject := task.Input.(map[string]any)
		if !isObject {
			input = State{"input": task.Input}
		}
		state = input
	}
	pause := node.Backoff
	for attempt := 1; ; attempt++ {
		r.tell(Event{Kind: NodeStarted, Node: task.Node, Task: task.ID})
		command, err := r.callOnce(ctx, node, task, state)
		if err == nil {
			r.tell(Event{Kind: NodeFinished, Node: task.Node, Task: task.ID, Data: command.Update})
			return command, nil
		}
		if Waits(err) {
			return Command{}, err
		}
		r.tell(Event{Kind: NodeFailed, Node: task.Node, Task: task.ID, Data: err.Error()})
		if attempt >= node.Attempts || ctx.Err() != nil {
			return Command{}, err
		}
		select {
		case <-time.After(pause):
			pause *= 2
		case <-ctx.Done():
			return Command{}, err
		}
	}
}

// PanicError is the error of a node that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// endNode ends the span of a node. One that asks has not failed.
func endNode(spanned *span.Span, command Command, err error) {
	if Waits(err) {
		err = nil
	} else if err == nil {
		spanned.Output(command)
	}
	spanned.End(err)
}

func (r *run) callOnce(ctx context.Context, node Node, task Task, state State) (command Command, err error) {
	defer func() {
		if value := recover(); value != nil {
			command, err = Command{}, &PanicError{Value: value, Stack: debug.Stack()}
		}
	}()
	if node.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, node.Timeout, fmt.Errorf("it took longer than %s", node.Timeout))
		defer cancel()
	}
	call := &Call{
		Task: task, Thread: r.thread, Step: r.at.Step, run: r,
		answers: r.at.Answers[task.ID], below: r.at.Below[task.ID],
	}
	ctx, spanned := span.StartNode(ctx, r.graph.name, task.Node)
	spanned.Input(state)
	defer func() { endNode(spanned, command, err) }()
	command, err = node.Run(ctx, call, state)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && errors.Is(err, ctx.Err()) {
			err = cause
		}
		return Command{}, err
	}
	if command.Update, err = plainState(task.Node, command.Update); err != nil {
		return Command{}, err
	}
	for i := range command.Goto {
		if command.Goto[i].Input, err = plain(command.Goto[i].Input); err != nil {
			return Command{}, fmt.Errorf("what it sends to %s is no JSON: %w", command.Goto[i].Node, err)
		}
	}
	return command, nil
}
