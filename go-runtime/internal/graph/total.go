package graph

import (
	"context"
	"fmt"
	"sync/atomic"
)

// total counts what one Run comes to, the graphs that nodes run included, and ends all of
// it where that is too much. It is shared by their runs.
type total struct {
	graphs, tasks atomic.Int64
	end           context.CancelCauseFunc
}

func (t *total) addTask(limit int) error { return t.add(&t.tasks, "tasks", limit) }

func (t *total) addGraph(limit int) error { return t.add(&t.graphs, "graphs", limit) }

func (t *total) add(count *atomic.Int64, what string, limit int) error {
	if count.Add(1) <= int64(limit) {
		return nil
	}
	over := &TotalError{What: what, Limit: limit}
	t.end(over)
	return over
}

// TotalError says that a run came to more graphs or tasks than it may in all.
type TotalError struct {
	// What is `graphs` or `tasks`.
	What  string
	Limit int
}

func (e *TotalError) Error() string {
	return fmt.Sprintf("the run comes to more than %d %s in all, with those of the graphs that it runs: "+
		"see whether a graph runs itself several times", e.Limit, e.What)
}

// Permanent says that it comes again.
func (*TotalError) Permanent() bool { return true }
