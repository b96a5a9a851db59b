package agent

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/definition"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/document"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// The graphs of the runtime's own are documents; see package document, and Registry.kinds.
//
//go:embed graphs/*.yaml
var graphFiles embed.FS

// spelledTask is langgraph_task in integrations that were written for that name.
const spelledTask = "langraph_task"

// graphTasks are the task types that run graphs, by the member that names the graph.
func graphTasks() map[string]string {
	return map[string]string{"langgraph_task": "graph_id", spelledTask: "graph_id", "langchain_task": "chain_id"}
}

// loadGraphs returns the documents of the runtime's own, which compile.
func (r *Registry) loadGraphs() ([]definition.Definition, error) {
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
		made, err := r.compileGraph(text)
		if err != nil {
			return nil, fmt.Errorf("compile %s: %w", file, err)
		}
		if want := strings.TrimSuffix(path.Base(file), ".yaml"); made.Name() != want {
			return nil, fmt.Errorf("the graph of %s is called %q", file, made.Name())
		}
		graphs = append(graphs, definition.Definition{
			Kind: definition.Graph, Name: made.Name(), Version: definition.VersionOf(text), Text: text, Description: made.Description,
		})
	}
	return graphs, nil
}

// graphTask runs the graphs that inputs name.
type graphTask struct {
	registry *Registry
	// member is that of the input which names the graph.
	member string
}

// check refuses an unknown graph, and members that are none of its channels.
func (t *graphTask) check(namespace string, input []byte) error {
	name, threadID, members, err := t.read(input)
	if err != nil {
		return err
	}
	// What is current is in memory.
	found, err := t.registry.currentGraph(context.Background(), namespace, name)
	if err != nil {
		return err
	}
	// The state of a graph has doubles.
	return violation.Join(checkTurn(found, threadID, members), jsonvalue.CheckExact("input", input))
}

// checkTurn refuses an input that does not fit. A turn of a thread may have none: it does
// what is left to do.
func checkTurn(found *document.Compiled, threadID string, input graph.State) error {
	if threadID != "" && len(input) == 0 {
		return nil
	}
	return found.CheckInput(input)
}

// read splits an input into the names of a graph and of a thread, and what is for channels.
func (t *graphTask) read(input []byte) (name, threadID string, members graph.State, err error) {
	if err := json.Unmarshal(input, &members); err != nil {
		return "", "", nil, violation.New("input", "is not valid JSON")
	}
	name, _ = members[t.member].(string)
	if given, named := members[threadMember]; named && t.registry.threads != nil {
		threadID, _ = given.(string)
		if err := checkThread("input."+threadMember, threadID); err != nil {
			return "", "", nil, err
		}
		delete(members, threadMember)
	}
	delete(members, t.member)
	return name, threadID, members, nil
}

// run implements engine.Task.
func (t *graphTask) run(ctx context.Context, call engine.Call) ([]byte, error) {
	name, threadID, state, err := t.read(call.Input)
	if err != nil {
		return nil, err
	}
	used := newPins(call)
	found, err := t.registry.graphs.pin(ctx, used, name)
	if err == nil {
		// The graph may be another one than when the run was accepted.
		err = checkTurn(found, threadID, state)
	}
	if err != nil {
		return nil, graphFailure(name, err)
	}
	ctx, spending, stop, err := begin(used.in(ctx), call, Budget{})
	if err != nil {
		return nil, err
	}
	defer stop()
	own := ownPart(call, found.Durability)
	if threadID != "" {
		if own, err = t.registry.threadPart(ctx, call, found, threadID); err != nil {
			return nil, graphFailure(name, err)
		}
	}
	told, err := newTeller(call)
	if err != nil {
		return nil, err
	}
	var output map[string]any
	state, err = advance(ctx, call, found.Graph, own, state, graph.Options{
		OnlyEnds: found.Durability == document.Exit,
		Cache:    nodeCache{kept: t.registry.cache, namespace: call.Namespace, spending: spending},
		Observe:  func(e graph.Event) { told.observe(ctx, e) },
	})
	if err = errors.Join(err, told.err); err == nil {
		output, err = found.Result(ctx, state)
	}
	if err != nil {
		return nil, graphFailure(found.Name(), err)
	}
	result := map[string]any{t.member: found.Name(), "task_type": call.TaskType, "output": output}
	if threadID != "" {
		result[threadMember] = threadID
	}
	spending.describe(result)
	if result["offline"] == true {
		result["notice"] = model.OfflineNotice
	}
	return encode(result)
}

// graphFailure says in which graph a run failed. What a model's provider said of it,
// and the end of the run, pass as they are.
func graphFailure(name string, err error) error {
	if errors.As(err, new(*engine.ParkedError)) {
		return err
	}
	if over, isBudget := errors.AsType[*BudgetError](err); isBudget {
		return budgetFailure(over)
	}
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
