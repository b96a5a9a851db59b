package graph

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
)

// Request says what to do with a thread: to begin a turn with an Input, or to go on,
// with Answers where it waits, without where its runner died or a node failed.
type Request struct {
	// Thread names the thread: letters, digits, dashes and underscores.
	Thread string
	// Input is written to the channels as a node's update is; nil: go on.
	Input State
	// Answers are to open questions, by their ids.
	Answers map[string]any
}

// Options are how a graph is run.
type Options struct {
	// Saver keeps the checkpoints; nil: none are, and a run that asks cannot go on.
	Saver Saver
	// OnlyEnds saves a checkpoint only when the run ends or waits, not after each step:
	// one that died begins anew.
	OnlyEnds bool
	// RecursionLimit is how many steps a run may take; 0: 25.
	RecursionLimit int
	// Parallel is how many tasks of a step run at a time; 0: 64.
	Parallel int
	// Observe is told of events, one at a time and in order. It must not block for long.
	Observe func(Event)
}

const (
	defaultRecursionLimit = 25
	defaultParallel       = 64
)

// Run runs a thread of the graph until it ends, and returns the state then. A thread
// that is done and has neither input nor answers returns its state again.
//
// Errors: *InterruptedError when it waits for answers, *NodeError, *UpdateError,
// *RecursionError, *UnknownInterruptError, ErrUnknownThread, ErrConflict, ctx's, the
// saver's. The state is returned with the first three.
func (g *Graph) Run(ctx context.Context, r Request, options Options) (State, error) {
	if options.RecursionLimit == 0 {
		options.RecursionLimit = defaultRecursionLimit
	}
	if options.Parallel == 0 {
		options.Parallel = defaultParallel
	}
	run := &run{graph: g, thread: r.Thread, options: options, at: &Checkpoint{State: State{}}}
	if options.Saver != nil {
		saved, err := options.Saver.Load(ctx, g, r.Thread)
		if err != nil {
			return nil, err
		}
		if saved != nil {
			run.at = saved
			run.at.Folded = nil
		}
	}
	over, err := run.begin(ctx, r)
	if over || err != nil {
		return run.at.State, err
	}
	return run.steps(ctx)
}

// run is one call of Run.
type run struct {
	graph   *Graph
	thread  string
	options Options
	// at is the checkpoint that the thread is at, changed in place.
	at *Checkpoint

	mu       sync.Mutex
	sequence int
}

// finished is a task with what it wrote.
type finished struct {
	task    Task
	command Command
}

// begin brings the thread to where its tasks can be done. over says that there are none to do.
func (r *run) begin(ctx context.Context, request Request) (over bool, err error) {
	switch {
	case request.Input != nil:
		return false, r.beginTurn(ctx, request.Input)
	case r.at.Revision == 0:
		return false, ErrUnknownThread
	case len(request.Answers) > 0:
		if err := r.answer(request.Answers); err != nil {
			return false, err
		}
	case r.at.Status == Done:
		return true, nil
	case r.at.Status == Waiting:
		return false, &InterruptedError{r.at.Interrupts}
	}
	r.at.Status, r.at.Error = Running, ""
	// Before any node is called: of two who go on with a thread, one is refused here.
	return false, r.save(ctx)
}

// beginTurn writes an input; what is left of a turn that failed is dropped.
func (r *run) beginTurn(ctx context.Context, input State) error {
	if r.at.Status == Waiting {
		return &InterruptedError{r.at.Interrupts}
	}
	if r.at.Revision == 0 {
		for name, channel := range r.graph.channels {
			if channel.Initial != nil {
				initial, err := plain(channel.Initial)
				if err != nil {
					return &UpdateError{Channel: name, Nodes: []string{Start}, Reason: err.Error()}
				}
				r.at.State[name] = initial
			}
		}
	}
	r.at = &Checkpoint{Revision: r.at.Revision, Status: Running, Step: r.at.Step, State: r.at.State}
	written, err := plainState(Start, input)
	if err != nil {
		return err
	}
	first := []finished{{task: Task{Node: Start}, command: Command{Update: written}}}
	if err := r.fold(first); err != nil {
		return err
	}
	if err := r.plan(ctx, first); err != nil {
		return err
	}
	if r.options.OnlyEnds {
		return nil
	}
	return r.save(ctx)
}

// answer gives answers to open questions.
func (r *run) answer(answers map[string]any) error {
	open := idsOf(r.at.Interrupts)
	for id := range answers {
		if !slices.Contains(open, id) {
			return &UnknownInterruptError{ID: id, Open: open}
		}
	}
	var left []Interrupt
	for _, question := range r.at.Interrupts {
		given, answered := answers[question.ID]
		if !answered {
			left = append(left, question)
			continue
		}
		value, err := plain(given)
		if err != nil {
			return fmt.Errorf("answer to %s: %w", question.ID, err)
		}
		task, below := taskOf(question.ID)
		if question.Run != "" && below == "" {
			continue
		}
		if below == "" {
			if r.at.Answers == nil {
				r.at.Answers = map[string][]any{}
			}
			r.at.Answers[task] = append(r.at.Answers[task], value)
			continue
		}
		if r.at.Below == nil {
			r.at.Below = map[string]map[string]any{}
		}
		if r.at.Below[task] == nil {
			r.at.Below[task] = map[string]any{}
		}
		r.at.Below[task][below] = value
	}
	r.at.Interrupts = left
	return nil
}

// steps does one step after the other.
func (r *run) steps(ctx context.Context) (State, error) {
	for done := 0; len(r.at.Tasks) > 0; done++ {
		if done == r.options.RecursionLimit {
			return r.stop(ctx, Failed, &RecursionError{Limit: r.options.RecursionLimit})
		}
		if ctx.Err() != nil {
			return r.at.State, context.Cause(ctx)
		}
		returned, questions, err := r.do(ctx)
		if err != nil || len(questions) > 0 {
			return r.pause(ctx, returned, questions, err)
		}
		if err := r.fold(returned); err != nil {
			return r.stop(ctx, Failed, err)
		}
		r.at.Step++
		r.at.Written, r.at.Interrupts, r.at.Answers, r.at.Below = nil, nil, nil, nil
		if err := r.plan(ctx, returned); err != nil {
			return r.stop(ctx, Failed, err)
		}
		r.tell(Event{Kind: StepDone, Data: r.at.State})
		if len(r.at.Tasks) == 0 || r.options.OnlyEnds {
			continue
		}
		if err := r.save(ctx); err != nil {
			return nil, err
		}
	}
	return r.stop(ctx, Done, nil)
}

// pause keeps what the tasks of a step have written that have returned, where others
// wait or failed.
func (r *run) pause(ctx context.Context, returned []finished, questions []Interrupt, err error) (State, error) {
	if len(returned) > 0 && r.at.Written == nil {
		r.at.Written = map[string]Command{}
	}
	for _, f := range returned {
		r.at.Written[f.task.ID] = f.command
	}
	r.at.Interrupts = questions
	if err != nil {
		return r.stop(ctx, Failed, err)
	}
	return r.stop(ctx, Waiting, &InterruptedError{questions})
}

// stop saves how the thread stands, and returns why. Where ctx has ended, the thread
// stays at its latest checkpoint.
func (r *run) stop(ctx context.Context, status Status, why error) (State, error) {
	if ctx.Err() != nil {
		return r.at.State, context.Cause(ctx)
	}
	r.at.Status = status
	if status == Failed {
		r.at.Error = why.Error()
	}
	if err := r.save(ctx); err != nil {
		return nil, err
	}
	return r.at.State, why
}

func (r *run) save(ctx context.Context) error {
	if r.options.Saver == nil {
		return nil
	}
	if err := r.options.Saver.Save(ctx, r.thread, r.at); err != nil {
		return fmt.Errorf("save thread %s: %w", r.thread, err)
	}
	r.at.Folded = nil
	return nil
}

func (r *run) tell(e Event) {
	if r.options.Observe == nil {
		return
	}
	// The number is given and told of under one lock, or events would come out of order.
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sequence++
	e.Sequence = r.sequence
	if e.Step == 0 {
		e.Step = r.at.Step
	}
	r.options.Observe(e)
}

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

// fold writes what the tasks of a step have written into the state.
func (r *run) fold(tasks []finished) error {
	step := make([]Update, len(tasks))
	for i, f := range tasks {
		step[i] = Update{Node: f.task.Node, Writes: f.command.Update}
	}
	state, err := r.graph.fold(r.at.State, step)
	if err != nil {
		return err
	}
	r.at.State = state
	if r.options.Saver != nil {
		r.at.Folded = append(r.at.Folded, step)
	}
	return nil
}

// fold returns the state behind a step: what its tasks wrote, in their order.
func (g *Graph) fold(before State, step []Update) (State, error) {
	state := make(State, len(before))
	for name, value := range before {
		if !g.channels[name].Ephemeral {
			state[name] = value
		}
	}
	writers := map[string][]string{}
	replaced := map[string]bool{}
	for _, update := range step {
		for _, name := range slices.Sorted(maps.Keys(update.Writes)) {
			channel, known := g.channels[name]
			writers[name] = append(writers[name], update.Node)
			wrong := func(reason string) error { return &UpdateError{Channel: name, Nodes: writers[name], Reason: reason} }
			if !known {
				return nil, wrong("the graph has no such channel")
			}
			written := update.Writes[name]
			overwrite, isOverwrite := written.(Overwrite)
			switch {
			case isOverwrite && replaced[name]:
				return nil, wrong("it takes one Overwrite in a step")
			case isOverwrite:
				replaced[name], state[name] = true, overwrite.Value
			case replaced[name]:
				// It replaces what the others of the step write, whatever their order.
			case channel.Reduce == nil && len(writers[name]) > 1:
				return nil, wrong("it takes one value in a step: give it a reducer")
			case channel.Reduce == nil:
				state[name] = written
			default:
				value, err := channel.Reduce(state[name], written)
				if err != nil {
					return nil, wrong(err.Error())
				}
				state[name] = value
			}
		}
	}
	return state, nil
}

// plan says which tasks follow those that have returned.
func (r *run) plan(ctx context.Context, returned []finished) error {
	p := plan{run: r, whole: map[string]bool{}}
	for _, f := range returned {
		if err := p.follow(ctx, f); err != nil {
			return err
		}
	}
	for _, f := range returned {
		if err := p.arrive(f.task.Node); err != nil {
			return err
		}
	}
	r.at.Tasks = p.tasks
	return nil
}

type plan struct {
	run   *run
	tasks []Task
	// whole are the nodes that have a task which reads the state.
	whole map[string]bool
}

// follow adds what the edges and branches of a task's node name, and its command.
func (p *plan) follow(ctx context.Context, f finished) error {
	from := f.task.Node
	sends := To(p.run.graph.edges[from]...)
	for _, branch := range p.run.graph.branches[from] {
		chosen, err := branch(ctx, p.run.at.State)
		if err != nil {
			return &NodeError{Node: from, Step: p.run.at.Step, Cause: fmt.Errorf("choose what follows: %w", err)}
		}
		sends = append(sends, chosen...)
	}
	sends = append(sends, f.command.Goto...)
	for _, send := range sends {
		if err := p.add(from, send); err != nil {
			return err
		}
	}
	return nil
}

// arrive notes for joins that a node has returned.
func (p *plan) arrive(node string) error {
	at := p.run.at
	for place, join := range p.run.graph.joins {
		if !slices.Contains(join.from, node) || slices.Contains(at.Arrived[place], node) {
			continue
		}
		if at.Arrived == nil {
			at.Arrived = map[int][]string{}
		}
		at.Arrived[place] = append(at.Arrived[place], node)
		if len(at.Arrived[place]) < len(join.from) {
			continue
		}
		delete(at.Arrived, place)
		if err := p.add(node, Send{Node: join.to}); err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) add(from string, send Send) error {
	if send.Node == End {
		return nil
	}
	if _, known := p.run.graph.nodes[send.Node]; !known {
		return &NodeError{Node: from, Step: p.run.at.Step, Cause: fmt.Errorf("there is no node %q to go to", send.Node)}
	}
	if send.Input == nil {
		if p.whole[send.Node] {
			return nil
		}
		p.whole[send.Node] = true
	}
	id := taskID(p.run.thread, p.run.at.Step, send.Node, len(p.tasks))
	p.tasks = append(p.tasks, Task{ID: id, Node: send.Node, Input: send.Input})
	return nil
}
