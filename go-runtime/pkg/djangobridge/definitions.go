package djangobridge

import (
	"context"
	"errors"
	"fmt"

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

// registered is what came of a document that was registered.
type registered struct {
	definition *agentruntimev1.Definition
	created    bool
	warnings   []*agentruntimev1.DocumentProblem
}

// register checks a document and makes it current.
func (s *definitionService) register(
	ctx context.Context, kind definition.Kind, text []byte, requestID string,
) (r registered, err error) {
	namespace := namespaceOf(ctx)
	said, err := s.checker.Check(namespace, kind, text)
	if err != nil {
		return r, err
	}
	d, created, err := s.store.Register(ctx, namespace,
		definition.Definition{Kind: kind, Name: said.Name, Text: text, Description: said.Description}, requestID)
	if err != nil {
		return r, err
	}
	r = registered{s.toWire(ctx, d), created, s.warn(namespace, said.Missing)}
	r.definition.Document = nil
	return r, nil
}

// warn tells of what a document names, and there is not.
func (s *definitionService) warn(namespace string, missing []definition.Reference) []*agentruntimev1.DocumentProblem {
	var warnings []*agentruntimev1.DocumentProblem
	served := map[string]bool{}
	if len(missing) > 0 {
		for _, a := range s.engine.WorkerAgents(namespace) {
			served[a.ID] = true
		}
	}
	for _, other := range missing {
		if other.Kind == definition.Agent && served[other.Name] {
			continue
		}
		warnings = append(warnings, problemOf(violation.Violation{
			Field: other.Place, Description: fmt.Sprintf("names the %s %q, which there is not yet", other.Kind, other.Name),
		}))
	}
	return warnings
}

// validated is what was found in a document: problems, or a name and warnings.
type validated struct {
	name               string
	problems, warnings []*agentruntimev1.DocumentProblem
}

// validate says what is wrong with a document, and what it is called if nothing is.
func (s *definitionService) validate(ctx context.Context, kind definition.Kind, text []byte) (v validated, err error) {
	namespace := namespaceOf(ctx)
	said, err := s.checker.Check(namespace, kind, text)
	if err == nil {
		err = s.store.MayRegister(namespace, kind, said.Name)
	}
	if tooLarge, found := errors.AsType[*violation.TooLargeError](err); found {
		err = violation.New(tooLarge.Field, "is %d bytes long, the limit is %d", tooLarge.Size, tooLarge.Limit)
	}
	wrong, found := errors.AsType[*violation.Error](err)
	if !found {
		return validated{name: said.Name, warnings: s.warn(namespace, said.Missing)}, err
	}
	for _, one := range wrong.Violations {
		v.problems = append(v.problems, problemOf(one))
	}
	return v, nil
}

func problemOf(v violation.Violation) *agentruntimev1.DocumentProblem {
	return &agentruntimev1.DocumentProblem{
		Place: violation.Clip(v.Field, maxProblemBytes), Description: violation.Clip(v.Description, maxProblemBytes),
	}
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
	r, err := s.register(ctx, definition.Graph, request.GetDocument(), request.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.RegisterGraphResponse{Graph: r.definition, Created: r.created, Warnings: r.warnings}, nil
}

func (s *definitionService) ValidateGraph(
	ctx context.Context, request *agentruntimev1.ValidateGraphRequest,
) (*agentruntimev1.ValidateGraphResponse, error) {
	v, err := s.validate(ctx, definition.Graph, request.GetDocument())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.ValidateGraphResponse{Problems: v.problems, Name: v.name, Warnings: v.warnings}, nil
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
	r, err := s.register(ctx, definition.Agent, request.GetDocument(), request.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.RegisterAgentResponse{Agent: r.definition, Created: r.created, Warnings: r.warnings}, nil
}

func (s *definitionService) ValidateAgent(
	ctx context.Context, request *agentruntimev1.ValidateAgentRequest,
) (*agentruntimev1.ValidateAgentResponse, error) {
	v, err := s.validate(ctx, definition.Agent, request.GetDocument())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.ValidateAgentResponse{Problems: v.problems, Name: v.name, Warnings: v.warnings}, nil
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
