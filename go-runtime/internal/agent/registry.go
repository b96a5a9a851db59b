// Package agent knows everything that a run can execute inside the runtime: the
// built-in tasks, and the agents, which think with a model. An agent is data: a
// folder of prompts, schemas and templates under catalog, read once by New.
package agent

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/djangobridge/djangobridge/go-runtime/internal/definition"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/document"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/thread"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonschema"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
)

// Agent describes one agent for a reader.
type Agent struct {
	ID          string
	Description string
	// Model is the one that answers, `offline` when none is configured.
	Model string
	// TaskTypes are sorted by name.
	TaskTypes []TaskType
}

// TaskType describes a kind of task and the input it takes.
type TaskType struct {
	Name        string
	Description string
	// InputSchema is a JSON Schema, draft 2020-12. It is shared: do not change it.
	InputSchema []byte
}

// Registry resolves runs to what executes them; it implements engine.Registry.
// It does not change after New, and is safe for concurrent use.
type Registry struct {
	provider model.Provider
	tooling  Tooling
	tasks    map[string]*taskType
	// agents are those of the catalog, and defined those that are data, as graphs are.
	agents    map[string]*agent
	endpoints map[string]*endpoint
	graphs    *compiled[*document.Compiled]
	defined   *compiled[*agent]
	builtIn   []definition.Definition
	threads   *thread.Store
	cache     *graph.MemoryCache
	// conversationInput is the schema of the input of conversations.
	conversationInput *jsonschema.Schema
}

type agent struct {
	id          string
	description string
	model       string
	tasks       map[string]*taskType
	// other does the task types that are not among tasks; nil: there are no others.
	other    *taskType
	defaults engine.RunDefaults
}

// task returns what does a task type, or nil.
func (a *agent) task(name string) *taskType {
	if found, known := a.tasks[name]; known {
		return found
	}
	return a.other
}

// taskType is a description, the schema that inputs are held to, and the work.
type taskType struct {
	name string
	// input is nil where any object will do.
	input *jsonschema.Schema
	// check refuses what the schema takes and the work does not; it may be nil.
	check func(namespace string, input []byte) error
	task  engine.Task
	// spends says of a built-in task that it keeps to the budget of its run.
	spends bool
}

// fits returns a *violation.Error for an input that the work does not take.
func (t *taskType) fits(namespace string, input []byte) error {
	if t.input != nil {
		if err := t.input.Check("input", input); err != nil {
			return err
		}
	}
	if t.check == nil {
		return nil
	}
	return t.check(namespace, input)
}

// Config is what a registry is made of.
type Config struct {
	// Provider is asked by graphs and agents.
	Provider model.Provider
	// Endpoints are agents that HTTP servers execute, by their ids.
	Endpoints map[string]Endpoint
	Tooling   Tooling
	// Definitions has graphs and agents that are data, those of BuiltIn among them; nil:
	// only those.
	Definitions Definitions
	// Threads keeps the threads of graphs that outlive runs; nil: there are none.
	Threads *thread.Store
	// CacheBytes bounds what is kept in memory of what nodes with a cache came to; 0: 64 MiB.
	// A result of more than a sixteenth of it is not kept.
	CacheBytes int
}

// New returns the built-in tasks, the agents of the catalog, and those that HTTP servers
// execute. It fails when an id is taken, an endpoint's defaults do not fit, or a file of
// the catalog is broken.
func New(cfg Config) (*Registry, error) {
	r := &Registry{
		provider: cfg.Provider, tooling: cfg.Tooling, threads: cfg.Threads, endpoints: make(map[string]*endpoint, len(cfg.Endpoints)),
		cache: graph.NewMemoryCache(cmp.Or(cfg.CacheBytes, defaultCacheBytes)),
	}
	var err error
	if r.builtIn, err = r.loadGraphs(); err != nil {
		return nil, fmt.Errorf("load graphs: %w", err)
	}
	definitions := cfg.Definitions
	if definitions == nil {
		definitions = builtIns(r.builtIn)
	}
	r.graphs = newCompiled(definitions, definition.Graph, r.compileGraph)
	r.defined = newCompiled(definitions, definition.Agent, r.compileAgent)
	if r.tasks, err = r.builtinTasks(); err != nil {
		return nil, fmt.Errorf("load built-in tasks: %w", err)
	}
	if err := r.loadCatalog(); err != nil {
		return nil, fmt.Errorf("load agents: %w", err)
	}
	for id, e := range cfg.Endpoints {
		if _, taken := r.agents[id]; taken {
			return nil, fmt.Errorf("the HTTP agent %s has the id of an agent of the runtime's own", id)
		}
		if err := e.Check(id); err != nil {
			return nil, fmt.Errorf("load HTTP agents: %w", err)
		}
		r.endpoints[id] = newEndpoint(id, e)
	}
	return r, nil
}

// Resolve returns the task that executes a run, and checks the input against
// the task type's schema. It returns *UnknownAgentError, *UnknownTaskTypeError,
// *UnknownGraphError, or a *violation.Error that names every field that does not fit. A nil
// input was checked when its run was accepted.
func (r *Registry) Resolve(namespace string, target engine.Target, agentID, name string, input []byte) (engine.Task, error) {
	found, tasks := r.tasks[name], r.tasks
	if target == engine.AgentTarget {
		if remote := r.endpoints[agentID]; remote != nil {
			return remote.run, nil
		}
		a := r.agentOf(namespace, agentID)
		switch {
		case a == nil && input == nil:
			// It was deleted; the version with which the run began is kept.
			return r.pinned(agentID, name), nil
		case a == nil:
			return nil, &UnknownAgentError{AgentID: agentID, Known: r.ids(namespace)}
		}
		found, tasks = a.task(name), a.tasks
	}
	if found == nil {
		unknown := &UnknownTaskTypeError{TaskType: name, Known: sortedKeys(tasks), Agents: r.accepting(name)}
		if target == engine.AgentTarget {
			unknown.AgentID = agentID
		}
		return nil, unknown
	}
	if input != nil {
		if err := found.fits(namespace, input); err != nil {
			return nil, err
		}
	}
	if target == engine.AgentTarget && r.agents[agentID] == nil {
		return r.pinned(agentID, name), nil
	}
	return found.task, nil
}

// CheckMetadata implements engine.Registry: a budget must be one where the run keeps to it.
func (r *Registry) CheckMetadata(target engine.Target, agentID, taskType string, metadata []byte) error {
	keeps := r.endpoints[agentID] == nil
	if target == engine.TaskTarget {
		builtIn := r.tasks[taskType]
		keeps = builtIn != nil && builtIn.spends
	}
	if !keeps {
		return nil
	}
	_, err := budgetOf(metadata)
	return err
}

// Defaults implements engine.Registry: built-in tasks have none.
func (r *Registry) Defaults(namespace string, target engine.Target, agentID string) engine.RunDefaults {
	if target != engine.AgentTarget {
		return engine.RunDefaults{}
	}
	if remote := r.endpoints[agentID]; remote != nil {
		return remote.RunDefaults
	}
	if a := r.agentOf(namespace, agentID); a != nil {
		return a.defaults
	}
	return engine.RunDefaults{}
}

// accepting returns the ids of the agents that take a task type.
func (r *Registry) accepting(name string) []string {
	var ids []string
	for _, id := range sortedKeys(r.agents) {
		if _, takes := r.agents[id].tasks[name]; takes {
			ids = append(ids, id)
		}
	}
	return ids
}

// ids returns those of every agent that a namespace sees, sorted.
func (r *Registry) ids(namespace string) []string {
	ids := append(sortedKeys(r.agents), sortedKeys(r.endpoints)...)
	ids = append(ids, r.defined.names(namespace)...)
	slices.Sort(ids)
	return ids
}

// Agents describes every agent that a namespace sees, sorted by id.
func (r *Registry) Agents(namespace string) []Agent {
	ids := r.ids(namespace)
	agents := make([]Agent, 0, len(ids))
	for _, id := range ids {
		a := r.agentOf(namespace, id)
		if a == nil && r.endpoints[id] == nil {
			continue
		}
		if a == nil {
			agents = append(agents, Agent{ID: id, Description: "Executed by an HTTP server; takes any task type."})
			continue
		}
		types := describe(a.tasks)
		if a.other != nil {
			types = append(types, a.other.describe(anyTaskType))
		}
		agents = append(agents, Agent{ID: id, Description: a.description, Model: a.model, TaskTypes: types})
	}
	return agents
}

// TaskTypes describes the built-in tasks, sorted by name.
func (r *Registry) TaskTypes() []TaskType {
	return describe(r.tasks)
}

func describe(tasks map[string]*taskType) []TaskType {
	described := make([]TaskType, 0, len(tasks))
	for _, name := range sortedKeys(tasks) {
		described = append(described, tasks[name].describe(name))
	}
	return described
}

func (t *taskType) describe(name string) TaskType {
	if t.input == nil {
		return TaskType{Name: name, InputSchema: []byte(`{"type": "object"}`)}
	}
	return TaskType{Name: name, Description: t.input.Description(), InputSchema: t.input.Raw()}
}

// anyTaskType stands for the task types of agents that are data: any name is one.
const anyTaskType = "task"

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
