package agent

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/djangobridge/djangobridge/go-runtime/internal/definition"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/document"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// The graphs of the runtime's own are documents; see package document. Their kinds of
// nodes are transform, human, and llm, whose `with` has instructions and a prompt for the
// model, and a sample that stands in for its answer where no model is configured.
//
//go:embed graphs/*.yaml
var graphFiles embed.FS

// graphTasks are the task types that run graphs, by the member that names the graph.
func graphTasks() map[string]string {
	return map[string]string{"langgraph_task": "graph_id", "langchain_task": "chain_id"}
}

// addSpelling adds the name of langgraph_task in integrations that were written for that.
func addSpelling(tasks map[string]*taskType) {
	spelled := *tasks["langgraph_task"]
	spelled.name = "langraph_task"
	tasks[spelled.name] = &spelled
}

// graphKinds are the kinds of nodes.
func graphKinds(provider model.Provider) map[string]document.Kind {
	return map[string]document.Kind{"llm": llmKind(provider), "transform": document.Transform, "human": document.Human}
}

// builtInGraphs are the documents of the runtime's own.
func builtInGraphs() ([]definition.Definition, error) {
	files, err := fs.Glob(graphFiles, "graphs/*.yaml")
	if err != nil {
		return nil, err
	}
	graphs := make([]definition.Definition, 0, len(files))
	for _, file := range files {
		text, err := graphFiles.ReadFile(file)
		if err != nil {
			return nil, err
		}
		parsed, err := document.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		if want := strings.TrimSuffix(path.Base(file), ".yaml"); parsed.Name != want {
			return nil, fmt.Errorf("the graph of %s is called %q", file, parsed.Name)
		}
		graphs = append(graphs, definition.Definition{
			Kind: definition.Graph, Name: parsed.Name, Version: definition.VersionOf(text), Text: text, Description: parsed.Description,
		})
	}
	return graphs, nil
}

// graphTask runs the graphs that inputs name.
type graphTask struct {
	graphs Graphs
	// member is that of the input which names the graph.
	member string
}

// check refuses an unknown graph, and members that are none of its channels.
func (t *graphTask) check(namespace string, input []byte) error {
	name, members, err := t.read(input)
	if err != nil {
		return err
	}
	// What is current is in memory.
	found, err := t.graphs.Graph(context.Background(), namespace, name, "")
	if err != nil {
		return err
	}
	return checkChannels(found, members)
}

// read splits an input into the name of a graph and what is for its channels.
func (t *graphTask) read(input []byte) (name string, members graph.State, err error) {
	if err := json.Unmarshal(input, &members); err != nil {
		return "", nil, violation.New("input", "is not valid JSON")
	}
	name, _ = members[t.member].(string)
	delete(members, t.member)
	return name, members, nil
}

func checkChannels(found Graph, members graph.State) error {
	var wrong []error
	for _, channel := range slices.Sorted(maps.Keys(members)) {
		if !found.HasChannel(channel) {
			wrong = append(wrong, violation.New("input."+channel, "is no channel of %s; its channels are %s",
				found.Name(), strings.Join(found.Channels(), ", ")))
		}
	}
	return violation.Join(wrong...)
}

// run implements engine.Task.
func (t *graphTask) run(ctx context.Context, call engine.Call) ([]byte, error) {
	name, state, err := t.read(call.Input)
	if err != nil {
		return nil, err
	}
	found, err := pin(ctx, t.graphs, call, name)
	if err == nil {
		// The graph may be another one than when the run was accepted.
		err = checkChannels(found, state)
	}
	if err != nil {
		return nil, graphFailure(name, err)
	}
	saver := newRunSaver(call)
	if found.Durability == document.Sync {
		saver.commit = call.Commit
	}
	request, err := requestOf(ctx, found.Graph, saver, call, state)
	if err != nil {
		return nil, err
	}
	var spent spending
	var emitErr error
	var output map[string]any
	state, err = found.Run(withSpending(ctx, &spent), request, graph.Options{
		Saver:    saver,
		OnlyEnds: found.Durability == document.Exit,
		Observe: func(e graph.Event) {
			// The step's state is what the updates make.
			if e.Kind != graph.StepDone && emitErr == nil {
				emitErr = emitGraphEvent(ctx, call, e)
			}
		},
	})
	if waits, asks := errors.AsType[*graph.InterruptedError](err); asks {
		return nil, parked(waits.Interrupts)
	}
	if err = errors.Join(err, emitErr); err == nil {
		output, err = found.Result(ctx, state)
	}
	if err != nil {
		return nil, graphFailure(found.Name(), err)
	}
	result := map[string]any{
		t.member: found.Name(), "task_type": call.TaskType, "output": output,
		"model": spent.model, "offline": spent.offline, "usage": spent.usage,
	}
	if spent.offline {
		result["notice"] = model.OfflineNotice
	}
	return encode(result)
}

// requestOf is what a run asks of its graph: to begin with an input, or, where it was
// called before, to go on with the answer to what it waited for, else with the step that
// it was at.
func requestOf(
	ctx context.Context, g *graph.Graph, saver *runSaver, call engine.Call, input graph.State,
) (graph.Request, error) {
	request := graph.Request{Thread: call.RunID}
	saved, err := saver.Load(ctx, g, call.RunID)
	if err != nil {
		return request, err
	}
	if saved == nil {
		request.Input = input
		return request, nil
	}
	if saved.Status != graph.Waiting {
		return request, nil
	}
	questions, awaited := split(saved.Interrupts)
	if len(questions) > 0 {
		request.Answers, err = answersOf(questions, call.Answers)
		return request, err
	}
	// All have ended, or whoever waits for them looks again.
	request.Answers = map[string]any{}
	for _, run := range awaited {
		request.Answers[run.ID] = nil
	}
	return request, nil
}

// split tells questions from runs that are awaited.
func split(interrupts []graph.Interrupt) (questions, awaited []graph.Interrupt) {
	for _, interrupt := range interrupts {
		if interrupt.Run == "" {
			questions = append(questions, interrupt)
		} else {
			awaited = append(awaited, interrupt)
		}
	}
	return questions, awaited
}

// answersOf are those that the latest answer of a run has to questions, by their ids.
func answersOf(questions []graph.Interrupt, given []engine.Answer) (map[string]any, error) {
	if len(given) == 0 || given[len(given)-1].InterruptID != questions[0].ID {
		return nil, nil
	}
	latest := given[len(given)-1]
	var value any
	if err := json.Unmarshal(latest.Value, &value); err != nil {
		return nil, fmt.Errorf("read answer to %s: %w", latest.InterruptID, err)
	}
	answers := map[string]any{}
	if byID, isObject := value.(map[string]any); isObject && len(questions) > 1 {
		for _, question := range questions {
			if answer, given := byID[question.ID]; given {
				answers[question.ID] = answer
			}
		}
	}
	if len(answers) == 0 {
		// It names none of several: it is for the first.
		answers[latest.InterruptID] = value
	}
	return answers, nil
}

// parked has the run ask what its graph does, or where that asks nothing wait for what it
// does. Several questions are asked as one, whose answer is an object of answers by the
// questions' ids.
func parked(interrupts []graph.Interrupt) error {
	questions, awaited := split(interrupts)
	if len(questions) == 0 {
		runs := make([]string, len(awaited))
		for i, run := range awaited {
			runs[i] = run.Run
		}
		return &engine.ParkedError{Runs: runs}
	}
	payload := questions[0].Value
	if len(questions) > 1 {
		payload = map[string]any{"questions": questions}
	}
	text, err := encode(payload)
	if err != nil {
		return err
	}
	return &engine.ParkedError{InterruptID: questions[0].ID, Payload: text}
}

// emitGraphEvent adds what happens in a graph to the run's log, for who debugs it.
func emitGraphEvent(ctx context.Context, call engine.Call, e graph.Event) error {
	payload, err := encode(e)
	if err != nil {
		return err
	}
	return call.Emit(ctx, engine.NewEvent{Type: "graph." + string(e.Kind), Visibility: engine.Debug, Payload: payload})
}

// graphFailure says in which graph a run failed. What a model's provider said of it,
// and the end of the run, pass as they are.
func graphFailure(name string, err error) error {
	if failure, found := errors.AsType[*engine.TaskError](err); found {
		failed := *failure
		if node, inNode := errors.AsType[*graph.NodeError](err); inNode {
			failed.Message = fmt.Sprintf("node %s of graph %s: %s", node.Node, name, failure.Message)
		}
		return &failed
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &engine.TaskError{
		Reason: engine.ReasonAgentFailed, Message: fmt.Sprintf("graph %s: %v", name, err), Type: "GraphFailed", Cause: err,
	}
}

// spending is what the models of one run have taken.
type spending struct {
	mu      sync.Mutex
	usage   model.Usage
	model   string
	offline bool
}

func (s *spending) add(response model.Response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.usage = s.usage.Add(response.Usage)
	s.model = response.Model
	s.offline = s.offline || response.Offline
}

type spendingKey struct{}

func withSpending(ctx context.Context, s *spending) context.Context {
	return context.WithValue(ctx, spendingKey{}, s)
}

// llmKind makes nodes that ask a model.
func llmKind(provider model.Provider) document.Kind {
	return func(with document.With) (document.Work, error) {
		instructions := with.String("instructions")
		prompt := with.Text("prompt")
		sample := with.Text("sample")
		work := func(ctx context.Context, _ *graph.Call, state graph.State) (any, error) {
			asked, err := prompt(ctx, state)
			if err != nil {
				return nil, fmt.Errorf("prompt: %w", err)
			}
			response, err := provider.Complete(ctx, model.Request{
				Instructions: instructions,
				Messages:     []model.Message{{Role: model.User, Text: asked}},
				Sample:       func(string) (string, error) { return sample(ctx, state) },
			})
			if err != nil {
				return nil, modelFailure(err)
			}
			if s, counted := ctx.Value(spendingKey{}).(*spending); counted {
				s.add(response)
			}
			return map[string]any{"text": response.Text, "model": response.Model, "offline": response.Offline}, nil
		}
		return work, with.Check()
	}
}
