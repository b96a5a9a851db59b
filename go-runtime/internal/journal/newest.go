package journal

import (
	"hash/maphash"
	"sync"

	"github.com/djangobridge/djangobridge/go-runtime/internal/recent"
)

const (
	newestShards = 64
	// newestBytes bounds what all shards keep.
	newestBytes = 16 << 20
)

// newest remembers the newest durable records of subjects that were read, so
// that reading them again asks nobody. It is right only where this process
// alone appends: a subject is forgotten before an append to it is sent, and not
// remembered again before the answer has come. Its methods are safe for
// concurrent use; a nil *newest remembers nothing.
type newest struct {
	seed   maphash.Seed
	shards [newestShards]newestShard

	mu sync.Mutex
	// lost counts the appends that got no answer; unsettled are those of them
	// that may still happen.
	lost      uint64
	unsettled []lostAppend
}

type newestShard struct {
	mu sync.Mutex
	// writers are the appends under way; changes moves when one begins or ends.
	writers, changes uint64
	records          *recent.Cache[string, Record]
}

// lostAppend is an append that got no answer, and its place among these.
type lostAppend struct {
	number uint64
	shards []*newestShard
}

func newNewest() *newest {
	n := &newest{seed: maphash.MakeSeed()}
	for i := range n.shards {
		n.shards[i].records = recent.New(newestBytes/newestShards, func(subject string, r Record) int {
			return 2*len(subject) + len(r.Data)
		})
	}
	return n
}

func (n *newest) shardOf(subject string) *newestShard {
	return &n.shards[maphash.String(n.seed, subject)%newestShards]
}

// find returns the newest record of a subject, if it is remembered. If not, a
// record that is read from now on may be kept with the version it returns.
func (n *newest) find(subject string) (r Record, version uint64, found bool) {
	if n == nil {
		return Record{}, 0, false
	}
	shard := n.shardOf(subject)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	r, found = shard.records.Get(subject)
	return r, shard.changes, found
}

// keep remembers a durable record that was read after find, unless the subject
// may have got another one since.
func (n *newest) keep(version uint64, r Record) {
	if n == nil {
		return
	}
	shard := n.shardOf(r.Subject)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if shard.writers > 0 || shard.changes != version {
		return
	}
	shard.records.Add(r.Subject, r)
}

// change is one or more appends under way.
type change struct {
	newest *newest
	shards []*newestShard
	lost   uint64 // how many appends had got no answer when it began
}

// begin forgets the subjects that are about to be appended to.
func (n *newest) begin(ms ...Message) *change {
	if n == nil {
		return nil
	}
	c := &change{newest: n, shards: make([]*newestShard, len(ms))}
	for i, m := range ms {
		shard := n.shardOf(m.Subject)
		shard.mu.Lock()
		shard.writers++
		shard.changes++
		shard.records.Remove(m.Subject)
		shard.mu.Unlock()
		c.shards[i] = shard
	}
	n.mu.Lock()
	c.lost = n.lost
	n.mu.Unlock()
	return c
}

// end says how the appends went; answered is whether that is known. An append
// without an answer may happen later than this, but not later than one that was
// sent after it: the server takes them in order.
func (c *change) end(answered bool) {
	if c == nil {
		return
	}
	n := c.newest
	n.mu.Lock()
	defer n.mu.Unlock()
	if !answered {
		n.lost++
		n.unsettled = append(n.unsettled, lostAppend{number: n.lost, shards: c.shards})
		return
	}
	release(c.shards)
	for len(n.unsettled) > 0 && n.unsettled[0].number <= c.lost {
		release(n.unsettled[0].shards)
		n.unsettled = n.unsettled[1:]
	}
}

func release(shards []*newestShard) {
	for _, shard := range shards {
		shard.mu.Lock()
		shard.writers--
		shard.changes++
		shard.mu.Unlock()
	}
}

// clear forgets everything.
func (n *newest) clear() {
	if n == nil {
		return
	}
	for i := range n.shards {
		shard := &n.shards[i]
		shard.mu.Lock()
		shard.changes++
		shard.records.Clear()
		shard.mu.Unlock()
	}
}
