package djangobridge

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Page sizes of lists that are held in memory.
const (
	defaultCatalogPage = 100
	maxCatalogPage     = 1000
)

// pageSize applies a list's default and limit to what was asked for.
func pageSize(asked int32, fallback, limit int) (int, error) {
	switch {
	case asked < 0:
		return 0, violation.New("page_size", "must not be negative")
	case asked == 0:
		return fallback, nil
	default:
		return min(int(asked), limit), nil
	}
}

// page cuts one page out of all, which is sorted by key. The page token is the
// key of the last item of the page before.
func page[T any](all []T, key func(T) string, pageToken string, size int) (items []T, next string) {
	start := 0
	for start < len(all) && pageToken != "" && key(all[start]) <= pageToken {
		start++
	}
	items = all[start:min(start+size, len(all))]
	if start+size < len(all) {
		next = key(items[len(items)-1])
	}
	return items, next
}

// duration reads an optional duration that must be positive; unset gives 0.
func duration(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if d.CheckValid() != nil || d.AsDuration() <= 0 {
		return 0, violation.New(field, "must be a positive duration")
	}
	return d.AsDuration(), nil
}

// timestamp gives nil for the zero time.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
