package graph

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// plan says which tasks follow those that have returned.
func (r *run) plan(ctx context.Context, returned []finished) error {
	p := plan{run: r}
	for _, f := range returned {
		if err := p.follow(ctx, f); err != nil {
			return err
		}
	}
	for _, f := range returned {
		if err := p.arrive(f.task.Node); err != nil {
			return err
		}
	}
	if len(p.tasks) == 0 && len(r.at.Deferred) > 0 {
		deferred := r.at.Deferred
		r.at.Deferred, p.last = nil, true
		for _, node := range deferred {
			if err := p.add(Start, Send{Node: node}); err != nil {
				return err
			}
		}
	}
	if p.sent > 0 {
		if size := p.sent + sizeOf(r.at.State); size > r.options.MaxStateBytes {
			return &SizeError{Bytes: size, Sent: p.sent, Limit: r.options.MaxStateBytes}
		}
	}
	r.at.Tasks = p.tasks
	r.at.Returned = nil
	for _, f := range returned {
		if !slices.Contains(r.at.Returned, f.task.Node) {
			r.at.Returned = append(r.at.Returned, f.task.Node)
		}
	}
	return nil
}

type plan struct {
	run   *run
	tasks []Task
	// sent is about how many bytes the tasks have that read something beside the state.
	sent int
	// whole are the nodes that have a task which reads the state.
	whole []string
	// last says that no other tasks than deferred ones are left.
	last bool
	// joining says that Arrived is the plan's own.
	joining bool
}

// follow adds what the edges and branches of a task's node name, and its command.
func (p *plan) follow(ctx context.Context, f finished) error {
	from := f.task.Node
	for _, to := range p.run.graph.edges[from] {
		if err := p.add(from, Send{Node: to}); err != nil {
			return err
		}
	}
	for _, branch := range p.run.graph.branches[from] {
		chosen, err := branch(ctx, p.run.at.State)
		if err != nil {
			return &NodeError{Node: from, Step: p.run.at.Step, Cause: fmt.Errorf("choose what follows: %w", err)}
		}
		if err := p.addAll(from, chosen); err != nil {
			return err
		}
	}
	return p.addAll(from, f.command.Goto)
}

func (p *plan) addAll(from string, sends []Send) error {
	for _, send := range sends {
		if err := p.add(from, send); err != nil {
			return err
		}
	}
	return nil
}

// arrive notes for joins that a node has returned.
func (p *plan) arrive(node string) error {
	at := p.run.at
	for place, join := range p.run.graph.joins {
		if !slices.Contains(join.from, node) || slices.Contains(at.Arrived[place], node) {
			continue
		}
		if !p.joining {
			// What was planned before may be needed again.
			p.joining = true
			at.Arrived = maps.Clone(at.Arrived)
			if at.Arrived == nil {
				at.Arrived = map[int][]string{}
			}
		}
		at.Arrived[place] = append(slices.Clip(at.Arrived[place]), node)
		if len(at.Arrived[place]) < len(join.from) {
			continue
		}
		delete(at.Arrived, place)
		if err := p.add(node, Send{Node: join.to}); err != nil {
			return err
		}
	}
	return nil
}

// postpone has a node wait for the tasks that are left.
func (p *plan) postpone(node string) {
	at := p.run.at
	if !slices.Contains(at.Deferred, node) {
		// What was planned before may be needed again.
		at.Deferred = append(slices.Clip(at.Deferred), node)
	}
}

func (p *plan) add(from string, send Send) error {
	if send.Node == End {
		return nil
	}
	if _, known := p.run.graph.nodes[send.Node]; !known {
		return &NodeError{Node: from, Step: p.run.at.Step, Cause: fmt.Errorf("there is no node %q to go to", send.Node)}
	}
	if send.ofState() {
		if p.run.graph.nodes[send.Node].Defer && !p.last {
			p.postpone(send.Node)
			return nil
		}
		if slices.Contains(p.whole, send.Node) {
			return nil
		}
		p.whole = append(p.whole, send.Node)
	}
	if len(p.tasks) == p.run.options.MaxTasks {
		return &FanOutError{Limit: p.run.options.MaxTasks}
	}
	id := taskID(p.run.thread, p.run.at.Step, send.Node, len(p.tasks))
	if len(send.Beside) > 0 {
		const task = len(`{"id":"0123456789abcdef","node":"","beside":},`)
		p.sent += task + len(send.Node) + sizeOf(send.Beside)
	}
	p.tasks = append(p.tasks, Task{ID: id, Node: send.Node, Input: send.Input, Beside: send.Beside})
	return nil
}
