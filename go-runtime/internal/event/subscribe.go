package event

import (
	"context"
	"errors"
	"fmt"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const (
	maxPatterns = 100
	// leadStep is how far ahead of the beginning a subscription tries to begin
	// at first, when the oldest events are removed faster than it reads.
	leadStep = 64
)

// Start says where a subscription begins. Zero: with events published from now on.
type Start struct {
	// After begins with the events that have a greater sequence.
	After *uint64
	// Beginning begins with the oldest event that is still kept.
	Beginning bool
}

// Subscribe calls fn with the events that match any of 1 to 100 types, each
// once, in sequence order, until ctx ends or fn returns an error, which is
// returned as is. A type may be `*` for every type, or end in `*` for every type
// with the prefix before it (`order.*`, `ord*`).
//
// added is called first, with the sequence after which the events follow. The
// position given to fn resumes the subscription: everything up to it was handed
// over. fn is also called without events, about once a second at most, when
// only the position moved. Subscribe reads at fn's pace and holds nobody up.
//
// Errors: *violation.Error, also for an After that is still to come, and
// *journal.TruncatedError when retention removed events before they were handed
// over, or when what comes next was lost with a damaged disk: whoever accepts that
// subscribes again after its Oldest-1.
func (l *Log) Subscribe(
	ctx context.Context,
	namespace string,
	types []string,
	start Start,
	added func(after uint64) error,
	fn func(events []Event, position uint64) error,
) error {
	if err := checkSubscription(types, start); err != nil {
		return err
	}
	after, err := l.startAfter(ctx, start)
	if err != nil {
		return err
	}
	if err := added(after); err != nil {
		return err
	}
	wanted := parsePatterns(types)
	filters, exact := wanted.filters(namespace)
	s := subscription{wanted: wanted, exact: exact, fn: fn}
	for lead := uint64(0); ; lead = 2*lead + leadStep {
		err := l.stream.Follow(ctx, after, filters, s.take)
		if s.ended != nil {
			return s.ended
		}
		var truncated *journal.TruncatedError
		if !errors.As(err, &truncated) {
			return fmt.Errorf("subscribe to events: %w", err)
		}
		if truncated.Damaged || !start.Beginning || s.begun {
			l.log.WarnContext(ctx, "a subscriber missed events",
				"namespace", namespace, "oldest_sequence", truncated.Oldest, "damaged", truncated.Damaged)
			return fmt.Errorf("subscribe to events: %w", err)
		}
		// The beginning has moved since it was looked up, and may move on.
		newest, err := l.newest(ctx)
		if err != nil {
			return fmt.Errorf("subscribe to events: %w", err)
		}
		after = truncated.Oldest - 1
		after = max(after, min(after+lead, newest))
	}
}

func checkSubscription(types []string, start Start) error {
	if len(types) == 0 || len(types) > maxPatterns {
		return violation.New("types", "must be 1 to %d, but are %d", maxPatterns, len(types))
	}
	var checks []error
	for i, t := range types {
		checks = append(checks, checkPattern(fmt.Sprintf("types[%d]", i), t))
	}
	if start.After != nil && start.Beginning {
		checks = append(checks, violation.New("after_sequence", "cannot be combined with from_beginning"))
	}
	return violation.Join(checks...)
}

// startAfter returns the sequence after which a subscription begins.
func (l *Log) startAfter(ctx context.Context, start Start) (uint64, error) {
	first, _, err := l.stream.Bounds(ctx)
	if err != nil {
		return 0, fmt.Errorf("subscribe to events: %w", err)
	}
	if start.Beginning {
		return max(first, 1) - 1, nil
	}
	newest, err := l.newest(ctx)
	if err != nil {
		return 0, fmt.Errorf("subscribe to events: %w", err)
	}
	if start.After == nil {
		return newest, nil
	}
	if *start.After > newest {
		return 0, violation.New("after_sequence", "is %d, but the newest sequence is %d", *start.After, newest)
	}
	if first > *start.After+1 {
		return 0, fmt.Errorf("subscribe to events: %w", &journal.TruncatedError{Oldest: first})
	}
	return *start.After, nil
}

// newest is the newest sequence that is durable: what a scan reaches, here of a
// subject that has no records, as no namespace is called that.
func (l *Log) newest(ctx context.Context) (uint64, error) {
	nothing := []string{typeSubject(journal.EncodeToken(""), "")}
	return l.stream.Scan(ctx, 0, false, nothing, func(journal.Record) error { return nil })
}

// subscription is one call of Subscribe.
type subscription struct {
	wanted patterns
	exact  bool // the journal's filters match wanted events only
	fn     func(events []Event, position uint64) error
	begun  bool  // fn was called
	ended  error // what fn returned
}

// take hands a batch over.
func (s *subscription) take(batch []journal.Record, position uint64) error {
	events := make([]Event, 0, len(batch))
	for _, r := range batch {
		e, err := decode(r)
		if err != nil {
			return err
		}
		if s.exact || s.wanted.match(e.Type) {
			events = append(events, e)
		}
	}
	if len(events) == 0 && len(batch) > 0 {
		return journal.Skip
	}
	s.begun = true
	s.ended = s.fn(events, position)
	return s.ended
}
