package djangobridge

import (
	"context"
	"errors"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/agent"
	"github.com/djangobridge/djangobridge/go-runtime/internal/definition"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// definitionService answers the rpcs of graphs and agents that are data.
type definitionService struct {
	agentruntimev1.UnimplementedDefinitionServiceServer

	store   *definition.Store
	checker definition.Checker
	engine  *engine.Engine
}

// register checks a document and makes it current.
func (s *definitionService) register(
	ctx context.Context, kind definition.Kind, text []byte, requestID string,
) (*agentruntimev1.Definition, bool, error) {
	namespace := namespaceOf(ctx)
	name, description, err := s.checker.Check(namespace, kind, text)
	if err != nil {
		return nil, false, err
	}
	d, created, err := s.store.Register(ctx, namespace,
		definition.Definition{Kind: kind, Name: name, Text: text, Description: description}, requestID)
	if err != nil {
		return nil, false, err
	}
	wire := s.toWire(ctx, d)
	wire.Document = nil
	return wire, created, nil
}

// validate says what is wrong with a document, and what it is called if nothing is.
func (s *definitionService) validate(
	ctx context.Context, kind definition.Kind, text []byte,
) (problems []*agentruntimev1.DocumentProblem, name string, err error) {
	namespace := namespaceOf(ctx)
	name, _, err = s.checker.Check(namespace, kind, text)
	if err == nil {
		err = s.store.MayRegister(namespace, kind, name)
	}
	if tooLarge, found := errors.AsType[*violation.TooLargeError](err); found {
		err = violation.New(tooLarge.Field, "is %d bytes long, the limit is %d", tooLarge.Size, tooLarge.Limit)
	}
	wrong, found := errors.AsType[*violation.Error](err)
	if !found {
		return nil, name, err
	}
	for _, v := range wrong.Violations {
		problems = append(problems, &agentruntimev1.DocumentProblem{
			Place: violation.Clip(v.Field, maxProblemBytes), Description: violation.Clip(v.Description, maxProblemBytes),
		})
	}
	return problems, "", nil
}

// maxProblemBytes is how much of a text that a document has is repeated of a mistake in it.
const maxProblemBytes = 2000

// find reads a version; "": the current one.
func (s *definitionService) find(ctx context.Context, kind definition.Kind, name, version string) (definition.Definition, error) {
	d, err := s.store.Get(ctx, namespaceOf(ctx), kind, name, version)
	if err != nil {
		return d, s.unknown(ctx, err)
	}
	return d, nil
}

// unknown says of a name that there is not which there are.
func (s *definitionService) unknown(ctx context.Context, err error) error {
	missing, found := errors.AsType[*definition.NotFoundError](err)
	if !found || missing.Version != "" {
		return err
	}
	var known []string
	for _, d := range s.store.List(namespaceOf(ctx), missing.Kind) {
		known = append(known, d.Name)
	}
	if missing.Kind == definition.Agent {
		return &agent.UnknownAgentError{AgentID: missing.Name, Known: known}
	}
	return &agent.UnknownGraphError{GraphID: missing.Name, Known: known}
}

// versions lists those of a name.
func (s *definitionService) versions(ctx context.Context, kind definition.Kind, name string) ([]*agentruntimev1.Definition, error) {
	versions, err := s.store.Versions(namespaceOf(ctx), kind, name)
	if err != nil {
		return nil, s.unknown(ctx, err)
	}
	wire := make([]*agentruntimev1.Definition, len(versions))
	for i, d := range versions {
		wire[i] = s.toWire(ctx, d)
	}
	return wire, nil
}

func (s *definitionService) remove(ctx context.Context, kind definition.Kind, name, requestID string) error {
	return s.unknown(ctx, s.store.Delete(ctx, namespaceOf(ctx), kind, name, requestID))
}

func (s *definitionService) toWire(ctx context.Context, d definition.Definition) *agentruntimev1.Definition {
	// What is current is in memory.
	current, err := s.store.Get(ctx, namespaceOf(ctx), d.Kind, d.Name, "")
	return &agentruntimev1.Definition{
		Name: d.Name, Version: d.Version, Number: int32(d.Number), Current: err == nil && current.Version == d.Version,
		Description: d.Description, CreateTime: timestamp(d.CreatedAt), BuiltIn: d.Namespace == "", Document: d.Text,
	}
}

func (s *definitionService) RegisterGraph(
	ctx context.Context, request *agentruntimev1.RegisterGraphRequest,
) (*agentruntimev1.RegisterGraphResponse, error) {
	graph, created, err := s.register(ctx, definition.Graph, request.GetDocument(), request.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.RegisterGraphResponse{Graph: graph, Created: created}, nil
}

func (s *definitionService) ValidateGraph(
	ctx context.Context, request *agentruntimev1.ValidateGraphRequest,
) (*agentruntimev1.ValidateGraphResponse, error) {
	problems, name, err := s.validate(ctx, definition.Graph, request.GetDocument())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.ValidateGraphResponse{Problems: problems, Name: name}, nil
}

func (s *definitionService) GetGraph(
	ctx context.Context, request *agentruntimev1.GetGraphRequest,
) (*agentruntimev1.GetGraphResponse, error) {
	d, err := s.find(ctx, definition.Graph, request.GetName(), request.GetVersion())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.GetGraphResponse{Graph: s.toWire(ctx, d)}, nil
}

func (s *definitionService) ListGraphs(
	ctx context.Context, request *agentruntimev1.ListGraphsRequest,
) (*agentruntimev1.ListGraphsResponse, error) {
	size, err := pageSize(request.GetPageSize(), defaultCatalogPage, maxCatalogPage)
	if err != nil {
		return nil, err
	}
	graphs, next := page(s.store.List(namespaceOf(ctx), definition.Graph),
		func(d definition.Definition) string { return d.Name }, request.GetPageToken(), size)
	response := &agentruntimev1.ListGraphsResponse{NextPageToken: next}
	for _, d := range graphs {
		d.Text = nil
		response.Graphs = append(response.Graphs, s.toWire(ctx, d))
	}
	return response, nil
}

func (s *definitionService) ListGraphVersions(
	ctx context.Context, request *agentruntimev1.ListGraphVersionsRequest,
) (*agentruntimev1.ListGraphVersionsResponse, error) {
	versions, err := s.versions(ctx, definition.Graph, request.GetName())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.ListGraphVersionsResponse{Versions: versions}, nil
}

func (s *definitionService) DeleteGraph(
	ctx context.Context, request *agentruntimev1.DeleteGraphRequest,
) (*agentruntimev1.DeleteGraphResponse, error) {
	if err := s.remove(ctx, definition.Graph, request.GetName(), request.GetRequestId()); err != nil {
		return nil, err
	}
	return &agentruntimev1.DeleteGraphResponse{}, nil
}

func (s *definitionService) RegisterAgent(
	ctx context.Context, request *agentruntimev1.RegisterAgentRequest,
) (*agentruntimev1.RegisterAgentResponse, error) {
	registered, created, err := s.register(ctx, definition.Agent, request.GetDocument(), request.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.RegisterAgentResponse{Agent: registered, Created: created}, nil
}

func (s *definitionService) ValidateAgent(
	ctx context.Context, request *agentruntimev1.ValidateAgentRequest,
) (*agentruntimev1.ValidateAgentResponse, error) {
	problems, name, err := s.validate(ctx, definition.Agent, request.GetDocument())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.ValidateAgentResponse{Problems: problems, Name: name}, nil
}

func (s *definitionService) GetAgentDefinition(
	ctx context.Context, request *agentruntimev1.GetAgentDefinitionRequest,
) (*agentruntimev1.GetAgentDefinitionResponse, error) {
	d, err := s.find(ctx, definition.Agent, request.GetName(), request.GetVersion())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.GetAgentDefinitionResponse{Agent: s.toWire(ctx, d)}, nil
}

func (s *definitionService) ListAgentVersions(
	ctx context.Context, request *agentruntimev1.ListAgentVersionsRequest,
) (*agentruntimev1.ListAgentVersionsResponse, error) {
	versions, err := s.versions(ctx, definition.Agent, request.GetName())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.ListAgentVersionsResponse{Versions: versions}, nil
}

func (s *definitionService) DeleteAgent(
	ctx context.Context, request *agentruntimev1.DeleteAgentRequest,
) (*agentruntimev1.DeleteAgentResponse, error) {
	if err := s.remove(ctx, definition.Agent, request.GetName(), request.GetRequestId()); err != nil {
		return nil, err
	}
	return &agentruntimev1.DeleteAgentResponse{}, nil
}
