package agent

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// streamModes are those of LangGraph that the metadata of a run of a graph names as its
// stream_mode. Every run tells of its tasks and of what is custom; what costs more is told
// of only where it was asked for:
//
//	values    the state before the first step, and what each step changed of it
//	messages  the text of models, piece by piece
//	debug     as values, and the checkpoints
func streamModes(metadata []byte) ([]graph.Mode, error) {
	var asked struct {
		Modes []graph.Mode `json:"stream_mode"`
	}
	if len(metadata) == 0 {
		return nil, nil
	}
	known := []graph.Mode{graph.ModeValues, graph.ModeUpdates, graph.ModeMessages, graph.ModeCustom, graph.ModeDebug}
	unknown := func(mode graph.Mode) bool { return !slices.Contains(known, mode) }
	if err := json.Unmarshal(metadata, &asked); err != nil || slices.ContainsFunc(asked.Modes, unknown) {
		return nil, violation.New("metadata.stream_mode", "must be a list of modes: %q", known)
	}
	return asked.Modes, nil
}

// teller adds what happens in a graph to the log of its run, for who debugs it and for who
// streams it.
type teller struct {
	call   engine.Call
	passes func(graph.Event) bool
	// state is that which was told of last.
	state graph.State
	// err is why no more is told.
	err error
}

func newTeller(call engine.Call) (*teller, error) {
	asked, err := streamModes(call.Metadata)
	modes := []graph.Mode{graph.ModeTasks, graph.ModeMessages, graph.ModeCustom}
	for _, mode := range asked {
		switch mode {
		case graph.ModeValues:
			modes = append(modes, mode)
		case graph.ModeDebug:
			modes = append(modes, graph.ModeValues, graph.ModeCheckpoints)
		default:
		}
	}
	return &teller{call: call, passes: graph.Filter(modes...)}, err
}

// observe is for graph.Options. States and checkpoints of subgraphs are their nodes'.
func (t *teller) observe(ctx context.Context, e graph.Event) {
	if t.err != nil || !t.passes(e) {
		return
	}
	ofGraph := e.Kind == graph.Begins || e.Kind == graph.StepDone || e.Kind == graph.Saved
	switch {
	case ofGraph && e.Node != "":
		return
	case e.Kind == graph.Begins:
		t.state, e.Data = e.State, e.State
	case e.Kind == graph.StepDone:
		e.Data = graph.Changes(t.state, e.State)
		t.state = e.State
	}
	payload, err := encode(e)
	if err == nil {
		err = t.call.Emit(ctx, engine.NewEvent{Type: "graph." + string(e.Kind), Visibility: engine.Debug, Payload: payload})
	}
	t.err = err
}

// tellPieces has what a model answers told of while it comes: to whom the run is a
// conversation with, where stream says so, and to who asked for messages. said waits until
// all of it was.
func tellPieces(ctx context.Context, node *graph.Call, stream bool, request *model.Request) (said func() error, err error) {
	asked, err := streamModes(callOf(ctx).Metadata)
	if err != nil {
		return nil, err
	}
	messages := slices.Contains(asked, graph.ModeMessages)
	if !stream && !messages {
		return func() error { return nil }, nil
	}
	d := newDeltas(func(text string) error {
		piece := map[string]string{"content": text}
		if messages {
			node.EmitMessage(piece)
		}
		if !stream {
			return nil
		}
		return emitJSON(ctx, eventDelta, piece)
	})
	request.Pieces = d.add
	return d.close, nil
}
