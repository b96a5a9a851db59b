package djangobridge

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/definition"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/document"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/drawing"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

func (s *definitionService) DrawGraph(
	ctx context.Context, request *agentruntimev1.DrawGraphRequest,
) (*agentruntimev1.DrawGraphResponse, error) {
	text, status, err := s.drawn(ctx, request)
	if err != nil {
		return nil, err
	}
	parsed, err := document.Parse(text)
	if err != nil {
		return nil, err
	}
	draw := drawing.Mermaid
	switch request.GetFormat() {
	case agentruntimev1.DrawingFormat_DRAWING_FORMAT_UNSPECIFIED, agentruntimev1.DrawingFormat_DRAWING_FORMAT_MERMAID:
	case agentruntimev1.DrawingFormat_DRAWING_FORMAT_SVG:
		draw = drawing.SVG
	default:
		return nil, violation.New("format", "%s is no format", request.GetFormat())
	}
	return &agentruntimev1.DrawGraphResponse{Drawing: draw(parsed, status)}, nil
}

// drawn is the document to draw, and the status of its nodes where it is a run's.
func (s *definitionService) drawn(
	ctx context.Context, request *agentruntimev1.DrawGraphRequest,
) (text []byte, status map[string]drawing.Status, err error) {
	if _, named := request.GetSource().(*agentruntimev1.DrawGraphRequest_Name); request.GetVersion() != "" && !named {
		return nil, nil, violation.New("version", "stands beside a name only")
	}
	name, version := request.GetName(), request.GetVersion()
	switch source := request.GetSource().(type) {
	case *agentruntimev1.DrawGraphRequest_Document:
		_, err := s.checker.Check(namespaceOf(ctx), definition.Graph, source.Document)
		return source.Document, nil, err
	case *agentruntimev1.DrawGraphRequest_RunId:
		seen, err := s.watch(ctx, source.RunId)
		if err != nil {
			return nil, nil, err
		}
		name, version, status = seen.graph, seen.version, seen.status
	case nil:
		return nil, nil, violation.New("source", "is required: a name, a document or a run_id")
	}
	d, err := s.find(ctx, definition.Graph, name, version)
	return d.Text, status, err
}

// maxWatchBatch is how many events a batch of a watch has unless it is the last one of those there are.
const maxWatchBatch = 256

var errSeen = errors.New("everything up to now was seen")

// watch finds out what became of a run's graph by now.
func (s *definitionService) watch(ctx context.Context, runID string) (*graphProgress, error) {
	run, err := s.engine.PeekRun(ctx, namespaceOf(ctx), runID)
	if err != nil {
		return nil, err
	}
	seen := &graphProgress{status: map[string]drawing.Status{}}
	err = s.engine.WatchRun(ctx, run.Namespace, runID, 0, engine.Internal, func(events []engine.Event, position uint64) error {
		for _, e := range events {
			seen.add(e)
		}
		if position >= run.Sequence && len(events) < maxWatchBatch {
			return errSeen
		}
		return nil
	})
	if err != nil && !errors.Is(err, errSeen) {
		return nil, err
	}
	if seen.graph == "" {
		return nil, violation.New("run_id", "run %s has run no graph", violation.Clip(runID, maxProblemBytes))
	}
	return seen, nil
}

// graphProgress is what became of the graph of a run.
type graphProgress struct {
	graph, version string
	status         map[string]drawing.Status
}

// add takes in an event of the run: the step that notes the version of its graph, what
// the graph tells, and the end.
func (p *graphProgress) add(e engine.Event) {
	if e.Ends() {
		for node, status := range p.status {
			if status != drawing.Done {
				p.status[node] = drawing.Failed
			}
		}
		return
	}
	var about struct {
		Key    string `json:"key"`
		Result struct {
			Version string `json:"version"`
		} `json:"result"`
		Node string `json:"node"`
	}
	if json.Unmarshal(e.Payload, &about) != nil {
		return
	}
	// The first graph is the run's own; those that it runs are noted behind it.
	if name, isGraph := strings.CutPrefix(about.Key, string(definition.Graph)+": "); isGraph && p.graph == "" {
		p.graph, p.version = name, about.Result.Version
	}
	kind, isGraph := strings.CutPrefix(e.Type, "graph.")
	if !isGraph || about.Node == "" || strings.Contains(about.Node, "/") {
		return
	}
	switch graph.Kind(kind) {
	case graph.NodeStarted:
		p.status[about.Node] = drawing.Running
	case graph.NodeFinished:
		p.status[about.Node] = drawing.Done
	case graph.NodeFailed:
		p.status[about.Node] = drawing.Failed
	case graph.Asked, graph.Awaits:
		p.status[about.Node] = drawing.Waiting
	default:
	}
}
