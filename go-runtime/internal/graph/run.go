package graph

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
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
	// Drop has a thread that waits give up its questions: an Input begins a turn, and
	// without one the tasks that wait are done again, and may ask again.
	Drop bool
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
	// MaxTasks is how many tasks a step may have; 0: 10,000.
	MaxTasks int
	// MaxTotalTasks is how many tasks Run may do in all, and MaxGraphs how many graphs nodes
	// may run, at all levels together; 0: 100,000 and 1,000.
	MaxTotalTasks, MaxGraphs int
	// MaxStateBytes bounds the state, about as it is as JSON; 0: 960 KiB, which a record of
	// the journal holds with what else a checkpoint has.
	MaxStateBytes int
	// Cache is for nodes with a CachePolicy; nil: they are called each time.
	Cache Cache
	// Store is what Call.Store returns.
	Store Store
	// Observe is told of events, one at a time and in order. It must not block for long.
	Observe func(Event)

	// depth is how many graphs the run is a part of.
	depth int
	// total is that of the run which this one is a part of; nil: it is of none.
	total *total
}

const (
	defaultRecursionLimit = 25
	defaultParallel       = 64
	defaultMaxTasks       = 10_000
	defaultMaxTotalTasks  = 100_000
	defaultMaxGraphs      = 1000
	defaultMaxStateBytes  = 960 << 10
)

func (o Options) withDefaults() Options {
	o.RecursionLimit = cmp.Or(o.RecursionLimit, defaultRecursionLimit)
	o.Parallel = cmp.Or(o.Parallel, defaultParallel)
	o.MaxTasks = cmp.Or(o.MaxTasks, defaultMaxTasks)
	o.MaxTotalTasks = cmp.Or(o.MaxTotalTasks, defaultMaxTotalTasks)
	o.MaxGraphs = cmp.Or(o.MaxGraphs, defaultMaxGraphs)
	o.MaxStateBytes = cmp.Or(o.MaxStateBytes, defaultMaxStateBytes)
	return o
}

// Run runs a thread of the graph until it ends, and returns the state then. A thread
// that is done and has neither input nor answers returns its state again.
//
// Errors: *InterruptedError when it waits for answers, *NodeError, *UpdateError,
// *RecursionError, *SizeError, *FanOutError, *TotalError, *UnknownInterruptError, ErrUnknownThread,
// ErrConflict, ctx's, the saver's. The state is returned with those of nodes and steps.
func (g *Graph) Run(ctx context.Context, r Request, options Options) (State, error) {
	run, err := g.open(ctx, r.Thread, options)
	if err != nil {
		return nil, err
	}
	over, err := run.begin(ctx, r)
	if over || err != nil {
		return run.at.State, err
	}
	return run.steps(ctx)
}

// open takes a thread up where it is, or begins it.
func (g *Graph) open(ctx context.Context, thread string, options Options) (*run, error) {
	r := &run{graph: g, thread: thread, options: options.withDefaults()}
	var err error
	if options.Saver != nil {
		r.at, err = options.Saver.Load(ctx, g, thread)
	}
	if r.at != nil {
		// They are that checkpoint's alone.
		r.at.Parent, r.at.Request, r.at.Run = 0, "", ""
		if !maps.Equal(r.at.channels, g.kept) {
			// What follows is folded otherwise than what is there.
			r.at.channels, r.at.whole, r.at.deltas = g.kept, 0, 0
		}
	}
	if r.at != nil || err != nil {
		return r, err
	}
	r.at = &Checkpoint{State: State{}, channels: g.kept}
	for name, channel := range g.channels {
		if channel.Initial == nil {
			continue
		}
		initial, err := plain(channel.Initial)
		if err != nil {
			return nil, &UpdateError{Channel: name, Nodes: []string{Start}, Reason: err.Error()}
		}
		r.at.State[name] = initial
	}
	return r, nil
}

// run is one call of Run.
type run struct {
	graph   *Graph
	thread  string
	options Options
	// at is the checkpoint that the thread is at, changed in place.
	at *Checkpoint

	// size is at least what the state has, about; 0: it was not measured.
	size int

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
	if request.Drop && r.at.Status == Waiting {
		r.at.Status, r.at.Interrupts = Running, nil
	}
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
	r.at.Source, r.at.Status, r.at.Error = Resumed, Running, ""
	r.tell(Event{Kind: Begins, Step: r.at.Step, State: r.at.State})
	// Before any node is called: of two who go on with a thread, one is refused here.
	return false, r.save(ctx)
}

// beginTurn writes an input; what is left of a turn that failed is dropped.
func (r *run) beginTurn(ctx context.Context, input State) error {
	if r.at.Status == Waiting {
		return &InterruptedError{r.at.Interrupts}
	}
	before := r.at
	r.at = &Checkpoint{
		Revision: before.Revision, Source: Begun, Status: Running, Step: before.Step, State: before.State,
		channels: before.channels, whole: before.whole, deltas: before.deltas,
	}
	if before.Revision > 0 {
		// Tasks of a turn that failed have the ids of its step.
		r.at.Step++
	}
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
	r.tell(Event{Kind: Begins, Step: r.at.Step, State: r.at.State})
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
	bounded := ctx
	if r.options.total == nil {
		ending, end := context.WithCancelCause(ctx)
		defer end(nil)
		bounded, r.options.total = ending, &total{end: end}
	}
	limit := cmp.Or(r.graph.limit, r.options.RecursionLimit)
	for done := 0; len(r.at.Tasks) > 0; done++ {
		if done == limit {
			return r.stop(ctx, Failed, &RecursionError{Limit: limit})
		}
		if ctx.Err() != nil {
			return r.at.State, context.Cause(ctx)
		}
		returned, questions, err := r.do(bounded)
		if bounded.Err() != nil && ctx.Err() == nil {
			// Each task that was ended says the same.
			err = context.Cause(bounded)
		}
		if err != nil || len(questions) > 0 {
			if _, isAbove := errors.AsType[*parentError](err); isAbove {
				return r.at.State, err
			}
			return r.pause(ctx, returned, questions, err)
		}
		before := *r.at
		if err = r.fold(returned); err == nil {
			r.nextStep()
			r.at.Source = Stepped
			err = r.plan(ctx, returned)
		}
		if err != nil {
			// The step is done again: nothing of it may be in the state.
			*r.at = before
			return r.stop(ctx, Failed, err)
		}
		r.tellStep(returned)
		if len(r.at.Tasks) == 0 || r.options.OnlyEnds {
			continue
		}
		if err := r.save(ctx); err != nil {
			return nil, err
		}
	}
	return r.stop(ctx, Done, nil)
}

// nextStep leaves a step.
func (r *run) nextStep() {
	r.at.Step++
	r.at.Written, r.at.Interrupts, r.at.Answers, r.at.Below = nil, nil, nil, nil
}

// returned are the tasks of the step that have returned before it waited or failed.
func (r *run) returned() []finished {
	var returned []finished
	for _, task := range r.at.Tasks {
		if command, done := r.at.Written[task.ID]; done {
			returned = append(returned, finished{task, command})
		}
	}
	return returned
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
	r.at.Source, r.at.Status = Stepped, status
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
	r.at.Graph, r.at.Time = r.graph.name, time.Now().UTC()
	if err := r.options.Saver.Save(ctx, r.thread, r.at); err != nil {
		return fmt.Errorf("save thread %s: %w", r.thread, err)
	}
	r.at.Folded = nil
	if r.options.Observe == nil {
		return nil
	}
	saved := SavedCheckpoint{Revision: r.at.Revision, Source: r.at.Source, Status: r.at.Status}
	for _, task := range r.at.Tasks {
		saved.Next = append(saved.Next, task.Node)
	}
	r.tell(Event{Kind: Saved, Step: r.at.Step, Data: saved})
	return nil
}

// tellStep tells of a step that is done.
func (r *run) tellStep(returned []finished) {
	if r.options.Observe == nil {
		return
	}
	e := Event{Kind: StepDone, Step: r.at.Step, State: r.at.State, Tasks: make([]string, len(returned))}
	for i, f := range returned {
		e.Tasks[i] = f.task.ID
	}
	r.tell(e)
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
	r.options.Observe(e)
}
