package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Limits of a worker.
const (
	maxWorkerAgents      = 1000
	maxWorkerConcurrency = 10_000
	defaultLeaseTTL      = 30 * time.Second
	minLeaseTTL          = time.Second
	maxLeaseTTL          = time.Hour
)

// Hello introduces a worker: a process that executes agents.
type Hello struct {
	// ID is a UUID, new for each process; Name is for people.
	ID, Name string
	Agents   []WorkerAgent
	// Concurrency is how many runs the worker executes at a time.
	Concurrency int
	// LeaseTTL is for how long a worker that is not heard of keeps its runs; 0: 30 s.
	LeaseTTL time.Duration
	// Held are the leases that the worker still holds from before.
	Held []HeldLease
}

// HeldLease is a run that a worker executes.
type HeldLease struct {
	RunID string
	Lease uint64
	// Report is the number of the last report of the lease that was kept.
	Report uint64
}

// WorkerAgent is an agent that a worker serves.
type WorkerAgent struct {
	RunDefaults

	ID, Description string
	// Workers is how many serve it at present.
	Workers int
}

func (h *Hello) check() error {
	var checks []error
	if id, err := uuid.Parse(h.ID); err != nil || id.String() != h.ID {
		checks = append(checks, violation.New("hello.worker_id", "must be a UUID such as %s", uuid.Nil))
	}
	checks = append(checks, checkText("hello.name", h.Name, maxLabelBytes))
	if len(h.Agents) == 0 || len(h.Agents) > maxWorkerAgents {
		checks = append(checks, violation.New("hello.agents", "must be 1 to %d", maxWorkerAgents))
	}
	for i, a := range h.Agents {
		field := fmt.Sprintf("hello.agents[%d]", i)
		if a.ID == "" {
			checks = append(checks, violation.New(field+".agent_id", "is required"))
		}
		checks = append(checks, checkText(field+".agent_id", a.ID, maxLabelBytes),
			checkText(field+".description", a.Description, maxTextBytes), a.Check(field))
	}
	if h.Concurrency < 1 || h.Concurrency > maxWorkerConcurrency {
		checks = append(checks, violation.New("hello.concurrency", "must be 1 to %d", maxWorkerConcurrency))
	}
	if h.LeaseTTL != 0 && (h.LeaseTTL < minLeaseTTL || h.LeaseTTL > maxLeaseTTL) {
		checks = append(checks, violation.New("hello.lease_ttl", "must be %s to %s", minLeaseTTL, maxLeaseTTL))
	}
	return violation.Join(checks...)
}

// agentIDs returns the ids of the worker's agents in order.
func (h *Hello) agentIDs() []string {
	ids := make([]string, len(h.Agents))
	for i, a := range h.Agents {
		ids[i] = a.ID
	}
	slices.Sort(ids)
	return ids
}

// WorkerAgents returns the agents that workers of a namespace serve or served, in no order.
func (e *Engine) WorkerAgents(namespace string) []WorkerAgent { return e.sched.agents(namespace) }

// countWorkers returns how many workers are connected, and how many runs workers have.
func (e *Engine) countWorkers() (connected, leased int) {
	e.sessionsMu.Lock()
	defer e.sessionsMu.Unlock()
	for _, s := range e.sessions {
		s.mu.Lock()
		leased += len(s.leases)
		if s.connected {
			connected++
		}
		s.mu.Unlock()
	}
	return connected, leased
}
