package graph

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// maxHistory bounds a page of History.
const maxHistory = 100

// State returns how a thread stands, or stood at a revision; 0: the latest. What tasks of
// a step that waits or failed have written is in Written, and not in the state yet.
//
// Errors: ErrUnknownThread, ErrUnknownRevision, the saver's.
func (g *Graph) State(ctx context.Context, saver Saver, thread string, revision uint64) (*Checkpoint, error) {
	latest, err := saver.Load(ctx, g, thread)
	switch {
	case err != nil:
		return nil, err
	case latest == nil:
		return nil, fmt.Errorf("thread %s: %w", thread, ErrUnknownThread)
	case revision == 0 || revision == latest.Revision:
		return latest, nil
	}
	list, err := saver.List(ctx, g, thread, revision+1, 1)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 || list[0].Revision != revision {
		return nil, fmt.Errorf("thread %s, revision %d: %w", thread, revision, ErrUnknownRevision)
	}
	return list[0], nil
}

// History returns checkpoints of a thread, newest first and limit of them at most, those
// before a revision; 0: from the latest on. The next page is that before the last of
// them. 0 as the limit, and more than 100, is 100. A thread that there is not has none.
func (g *Graph) History(ctx context.Context, saver Saver, thread string, before uint64, limit int) ([]*Checkpoint, error) {
	if limit <= 0 || limit > maxHistory {
		limit = maxHistory
	}
	return saver.List(ctx, g, thread, before, limit)
}

// Update writes to the channels of a thread as if a node had, in a step of its own behind
// those tasks of the latest step that have returned, and plans what follows them: what
// waits or failed beside them is dropped, with its questions. As Start it is an input, as
// End nothing follows it; an empty asNode is the node that has returned last, if one has.
// A thread that there is not is begun. Run, without an input, goes on with the thread; a
// run of it that is under way ends with ErrConflict at its next checkpoint.
//
// Errors: *violation.Error for asNode, *UpdateError, *NodeError of a branch, ErrConflict,
// the saver's.
func (g *Graph) Update(ctx context.Context, saver Saver, thread, asNode string, update State) (*Checkpoint, error) {
	r, err := g.open(ctx, thread, Options{Saver: saver})
	if err != nil {
		return nil, err
	}
	if asNode, err = g.writer(asNode, r.at); err != nil {
		return nil, err
	}
	written, err := plainState(asNode, update)
	if err != nil {
		return nil, err
	}
	done := r.returned()
	if len(done) > 0 {
		if err := r.fold(done); err != nil {
			return nil, err
		}
	}
	own := finished{task: Task{Node: asNode}, command: Command{Update: written}}
	if err := r.fold([]finished{own}); err != nil {
		return nil, err
	}
	r.nextStep()
	r.at.Source, r.at.Status, r.at.Error = Updated, Running, ""
	if asNode == End {
		done, r.at.Deferred = nil, nil
	} else {
		done = append(done, own)
	}
	if err := r.plan(ctx, done); err != nil {
		return nil, err
	}
	r.at.Returned = []string{asNode}
	if len(r.at.Tasks) == 0 {
		r.at.Status = Done
	}
	return r.at, r.save(ctx)
}

// writer is the node as which a thread is updated.
func (g *Graph) writer(asNode string, c *Checkpoint) (string, error) {
	if asNode == "" && len(c.Returned) == 1 {
		asNode = c.Returned[0]
	}
	_, known := g.nodes[asNode]
	switch {
	case known || asNode == Start || asNode == End:
		return asNode, nil
	case asNode == "":
		return "", violation.New("as_node", "is required: it is not one node that has returned last, but %d", len(c.Returned))
	default:
		return "", violation.New("as_node", "there is no node %q; there are %s",
			asNode, strings.Join(slices.Sorted(maps.Keys(g.nodes)), ", "))
	}
}

// Fork has a thread begin with a checkpoint of another one, or of its own: it goes on
// from there then, and what came behind it is history. The tasks of the checkpoint's step
// are done in it, those of its that have returned excepted; what waited asks again, and
// subgraphs begin anew. 0 is the latest revision.
//
// Errors: those of State, ErrConflict when another thread of the name exists.
func (g *Graph) Fork(ctx context.Context, saver Saver, thread string, revision uint64, to string) (*Checkpoint, error) {
	c, err := g.State(ctx, saver, thread, revision)
	if err != nil {
		return nil, err
	}
	c.Source, c.Parent, c.Request, c.Run, c.Revision = Forked, c.Revision, "", "", 0
	if to == thread {
		latest, err := g.State(ctx, saver, thread, 0)
		if err != nil {
			return nil, err
		}
		c.Revision = latest.Revision
		c.Step = latest.Step + 1
	}
	c.rename(to)
	c.Interrupts, c.Below, c.Error = nil, nil, ""
	c.Status = Running
	if len(c.Tasks) == 0 {
		c.Status = Done
	}
	c.whole, c.deltas, c.Folded = 0, 0, nil
	r := &run{graph: g, thread: to, options: Options{Saver: saver}, at: c}
	return c, r.save(ctx)
}

// rename gives the tasks the ids that they have in a thread: subgraphs of the thread that
// they come from are none of theirs.
func (c *Checkpoint) rename(thread string) {
	written, answers := map[string]Command{}, map[string][]any{}
	for i := range c.Tasks {
		task := &c.Tasks[i]
		id := taskID(thread, c.Step, task.Node, i)
		if command, done := c.Written[task.ID]; done {
			written[id] = command
		}
		if given, answered := c.Answers[task.ID]; answered {
			answers[id] = given
		}
		task.ID = id
	}
	c.Written, c.Answers = written, answers
}
