package djangobridge

import (
	"context"
	"crypto/tls"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/token"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// namespaceKey is the metadata key of a call's namespace.
const (
	namespaceKey     = "agent-runtime-namespace"
	defaultNamespace = "default"
)

// healthPrefix begins the methods that anybody may call: load balancers hold no token.
const healthPrefix = "/grpc.health.v1.Health/"

// bearer goes before a token in the authorization header.
const bearer = "Bearer "

// guard decides who may call what, in which namespace.
type guard struct {
	// tokens is nil when whoever connects may call.
	tokens *token.Set
}

// admit fills in the call's namespace and token, and refuses the call with
// errUnauthenticated, *permissionError, *rateError or *violation.Error.
func (g guard) admit(ctx context.Context, c *call) error {
	if strings.HasPrefix(c.method, healthPrefix) {
		return nil
	}
	namespace := defaultNamespace
	if given := metadata.ValueFromIncomingContext(ctx, namespaceKey); len(given) > 0 {
		namespace = given[0]
	}
	if !token.ValidNamespace(namespace) {
		return violation.New(namespaceKey, "want 1 to %d of a-z, 0-9 and dashes", token.MaxNamespaceBytes)
	}
	c.namespace = namespace
	if g.tokens == nil {
		return nil
	}
	holder := g.holder(ctx)
	if holder == nil {
		return errUnauthenticated
	}
	c.tokenName = holder.Name()
	if access := accessOf(c.method); !holder.Allows(namespace, access) {
		return &permissionError{Namespace: namespace, Access: access}
	}
	if wait := holder.Take(c.started); wait > 0 {
		return &rateError{Wait: wait}
	}
	return nil
}

// holder returns the token the caller presents, in the metadata or as the name
// in its certificate, or nil.
func (g guard) holder(ctx context.Context) *token.Token {
	if given := metadata.ValueFromIncomingContext(ctx, "authorization"); len(given) > 0 {
		secret, found := strings.CutPrefix(given[0], bearer)
		if !found {
			return nil
		}
		return g.tokens.BySecret(secret)
	}
	p, found := peer.FromContext(ctx)
	if !found {
		return nil
	}
	info, found := p.AuthInfo.(credentials.TLSInfo)
	if !found {
		return nil
	}
	return g.byCertificate(info.State)
}

func (g guard) byCertificate(state tls.ConnectionState) *token.Token {
	if len(state.VerifiedChains) == 0 {
		return nil
	}
	return g.tokens.ByName(state.VerifiedChains[0][0].Subject.CommonName)
}

// mayReadMetrics reports whether an HTTP request may read the metrics, which
// name methods and counts and no payload: any token will do.
func (g guard) mayReadMetrics(r *http.Request) bool {
	if g.tokens == nil {
		return true
	}
	if secret, found := strings.CutPrefix(r.Header.Get("Authorization"), bearer); found {
		holder := g.tokens.BySecret(secret)
		return holder != nil && holder.Take(time.Now()) == 0
	}
	return r.TLS != nil && g.byCertificate(*r.TLS) != nil
}

// accessOf returns the access that a method needs. One that is not listed needs
// the most.
func accessOf(method string) token.Access {
	switch method {
	case agentruntimev1.AgentService_GetRun_FullMethodName,
		agentruntimev1.AgentService_ListRuns_FullMethodName,
		agentruntimev1.AgentService_WaitRun_FullMethodName,
		agentruntimev1.AgentService_WaitRuns_FullMethodName,
		agentruntimev1.AgentService_WatchRun_FullMethodName,
		agentruntimev1.AgentService_WatchRuns_FullMethodName,
		agentruntimev1.AgentService_FollowRuns_FullMethodName,
		agentruntimev1.AgentService_ListSchedules_FullMethodName,
		agentruntimev1.AgentService_CreateStreamTicket_FullMethodName,
		agentruntimev1.AgentService_ListAgents_FullMethodName,
		agentruntimev1.AgentService_ListTaskTypes_FullMethodName,
		agentruntimev1.AgentService_GetServerInfo_FullMethodName,
		agentruntimev1.StateService_GetState_FullMethodName,
		agentruntimev1.StateService_ListState_FullMethodName,
		agentruntimev1.StateService_WatchState_FullMethodName,
		agentruntimev1.EventService_Subscribe_FullMethodName,
		agentruntimev1.DefinitionService_ValidateGraph_FullMethodName,
		agentruntimev1.DefinitionService_GetGraph_FullMethodName,
		agentruntimev1.DefinitionService_ListGraphs_FullMethodName,
		agentruntimev1.DefinitionService_ListGraphVersions_FullMethodName,
		agentruntimev1.DefinitionService_DrawGraph_FullMethodName,
		agentruntimev1.DefinitionService_ValidateAgent_FullMethodName,
		agentruntimev1.DefinitionService_GetAgentDefinition_FullMethodName,
		agentruntimev1.DefinitionService_ListAgentVersions_FullMethodName,
		agentruntimev1.ThreadService_GetThreadState_FullMethodName,
		agentruntimev1.ThreadService_ListThreadHistory_FullMethodName,
		agentruntimev1.ThreadService_ListThreads_FullMethodName,
		agentruntimev1.WorkspaceService_ListFiles_FullMethodName,
		agentruntimev1.WorkspaceService_GetFile_FullMethodName,
		agentruntimev1.WorkspaceService_GetArchive_FullMethodName,
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":
		return token.Read
	default:
		return token.Write
	}
}
