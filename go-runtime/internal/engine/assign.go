package engine

import (
	"errors"
	"fmt"
)

// assign gives the worker a run for which a place of its was taken.
func (s *Session) assign(ent *entry) {
	s.mu.Lock()
	over := s.over
	if !over {
		s.assigned = append(s.assigned, ent)
	}
	s.mu.Unlock()
	if over {
		s.engine.sched.restore(ent)
		return
	}
	signal(s.work)
}

// serve begins the runs that were assigned, until the session is over or the engine stops.
func (s *Session) serve() {
	for s.await(s.work) {
		s.mu.Lock()
		assigned := s.assigned
		s.assigned = nil
		s.mu.Unlock()
		for _, ent := range assigned {
			s.begin(ent)
		}
	}
}

// begin begins an attempt and tells the worker.
func (s *Session) begin(ent *entry) {
	e := s.engine
	s.mu.Lock()
	connected, worker := s.connected && !s.draining, s.worker
	s.mu.Unlock()
	if !connected {
		e.sched.restore(ent)
		e.sched.returnPlace(s, ent.id)
		return
	}
	assignment, err := s.beginAttempt(ent, &worker)
	if err != nil {
		e.sched.returnPlace(s, ent.id)
		if _, isFinal := errors.AsType[*TaskError](err); isFinal && e.work.Err() == nil {
			e.finish(ent, nil, err)
		} else if !errors.Is(err, errUnchanged) {
			e.log.Error("run not begun", "run_id", ent.id, "worker", worker.Name, "err", err)
		}
		return
	}
	s.hand(&assignment)
}

// hand tells the worker of a run that it has, unless it has it no more. The place
// of a lease that is over is free at once, since the worker never heard of it and
// reports nothing; whoever removed a lease has returned its place.
func (s *Session) hand(a *Assignment) {
	over := false
	s.order(func(o *Orders) {
		switch l := s.leases[a.Lease]; {
		case l == nil:
		case l.over:
			over = true
			delete(s.leases, a.Lease)
		default:
			o.Assignments = append(o.Assignments, *a)
		}
	})
	if over {
		s.engine.sched.returnPlace(s, a.Run.ID)
	}
}

// beginAttempt records that an attempt begins. Its error is a *TaskError when
// what the attempt needs cannot be read, now or later, or is more than a worker can be given.
func (s *Session) beginAttempt(ent *entry, worker *Worker) (Assignment, error) {
	e := s.engine
	before := ent.snapshot()
	input, err := e.inputOf(ent)
	if err != nil {
		return Assignment{}, err
	}
	p, err := e.pastOf(ent)
	if err != nil {
		return Assignment{}, err
	}
	if size := len(input) + p.size(); size > e.cfg.MaxAssignmentBytes {
		return Assignment{}, &TaskError{Reason: ReasonAgentFailed, Message: fmt.Sprintf(
			"the run's input, steps, answers and checkpoint have %d bytes together, and a worker is given at most %d; "+
				"record less, such as where something is kept", size, e.cfg.MaxAssignmentBytes,
		)}
	}
	s.mu.Lock()
	agent := s.agents[before.AgentID]
	s.mu.Unlock()
	now := e.cfg.Now().UTC()
	run, err := e.changeThen(e.work, ent, nil, func(run *Run) error {
		if run.State != Queued {
			return errUnchanged
		}
		run.begin(now, worker)
		e.limit(run, agent.RunDefaults)
		return nil
	}, func(run *Run) { e.lease(s, ent, run) })
	if err != nil {
		return Assignment{}, err
	}
	run.Input = input
	return Assignment{
		Run: run, Lease: run.Lease, StepTimeout: run.options().StepTimeout,
		Steps: p.Steps, Answers: p.Answers, Checkpoint: p.Checkpoint, Trace: ent.traceOrigin(),
	}, nil
}
