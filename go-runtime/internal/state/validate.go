package state

import (
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const (
	maxKeyBytes       = 512
	maxRequestIDBytes = 64
	maxOperations     = 100
	// maxTTL keeps every moment of expiry within the range of a time.
	maxTTL = 100 * 365 * 24 * time.Hour

	defaultPageSize = 100
	maxPageSize     = 1000
)

func checkKey(field, key string) error {
	switch {
	case key == "":
		return violation.New(field, "is required")
	case len(key) > maxKeyBytes:
		return violation.New(field, "is %d bytes long, at most %d are allowed", len(key), maxKeyBytes)
	case !utf8.ValidString(key):
		return violation.New(field, "is not valid UTF-8")
	}
	return nil
}

func checkRequestID(id string) error {
	switch {
	case len(id) > maxRequestIDBytes:
		return violation.New("request_id", "is %d bytes long, at most %d are allowed", len(id), maxRequestIDBytes)
	case !utf8.ValidString(id):
		return violation.New("request_id", "is not valid UTF-8")
	}
	return nil
}

func checkTTL(field string, ttl time.Duration) error {
	switch {
	case ttl < 0 || ttl > 0 && ttl < time.Second:
		return violation.New(field, "must be at least one second, but is %s", ttl)
	case ttl%time.Second != 0:
		return violation.New(field, "must be whole seconds, but is %s", ttl)
	case ttl > maxTTL:
		return violation.New(field, "must be at most %.0f years", maxTTL.Hours()/24/365)
	}
	return nil
}

// checkOperation refuses an operation that does not fit; prefix comes before the names of its fields.
func (s *Store) checkOperation(prefix string, op Operation) error {
	if op.Delete {
		var expect error
		if op.Expect != nil && *op.Expect == 0 {
			expect = violation.New(prefix+"expected_revision", "must not be 0 for a deletion: there would be nothing to delete")
		}
		return violation.Join(checkKey(prefix+"key", op.Key), expect)
	}
	value := prefix + "value"
	if len(op.Value) > s.cfg.MaxValueBytes {
		return &violation.TooLargeError{Field: value, Size: len(op.Value), Limit: s.cfg.MaxValueBytes}
	}
	return violation.Join(
		checkKey(prefix+"key", op.Key),
		jsonvalue.Validate(value, op.Value),
		checkTTL(prefix+"ttl", op.TTL),
	)
}

// checkOperations refuses a transaction that does not fit.
func (s *Store) checkOperations(ops []Operation) error {
	if len(ops) == 0 || len(ops) > maxOperations {
		return violation.New("operations", "must be 1 to %d, but are %d", maxOperations, len(ops))
	}
	first := make(map[string]int, len(ops))
	var checks []error
	for i, op := range ops {
		prefix := fmt.Sprintf("operations[%d].", i)
		checks = append(checks, s.checkOperation(prefix, op))
		if at, twice := first[op.Key]; twice {
			checks = append(checks, violation.New(prefix+"key", "occurs in operations[%d] already", at))
		} else {
			first[op.Key] = i
		}
	}
	return violation.Join(checks...)
}

// pageSize applies the default and the limit.
func pageSize(asked int) (int, error) {
	switch {
	case asked < 0:
		return 0, violation.New("page_size", "must not be negative")
	case asked == 0:
		return defaultPageSize, nil
	}
	return min(asked, maxPageSize), nil
}

// ttlSeconds is a TTL as the index keeps it; maxTTL fits.
func ttlSeconds(e Entry) uint32 {
	if e.ExpiresAt.IsZero() {
		return 0
	}
	return uint32(min(e.ExpiresAt.Sub(e.UpdatedAt)/time.Second, math.MaxUint32))
}
