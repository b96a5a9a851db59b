package recent_test

import (
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/recent"
)

func newCache(limit int) *recent.Cache[int, []byte] {
	return recent.New(limit, func(_ int, value []byte) int { return len(value) })
}

func TestTheLastUsedStay(t *testing.T) {
	t.Parallel()
	const limit = 100_000
	c := newCache(limit)
	for key := range 1000 {
		c.Add(key, make([]byte, 1000))
		c.Get(0)
		if c.Bytes() > limit {
			t.Fatalf("%d bytes after key %d, the limit is %d", c.Bytes(), key, limit)
		}
	}
	for key, want := range map[int]bool{0: true, 1: false, 900: false, 999: true} {
		if _, found := c.Get(key); found != want {
			t.Errorf("key %d is there: %t", key, found)
		}
	}
	if c.Clear(); c.Bytes() != 0 {
		t.Errorf("%d bytes after Clear", c.Bytes())
	}
}

func TestAValueIsReplacedAndRemoved(t *testing.T) {
	t.Parallel()
	c := newCache(100_000)
	c.Add(1, []byte("old"))
	c.Add(1, []byte("newer"))
	if value, _ := c.Get(1); string(value) != "newer" {
		t.Errorf("%q", value)
	}
	c.Add(1, make([]byte, 10_000))
	if _, found := c.Get(1); found || c.Bytes() != 0 {
		t.Errorf("a value that is too large left %d bytes, found: %t", c.Bytes(), found)
	}
	c.Add(1, []byte("again"))
	c.Remove(1)
	if _, found := c.Get(1); found || c.Bytes() != 0 {
		t.Errorf("found after Remove, with %d bytes", c.Bytes())
	}
}
