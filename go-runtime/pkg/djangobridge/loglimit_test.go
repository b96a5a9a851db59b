package djangobridge

import (
	"testing"
	"time"
)

func TestLogLimit(t *testing.T) {
	t.Parallel()
	var limit logLimit
	now := time.Now()
	for range refusalLines {
		if suppressed, allowed := limit.allow(now); !allowed || suppressed != 0 {
			t.Fatalf("a line within the limit: %d, %t", suppressed, allowed)
		}
	}
	for range 7 {
		if _, allowed := limit.allow(now.Add(refusalWindow - 1)); allowed {
			t.Fatal("a line beyond the limit")
		}
	}
	now = now.Add(refusalWindow)
	if suppressed, allowed := limit.allow(now); !allowed || suppressed != 7 {
		t.Errorf("first line of the next window: %d, %t", suppressed, allowed)
	}
	if suppressed, allowed := limit.allow(now); !allowed || suppressed != 0 {
		t.Errorf("second line of the next window: %d, %t", suppressed, allowed)
	}
}
