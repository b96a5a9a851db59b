package engine

import (
	"context"
	"time"
)

// Connection is a session for as long as one stream to its worker lives.
type Connection struct {
	*Session

	number int
}

// LeaseTTL is for how long the worker keeps its runs without being heard of.
func (c *Connection) LeaseTTL() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.worker.TTL
}

// MaxPayloadBytes is how large what the worker reports may be: an event, a step's
// result, an output.
func (c *Connection) MaxPayloadBytes() int { return c.engine.cfg.MaxInputBytes }

// current reports whether the worker has not connected again since. The session must be locked.
func (c *Connection) current() bool { return c.connected && c.number == c.connection }

// Heard notes that the worker is alive.
func (c *Connection) Heard() { c.heard(0) }

// heard notes that the worker is alive, and that more of what it said is being
// handled, or less.
func (c *Connection) heard(more int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handling += more
	if c.current() && !c.over {
		c.lapse.Reset(c.worker.TTL)
	}
}

// Drain has the worker get no more runs.
func (c *Connection) Drain() {
	c.mu.Lock()
	c.draining = true
	c.mu.Unlock()
	c.engine.sched.part(c.Session)
}

// Leave ends the session of a worker that ends: its runs go to others at once.
func (c *Connection) Leave() {
	c.mu.Lock()
	current := c.current()
	c.mu.Unlock()
	if current {
		c.end(true)
	}
}

// Disconnect says that the stream is gone. The worker keeps its runs for the lease time.
func (c *Connection) Disconnect() {
	c.mu.Lock()
	current, worker := c.current(), c.worker
	if current {
		c.connected = false
		c.engine.sched.part(c.Session) // before the worker's next connection joins
	}
	c.mu.Unlock()
	if current {
		c.engine.log.Info("worker disconnected", "worker", worker.Name, "worker_id", worker.ID)
	}
}

// Next waits for something to say to the worker.
// Errors: ErrStopped, ErrReplaced when the worker has connected again, ctx's.
func (c *Connection) Next(ctx context.Context) (Orders, error) {
	for gathered := false; ; {
		c.mu.Lock()
		if !c.current() {
			c.mu.Unlock()
			return Orders{}, ErrReplaced
		}
		if c.over {
			c.mu.Unlock()
			return Orders{}, ErrLeaseLost
		}
		if !gathered && len(c.leases) > gatherAbove && !c.orders.empty() {
			c.mu.Unlock()
			gathered = true
			if err := c.gather(ctx); err != nil {
				return Orders{}, err
			}
			continue
		}
		orders := c.orders
		c.orders = Orders{}
		c.mu.Unlock()
		if !orders.empty() {
			return orders, nil
		}
		gathered = false
		select {
		case <-c.some:
		case <-c.engine.stopping:
			return Orders{}, ErrStopped
		case <-ctx.Done():
			return Orders{}, context.Cause(ctx)
		}
	}
}

// A message costs a worker in Python many times what is in it. So a worker that
// has more than a few runs gets what comes within a moment as one.
const (
	gatherAbove = 4
	gatherTime  = 500 * time.Microsecond
)

// gather waits for more to say.
func (c *Connection) gather(ctx context.Context) error {
	moment := time.NewTimer(gatherTime)
	defer moment.Stop()
	select {
	case <-moment.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
