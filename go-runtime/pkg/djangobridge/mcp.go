package djangobridge

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/agent"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/mcp"
	"github.com/djangobridge/djangobridge/go-runtime/internal/token"
)

// namespaceHeader is namespaceKey as HTTP has it.
const namespaceHeader = "Agent-Runtime-Namespace"

// newHandler makes an MCP server of the runtime.
func (i *Integration) newHandler(registry *agent.Registry, access guard) *mcp.Handler {
	return mcp.NewHandler(mcp.HandlerConfig{
		Version: i.version, Runs: i.engine, Admit: access.admitClient,
		Agents:  func(namespace string) []mcp.Agent { return offeredAgents(registry, i.engine, namespace) },
		Serving: func() bool { return i.readiness().Serving },
		Explain: func(err error) string { return describe(err).message },
		// A request has an input and little beside it.
		MaxRequestBytes: int64(i.cfg.MaxValueBytes + recordOverhead),
		Propagator:      i.tracing.Propagator(),
	}, i.log)
}

// offeredAgents are those of the runtime and those of the workers in a namespace.
func offeredAgents(registry *agent.Registry, e *engine.Engine, namespace string) []mcp.Agent {
	var offered []mcp.Agent
	own := map[string]bool{}
	for _, a := range registry.Agents(namespace) {
		own[a.ID] = true
		types := make([]mcp.TaskType, 0, len(a.TaskTypes))
		for _, t := range a.TaskTypes {
			types = append(types, mcp.TaskType{Name: t.Name, Description: t.Description, InputSchema: t.InputSchema})
		}
		offered = append(offered, mcp.Agent{ID: a.ID, Description: a.Description, TaskTypes: types})
	}
	for _, a := range e.WorkerAgents(namespace) {
		if !own[a.ID] && !agent.IsFunction(a.ID) {
			offered = append(offered, mcp.Agent{ID: a.ID, Description: a.Description})
		}
	}
	return offered
}

// admitClient is admit for a request of an MCP client: the namespace is that of the
// header, else the only one of the token, else the default one.
func (g guard) admitClient(w http.ResponseWriter, r *http.Request) (mcp.Caller, bool) {
	var holder *token.Token
	if g.tokens != nil {
		if secret, found := strings.CutPrefix(r.Header.Get("Authorization"), bearer); found {
			holder = g.tokens.BySecret(secret)
		} else if r.TLS != nil {
			holder = g.byCertificate(*r.TLS)
		}
		if holder == nil {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, errUnauthenticated.Error(), http.StatusUnauthorized)
			return mcp.Caller{}, false
		}
	}
	namespace := r.Header.Get(namespaceHeader)
	if namespace == "" && holder != nil {
		namespace = holder.OnlyNamespace()
	}
	namespace = cmp.Or(namespace, defaultNamespace)
	if !token.ValidNamespace(namespace) {
		http.Error(w, "the header "+namespaceHeader+" is no namespace", http.StatusBadRequest)
		return mcp.Caller{}, false
	}
	caller := mcp.Caller{Namespace: namespace}
	if holder == nil {
		return caller, true
	}
	if !holder.Allows(namespace, token.Read) {
		http.Error(w, (&permissionError{Namespace: namespace, Access: token.Read}).Error(), http.StatusForbidden)
		return mcp.Caller{}, false
	}
	if wait := holder.Take(time.Now()); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
		http.Error(w, (&rateError{Wait: wait}).Error(), http.StatusTooManyRequests)
		return mcp.Caller{}, false
	}
	if !holder.Allows(namespace, token.Write) {
		caller.Refusal = (&permissionError{Namespace: namespace, Access: token.Write}).Error()
	}
	return caller, true
}
