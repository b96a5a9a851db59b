package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
)

// advance runs the graph of a run: from its input where the run was not called before,
// else from where it is. The state is that which the graph ended with; a run that waits
// gets an *engine.ParkedError.
func advance(
	ctx context.Context, call engine.Call, g *graph.Graph, t part, input graph.State, options graph.Options,
) (state graph.State, err error) {
	defer func() { err = errors.Join(err, t.close(ctx)) }()
	request, err := requestOf(ctx, g, t, call, input)
	if err != nil {
		return nil, err
	}
	options.Saver = t.saver
	state, err = g.Run(ctx, request, options)
	if waits, isWaiting := errors.AsType[*graph.InterruptedError](err); isWaiting {
		return nil, parked(waits.Interrupts)
	}
	return state, err
}

// requestOf is what a run asks of its graph: to begin with an input, or, where it was
// called before, to go on with the answer to what it waited for, else with the step that
// it was at.
func requestOf(
	ctx context.Context, g *graph.Graph, t part, call engine.Call, input graph.State,
) (graph.Request, error) {
	request := graph.Request{Thread: t.thread}
	saved, err := t.saver.Load(ctx, g, t.thread)
	if err != nil {
		return request, err
	}
	if saved == nil || saved.Revision == t.before {
		// Who asked what the thread waits for has ended, see threadPart.
		request.Drop = true
		// A turn of a thread that has nothing to say goes on with what is left to do.
		if saved == nil || len(input) > 0 {
			request.Input = input
		}
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

// questionID is what the ids of questions look like, those of subgraphs too.
var questionID = regexp.MustCompile(`^([0-9a-f]{16}/)*[0-9a-f]{16}\.[0-9]+$`)

// answersOf are those that the latest answer of a run has to questions, by their ids; none
// where it names only others, such as those that have their answers: they stay open.
func answersOf(questions []graph.Interrupt, given []engine.Answer) (map[string]any, error) {
	if len(given) == 0 || given[len(given)-1].InterruptID != questions[0].ID {
		return nil, nil
	}
	latest := given[len(given)-1]
	var value any
	if err := json.Unmarshal(latest.Value, &value); err != nil {
		return nil, fmt.Errorf("read answer to %s: %w", latest.InterruptID, err)
	}
	byID, _ := value.(map[string]any)
	if !slices.ContainsFunc(slices.Collect(maps.Keys(byID)), questionID.MatchString) {
		// It names none: it is for the first.
		return map[string]any{latest.InterruptID: value}, nil
	}
	answers := map[string]any{}
	for _, question := range questions {
		if answer, given := byID[question.ID]; given {
			answers[question.ID] = answer
		}
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
