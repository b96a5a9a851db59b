package graph

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
)

// do does the tasks of a step that are not done, and returns them in their order: those
// that have returned, and the questions of those that wait. Errors of several are joined.
func (r *run) do(ctx context.Context) (returned []finished, questions []Interrupt, err error) {
	tasks := r.at.Tasks
	// held are the questions of tasks none of whose questions was answered.
	var held map[string][]Interrupt
	for _, question := range r.at.Interrupts {
		if task, _ := taskOf(question.ID); len(r.at.Below[task]) == 0 {
			held = put(held, task, append(held[task], question))
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
	returned = make([]finished, 0, len(tasks))
	for i, task := range tasks {
		switch asked := r.questionsOf(task, errs[i]); {
		case len(held[task.ID]) > 0:
			questions = append(questions, held[task.ID]...)
		case errs[i] == nil:
			returned = append(returned, finished{task, commands[i]})
		case len(asked) > 0:
			questions = append(questions, asked...)
		default:
			err = errors.Join(err, &NodeError{Node: task.Node, Step: r.at.Step, Cause: errs[i]})
		}
	}
	if err != nil {
		return returned, questions, err
	}
	for _, f := range returned {
		if f.command.Parent {
			return nil, nil, r.toParent(f)
		}
	}
	for _, question := range questions {
		kind := Asked
		if question.Run != "" {
			kind = Awaits
		}
		r.tell(Event{Kind: kind, Step: r.at.Step, Node: question.Node, Data: question})
	}
	return returned, questions, nil
}

// questionsOf are those that a task's error asks; none, if it is a failure.
func (r *run) questionsOf(task Task, err error) []Interrupt {
	if err == nil {
		return nil
	}
	if asks, isOwn := errors.AsType[*interruptError](err); isOwn {
		id := fmt.Sprintf("%s.%d", task.ID, len(r.at.Answers[task.ID]))
		return []Interrupt{{ID: id, Node: task.Node, Value: asks.value, Run: asks.run}}
	}
	waits, below := errors.AsType[*InterruptedError](err)
	if !below {
		return nil
	}
	asked := slices.Clone(waits.Interrupts)
	for i := range asked {
		asked[i].ID, asked[i].Node = task.ID+"/"+asked[i].ID, task.Node+"/"+asked[i].Node
	}
	return asked
}

// toParent is the error that hands the command of a task to the graph above.
func (r *run) toParent(f finished) error {
	if r.options.depth == 0 {
		return &NodeError{Node: f.task.Node, Step: r.at.Step, Cause: errNoParent}
	}
	command := f.command
	command.Parent = false
	return &parentError{command}
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

// call calls the node of a task, again where it fails and may be, unless it is known what
// it would come to.
func (r *run) call(ctx context.Context, task Task) (Command, error) {
	if ctx.Err() != nil {
		// It waited for a place while the run ended.
		return Command{}, context.Cause(ctx)
	}
	if err := r.options.total.addTask(r.options.MaxTotalTasks); err != nil {
		return Command{}, err
	}
	node := r.graph.nodes[task.Node]
	state := r.read(task)
	tell := func(e Event) {
		e.Step, e.Node, e.Task = r.at.Step, task.Node, task.ID
		r.tell(e)
	}
	key, err := r.cacheKey(ctx, task, node, state)
	if err != nil {
		return Command{}, err
	}
	if command, known := r.recall(ctx, key); known {
		tell(Event{Kind: NodeFinished, Cached: true, Data: command.Update})
		return command, nil
	}
	for attempt := 1; ; attempt++ {
		tell(Event{Kind: NodeStarted})
		call := &Call{
			Task: task, Thread: r.thread, Step: r.at.Step, run: r,
			answers: r.at.Answers[task.ID], below: r.at.Below[task.ID],
		}
		command, err := r.callOnce(ctx, node, call, state)
		if err == nil && call.asked == 0 && len(call.below) == 0 {
			// What depends on answers is no one else's. The end of a run that was awaited is none.
			err = r.remember(ctx, key, command, node.cacheTTL())
		}
		if err == nil {
			tell(Event{Kind: NodeFinished, Data: command.Update})
			return command, nil
		}
		if Waits(err) {
			return Command{}, err
		}
		tell(Event{Kind: NodeFailed, Data: err.Error()})
		if attempt >= node.Attempts || ctx.Err() != nil || !node.retries(err) {
			return Command{}, err
		}
		select {
		case <-time.After(node.pause(attempt)):
		case <-ctx.Done():
			return Command{}, err
		}
	}
}

// read is what the node of a task reads.
func (r *run) read(task Task) State {
	if task.Input != nil {
		input, isObject := task.Input.(map[string]any)
		if !isObject {
			input = State{"input": task.Input}
		}
		return input
	}
	if len(task.Beside) == 0 {
		return r.at.State
	}
	state := make(State, len(r.at.State)+len(task.Beside))
	maps.Copy(state, r.at.State)
	maps.Copy(state, task.Beside)
	return state
}

func (n *Node) retries(err error) bool {
	return !IsPermanent(err) && (n.Retries == nil || n.Retries(err))
}

func (n *Node) cacheTTL() time.Duration {
	if n.Cache == nil {
		return 0
	}
	return n.Cache.TTL
}

// pause is how long to wait behind a call that failed, the first, the second and so on.
func (n *Node) pause(attempt int) time.Duration {
	pause := n.Backoff
	for range attempt - 1 {
		if n.MaxBackoff > 0 && pause >= n.MaxBackoff || pause > math.MaxInt64/2 {
			break
		}
		pause *= 2
	}
	if n.MaxBackoff > 0 {
		pause = min(pause, n.MaxBackoff)
	}
	if n.Jitter && pause > 1 {
		pause = pause/2 + rand.N(pause-pause/2+1) //nolint:gosec // it spreads, and hides nothing
	}
	return pause
}

// PanicError is the error of a node that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// endNode ends the span of a node. One that asks, or commands the graph above, has not failed.
func endNode(spanned *span.Span, command Command, err error) {
	if spanned == nil {
		return
	}
	if _, isAbove := errors.AsType[*parentError](err); isAbove || Waits(err) {
		err = nil
	} else if err == nil {
		spanned.Output(command)
	}
	spanned.End(err)
}

// callOnce calls the node of a task, and returns what it comes to as JSON has it.
func (r *run) callOnce(ctx context.Context, node *Node, call *Call, state State) (command Command, err error) {
	if node.Timeout > 0 {
		command, err = callWithin(ctx, node, call, state)
	} else {
		command, err = callNode(ctx, node, call, state)
	}
	if err != nil {
		above, isAbove := errors.AsType[*parentError](err)
		if !isAbove {
			return Command{}, err
		}
		command = above.command
	}
	if command.Update, err = plainState(call.Task.Node, command.Update); err != nil {
		return Command{}, err
	}
	if len(command.Goto) > r.options.MaxTasks {
		return Command{}, &FanOutError{Limit: r.options.MaxTasks}
	}
	command.Goto, err = plainSends(command.Goto)
	return command, err
}

// plainSends is plain for what is sent, which it leaves as it is.
func plainSends(sends []Send) ([]Send, error) {
	converted := sends
	for i, send := range sends {
		read, changed, err := convert(send.Input, 0)
		if err != nil {
			return nil, fmt.Errorf("what it sends to %s is no JSON: %w", send.Node, err)
		}
		beside, besideChanged, err := convertMembers(send.Beside, 0)
		if err != nil {
			return nil, fmt.Errorf("what it sends to %s is no JSON: %w", send.Node, err)
		}
		if !changed && !besideChanged {
			continue
		}
		if &converted[0] == &sends[0] {
			converted = slices.Clone(sends)
		}
		converted[i].Input, converted[i].Beside = read, beside
	}
	return converted, nil
}

// callNode calls a node where it stands.
func callNode(ctx context.Context, node *Node, call *Call, state State) (command Command, err error) {
	ctx, spanned := span.StartNode(ctx, call.run.graph.name, call.Task.Node)
	if spanned != nil {
		spanned.Input(state)
	}
	defer func() {
		if value := recover(); value != nil {
			command, err = Command{}, &PanicError{Value: value, Stack: debug.Stack()}
		}
		endNode(spanned, command, err)
	}()
	command, err = node.Run(ctx, call, state)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = context.Cause(ctx)
	}
	return command, err
}

// patience is how long a node may take to return once its context has ended.
const patience = 5 * time.Second

// callWithin calls a node that has a timeout, and leaves it alone where it does not heed it.
func callWithin(ctx context.Context, node *Node, call *Call, state State) (Command, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, node.Timeout, fmt.Errorf("it took longer than %s", node.Timeout))
	defer cancel()
	type result struct {
		command Command
		err     error
	}
	done := make(chan result, 1)
	go func() {
		command, err := callNode(ctx, node, call, state)
		done <- result{command, err}
	}()
	select {
	case r := <-done:
		return r.command, r.err
	case <-ctx.Done():
	}
	stuck := time.NewTimer(patience)
	defer stuck.Stop()
	select {
	case r := <-done:
		return r.command, r.err
	case <-stuck.C:
		call.left.Store(true)
		return Command{}, fmt.Errorf("%w, and %w", context.Cause(ctx), &StuckError{After: patience})
	}
}
