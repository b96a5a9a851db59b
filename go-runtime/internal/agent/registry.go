// Package agent knows everything that a run can execute inside the runtime: the
// built-in tasks, and the agents, which think with a model. An agent is data: a
// folder of prompts, schemas and templates under catalog, read once by New.
package agent

import (
	"fmt"
	"maps"
	"slices"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
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
	tasks     map[string]*taskType
	agents    map[string]*agent
	endpoints map[string]*endpoint
}

type agent struct {
	id          string
	description string
	model       string
	tasks       map[string]*taskType
	defaults    engine.RunDefaults
}

// taskType is a description, the schema that inputs are held to, and the work.
type taskType struct {
	name  string
	input *schema
	// check refuses what the schema takes and the work does not; it may be nil.
	check func(input []byte) error
	task  engine.Task
}

// fits returns a *violation.Error for an input that the work does not take.
func (t *taskType) fits(input []byte) error {
	if err := t.input.check("input", input); err != nil || t.check == nil {
		return err
	}
	return t.check(input)
}

// New returns the built-in tasks, the agents of the catalog, which ask the
// provider, and those that HTTP servers execute, by their ids. It fails when an id
// is taken, an endpoint's defaults do not fit, or a file of the catalog is broken.
func New(provider model.Provider, remote map[string]Endpoint) (*Registry, error) {
	graphs, err := loadGraphs(provider)
	if err != nil {
		return nil, fmt.Errorf("load graphs: %w", err)
	}
	tasks, err := builtinTasks(provider, graphs)
	if err != nil {
		return nil, fmt.Errorf("load built-in tasks: %w", err)
	}
	agents, err := loadCatalog(provider)
	if err != nil {
		return nil, fmt.Errorf("load agents: %w", err)
	}
	endpoints := make(map[string]*endpoint, len(remote))
	for id, e := range remote {
		if _, taken := agents[id]; taken {
			return nil, fmt.Errorf("the HTTP agent %s has the id of an agent of the runtime's own", id)
		}
		if err := e.Check(id); err != nil {
			return nil, fmt.Errorf("load HTTP agents: %w", err)
		}
		endpoints[id] = newEndpoint(id, e)
	}
	return &Registry{tasks: tasks, agents: agents, endpoints: endpoints}, nil
}

// Resolve returns the task that executes a run, and checks the input against
// the task type's schema. It returns *UnknownAgentError, *UnknownTaskTypeError,
// *UnknownGraphError, or a *violation.Error that names every field that does not fit.
func (r *Registry) Resolve(target engine.Target, agentID, name string, input []byte) (engine.Task, error) {
	tasks := r.tasks
	if target == engine.AgentTarget {
		if remote := r.endpoints[agentID]; remote != nil {
			return remote.run, nil
		}
		a, known := r.agents[agentID]
		if !known {
			return nil, &UnknownAgentError{AgentID: agentID, Known: r.ids()}
		}
		tasks = a.tasks
	}
	found, known := tasks[name]
	if !known {
		unknown := &UnknownTaskTypeError{TaskType: name, Known: sortedKeys(tasks), Agents: r.accepting(name)}
		if target == engine.AgentTarget {
			unknown.AgentID = agentID
		}
		return nil, unknown
	}
	if err := found.fits(input); err != nil {
		return nil, err
	}
	return found.task, nil
}

// Defaults implements engine.Registry: built-in tasks have none.
func (r *Registry) Defaults(target engine.Target, agentID string) engine.RunDefaults {
	if target != engine.AgentTarget {
		return engine.RunDefaults{}
	}
	if remote := r.endpoints[agentID]; remote != nil {
		return remote.RunDefaults
	}
	if a := r.agents[agentID]; a != nil {
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

// ids returns those of every agent, sorted.
func (r *Registry) ids() []string {
	ids := append(sortedKeys(r.agents), sortedKeys(r.endpoints)...)
	slices.Sort(ids)
	return ids
}

// Agents describes every agent, sorted by id.
func (r *Registry) Agents() []Agent {
	agents := make([]Agent, 0, len(r.agents)+len(r.endpoints))
	for _, id := range r.ids() {
		a, own := r.agents[id]
		if !own {
			agents = append(agents, Agent{ID: id, Description: "Executed by an HTTP server; takes any task type."})
			continue
		}
		agents = append(agents, Agent{ID: id, Description: a.description, Model: a.model, TaskTypes: describe(a.tasks)})
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
		t := tasks[name]
		described = append(described, TaskType{Name: name, Description: t.input.description, InputSchema: t.input.raw})
	}
	return described
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
