package definition

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// catalog is what is known of the journal's records, in memory: all of what is current,
// and of other versions all but their texts.
type catalog struct {
	mu    sync.RWMutex
	names map[key]*entry
	// own are the runtime's own documents, as they were given to this process.
	own map[key]Definition
}

// entry is what is known of a name.
type entry struct {
	head     head
	sequence uint64
	versions map[string]kept
}

// kept is a version without its text.
type kept struct {
	version

	sequence uint64
}

// live reports whether the name has a current version.
func (e *entry) live() bool { return e != nil && e.head.Version != "" && e.head.DeletedAt.IsZero() }

// apply takes a record in, unless what is known is as new, and returns whose it is and
// whether another version is current from now on.
func (c *catalog) apply(rec journal.Record) (k key, changed bool, err error) {
	k, leaf, err := parseSubject(rec.Subject)
	if err != nil {
		return key{}, false, err
	}
	if leaf == headLeaf {
		h := head{Gone: rec.Expired}
		if !rec.Expired {
			err = json.Unmarshal(rec.Data, &h)
		}
		if err != nil {
			return k, false, fmt.Errorf("decode head of %s %s: %w", k.kind, k.name, err)
		}
		return k, c.setHead(k, h, rec.Sequence), nil
	}
	v := version{Gone: rec.Expired}
	if !rec.Expired {
		err = json.Unmarshal(rec.Data, &v)
	}
	if err != nil {
		return k, false, fmt.Errorf("decode version %s of %s %s: %w", leaf, k.kind, k.name, err)
	}
	c.setVersion(k, leaf, v, rec.Sequence)
	return k, false, nil
}

func (c *catalog) setHead(k key, h head, sequence uint64) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entry(k)
	if sequence <= e.sequence {
		return false
	}
	before, was := e.head.Version, e.live()
	if e.head, e.sequence = h, sequence; h.Gone && len(e.versions) == 0 {
		delete(c.names, k)
	}
	return was != e.live() || before != h.Version
}

func (c *catalog) setVersion(k key, name string, v version, sequence uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entry(k)
	if sequence <= e.versions[name].sequence {
		return
	}
	if !v.Gone {
		v.Text = nil
		e.versions[name] = kept{version: v, sequence: sequence}
		return
	}
	if delete(e.versions, name); len(e.versions) == 0 && (e.head.Gone || e.sequence == 0) {
		delete(c.names, k)
	}
}

// entry returns what is known of a name, to be changed. The caller holds the lock.
func (c *catalog) entry(k key) *entry {
	e := c.names[k]
	if e == nil {
		e = &entry{versions: map[string]kept{}}
		c.names[k] = e
	}
	return e
}

// read returns a copy of what is known of a name.
func (c *catalog) read(k key) entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e := c.names[k]
	if e == nil {
		return entry{}
	}
	return entry{head: e.head, sequence: e.sequence, versions: maps.Clone(e.versions)}
}

// current returns what new runs of a namespace use: its own, else the runtime's.
func (c *catalog) current(k key) (Definition, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if e := c.names[k]; k.namespace != "" && e.live() {
		return e.head.Current.definition(k, e.head.Version), true
	}
	k.namespace = ""
	d, found := c.own[k]
	return d, found
}

// isOwn reports whether a name is that of a document of the runtime's own.
func (c *catalog) isOwn(k key) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	k.namespace = ""
	_, own := c.own[k]
	return own
}

// list returns what a namespace sees of a kind, by name.
func (c *catalog) list(namespace string, kind Kind) []Definition {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var found []Definition
	for k, e := range c.names {
		if namespace != "" && k.namespace == namespace && k.kind == kind && e.live() {
			found = append(found, e.head.Current.definition(k, e.head.Version))
		}
	}
	for k, d := range c.own {
		if hidden := c.names[key{namespace, kind, k.name}]; k.kind == kind && (namespace == "" || !hidden.live()) {
			found = append(found, d)
		}
	}
	slices.SortFunc(found, func(a, b Definition) int { return cmp.Compare(a.Name, b.Name) })
	return found
}

// count returns how many names a namespace has, and which of it was deleted first.
func (c *catalog) count(namespace string) (live, deleted int, first key) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var oldest *entry
	for k, e := range c.names {
		switch {
		case k.namespace != namespace || e.head.Gone:
		case e.live():
			live++
		case !e.head.DeletedAt.IsZero():
			deleted++
			if oldest == nil || e.head.DeletedAt.Before(oldest.head.DeletedAt) {
				oldest, first = e, k
			}
		}
	}
	return live, deleted, first
}

// oldest returns the version of a name that goes first: neither of those to keep.
func (e *entry) oldest(keep ...string) string {
	var name string
	for v, k := range e.versions {
		if !slices.Contains(keep, v) && (name == "" || k.Number < e.versions[name].Number) {
			name = v
		}
	}
	return name
}
