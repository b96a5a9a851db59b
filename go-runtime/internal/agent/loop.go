package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonschema"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
	"github.com/djangobridge/djangobridge/go-runtime/internal/workspace"
)

const (
	// defaultRounds is how often an agent may have tools called before it must answer.
	defaultRounds = 20
	// maxMends is how often a model may send its answer again because it does not fit its schema.
	maxMends = 1
)

// loop is how an agent works: it asks its model, does the tools that the model calls, those
// of one answer at the same time, and goes on until the model answers. It is a graph, so
// that a run whose runtime died goes on with its step, and tools may wait for people and
// for other runs.
type loop struct {
	provider     model.Provider
	model        string
	instructions string
	// tools are nil where the agent has none.
	tools *toolkit
	// answer is what answers must fit; nil: they are words.
	answer     *jsonschema.Schema
	answerName string
	// check looks at an answer that fits its schema; nil: nothing does.
	check func(text string) *violation.Error
	// plan has the model plan before it works, with these instructions; empty: it does not.
	plan string
	// build makes of an answer what is to be built, and says what of that does not work;
	// nil: answers are all that is wanted.
	build *builder
	// rounds bounds how often tools are called; 0: defaultRounds.
	rounds int
	budget Budget
}

// assignment is what a loop is asked to do.
type assignment struct {
	// instructions are added to the agent's own.
	instructions []string
	messages     []model.Message
	sample       func(notice string) (string, error)
	// files are there when the work begins.
	files []madeFile
	// pieces is given the answer while it comes; nil: nobody wants it.
	pieces func(text string) error
}

// result is what a loop came to.
type result struct {
	text   string
	plan   string
	files  []madeFile
	checks any
	ledger *ledger
}

// The channels of a loop, and its nodes.
const (
	messagesChannel = "messages"
	roundsChannel   = "rounds"
	mendsChannel    = "mends"
	repairsChannel  = "repairs"
	planChannel     = "plan"
	answerChannel   = "answer"
	checksChannel   = "checks"

	planNode  = "plan"
	thinkNode = "think"
	toolNode  = "tool"
	buildNode = "build"
)

// run does an assignment as a part of a run. A run that waits gets an *engine.ParkedError.
func (l *loop) run(ctx context.Context, call engine.Call, asked assignment) (made result, err error) {
	ctx, spending, stop, err := begin(ctx, call, l.budget)
	if err != nil {
		return result{}, err
	}
	defer stop()
	t := turnOfLoop{loop: l, asked: asked}
	if l.build != nil {
		if t.workspace, err = l.build.begin(ctx, call, asked.files); err != nil {
			return result{}, err
		}
		defer func() { err = errors.Join(err, t.workspace.Close()) }()
	}
	if l.tools != nil {
		if t.tools, err = l.tools.open(ctx, call.Namespace); err != nil {
			return result{}, err
		}
		t.tools.build, t.tools.workspace = l.build, t.workspace
	}
	// A round is a step of thinking and one of tools; each mend and repair may add two.
	options := graph.Options{RecursionLimit: 2 * (l.maxRounds() + maxMends + maxRepairs + 2)}
	input := graph.State{messagesChannel: asked.messages}
	var state graph.State
	if l.tools == nil && l.plan == "" && l.build == nil {
		// One answer of the model is all there is: nothing to go on with.
		state, err = t.graph().Run(ctx, graph.Request{Thread: call.RunID, Input: input}, options)
	} else {
		state, err = advance(ctx, call, t.graph(), ownPart(call, graph.Async), input, options)
	}
	if err != nil {
		return result{}, loopFailure(err)
	}
	made = result{ledger: spending, checks: state[checksChannel]}
	made.text, _ = state[answerChannel].(string)
	made.plan, _ = state[planChannel].(string)
	if l.build != nil {
		answered, err := filesOf(made.text)
		if err != nil {
			return result{}, err
		}
		if made.files, err = shown(t.workspace, asked.files, answered); err != nil {
			return result{}, err
		}
	}
	return made, nil
}

func (l *loop) maxRounds() int {
	if l.rounds > 0 {
		return l.rounds
	}
	return defaultRounds
}

// turnOfLoop is one call of run.
type turnOfLoop struct {
	*loop

	asked assignment
	// tools are the loop's, opened for the run, and workspace is where it builds.
	tools     *toolbox
	workspace *workspace.Workspace
}

func (t *turnOfLoop) graph() *graph.Graph {
	g := graph.New("agent loop", map[string]graph.Channel{
		messagesChannel: {Reduce: graph.Append}, roundsChannel: {Reduce: graph.Add}, mendsChannel: {Reduce: graph.Add},
		repairsChannel: {Reduce: graph.Add}, planChannel: {}, answerChannel: {}, checksChannel: {},
	})
	g.Node(thinkNode, graph.Node{Run: t.think})
	g.Node(toolNode, graph.Node{Run: t.useTool}).Edge(toolNode, thinkNode)
	if t.build != nil {
		g.Node(buildNode, graph.Node{Run: t.buildAnswer})
	}
	if t.plan == "" {
		return g.Edge(graph.Start, thinkNode)
	}
	return g.Node(planNode, graph.Node{Run: t.makePlan}).Edge(graph.Start, planNode).Edge(planNode, thinkNode)
}

// makePlan has the model say what it will do.
func (t *turnOfLoop) makePlan(ctx context.Context, _ *graph.Call, state graph.State) (graph.Command, error) {
	request, err := t.request(state)
	if err != nil {
		return graph.Command{}, err
	}
	request.Instructions += "\n\n" + t.plan
	response, err := ask(ctx, t.provider, request)
	if err != nil || response.Offline {
		return graph.Command{}, err
	}
	planned := []model.Message{
		{Role: model.Assistant, Text: response.Text}, {Role: model.User, Text: "Now carry out your plan."},
	}
	return graph.Command{Update: graph.State{planChannel: response.Text, messagesChannel: planned}}, nil
}

// request is the conversation so far.
func (t *turnOfLoop) request(state graph.State) (model.Request, error) {
	request := model.Request{
		Model:        t.model,
		Instructions: strings.Join(append([]string{t.instructions}, t.asked.instructions...), "\n\n"),
	}
	return request, readValue(state[messagesChannel], &request.Messages)
}

// think asks the model what comes next: tools, or the answer.
func (t *turnOfLoop) think(ctx context.Context, _ *graph.Call, state graph.State) (graph.Command, error) {
	request, err := t.request(state)
	if err != nil {
		return graph.Command{}, err
	}
	request.Sample, request.Pieces = t.asked.sample, t.asked.pieces
	if t.answer != nil {
		request.Schema = &model.Schema{Name: t.answerName, JSON: t.answer.Raw()}
	}
	if rounds, _ := state[roundsChannel].(float64); t.tools != nil && int(rounds) < t.maxRounds() {
		request.Tools = t.tools.set.Model()
	}
	response, err := ask(ctx, t.provider, request)
	if err != nil {
		return graph.Command{}, err
	}
	said := []model.Message{{Role: model.Assistant, Text: response.Text, ToolCalls: response.ToolCalls}}
	command := graph.Command{Update: graph.State{messagesChannel: said}}
	if len(response.ToolCalls) == 0 {
		return t.answered(state, response, command)
	}
	if len(request.Tools) == 0 {
		return command, &engine.TaskError{
			Reason: engine.ReasonModelFailed, Retryable: true,
			Message: fmt.Sprintf("model %s calls tools where it was offered none", response.Model),
		}
	}
	command.Update[roundsChannel] = 1
	for _, wanted := range response.ToolCalls {
		if err := tellCall(ctx, wanted); err != nil {
			return command, err
		}
		command.Goto = append(command.Goto, graph.Send{Node: toolNode, Input: wanted})
	}
	return command, nil
}

// answered ends the loop with an answer that fits, or lets the model mend it.
func (t *turnOfLoop) answered(state graph.State, response model.Response, command graph.Command) (graph.Command, error) {
	if unfit := t.misfit(response.Text); unfit != nil {
		if mends, _ := state[mendsChannel].(float64); mends >= maxMends {
			return command, &engine.TaskError{
				Reason: engine.ReasonModelFailed,
				Message: fmt.Sprintf("the answer of model %s does not fit its schema, nor does its repair (%d mistakes)",
					response.Model, len(unfit.Violations)),
				Retryable: true,
			}
		}
		command.Update[mendsChannel] = 1
		return askAgain(command, "Your answer does not fit: "+unfit.Error()+
			". Send the whole answer again, as one JSON object that fits."), nil
	}
	command.Update[answerChannel] = response.Text
	if t.build != nil {
		command.Goto = graph.To(buildNode)
	}
	return command, nil
}

// askAgain goes back to the model with a message.
func askAgain(command graph.Command, text string) graph.Command {
	said, _ := command.Update[messagesChannel].([]model.Message)
	command.Update[messagesChannel] = append(said, model.Message{Role: model.User, Text: text})
	command.Goto = graph.To(thinkNode)
	return command
}

// misfit says what does not fit in an answer; nil: all fits.
func (t *turnOfLoop) misfit(text string) *violation.Error {
	if t.answer == nil {
		return nil
	}
	if err := t.answer.Check("answer", []byte(text)); err != nil {
		if unfit, named := errors.AsType[*violation.Error](err); named {
			return unfit
		}
		return violation.New("answer", "cannot be checked")
	}
	if t.check == nil {
		return nil
	}
	return t.check(text)
}

// useTool does one call of a tool, and says to the model what came of it.
func (t *turnOfLoop) useTool(ctx context.Context, node *graph.Call, state graph.State) (graph.Command, error) {
	var wanted model.ToolCall
	if err := readValue(state, &wanted); err != nil {
		return graph.Command{}, err
	}
	done, err := t.tools.use(ctx, node, wanted)
	if err != nil {
		return graph.Command{}, err
	}
	message := model.Message{
		Role: model.ToolResult, ToolCallID: wanted.ID, Text: done.Text, Failed: done.Failed, Images: done.Images,
	}
	return graph.Command{Update: graph.State{messagesChannel: []model.Message{message}}}, nil
}

// loopFailure says in words of agents why a loop failed.
func loopFailure(err error) error {
	if over, isBudget := errors.AsType[*BudgetError](err); isBudget {
		return budgetFailure(over)
	}
	if failure, isTask := errors.AsType[*engine.TaskError](err); isTask {
		return failure
	}
	if node, inNode := errors.AsType[*graph.NodeError](err); inNode {
		return node.Cause
	}
	return err
}

// readValue reads what a state holds.
func readValue(value, into any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}
