package model

import (
	"cmp"
	"fmt"
	"time"
)

// Kind classifies a provider's failure.
type Kind string

// The kinds of failure.
const (
	// RateLimited: too many requests or tokens; Error.RetryAfter may say when to come back.
	RateLimited Kind = "rate_limited"
	// QuotaExhausted: the account has no credit left; waiting does not help.
	QuotaExhausted Kind = "quota_exhausted"
	// Unavailable: not reachable, broken or too slow.
	Unavailable Kind = "unavailable"
	// Unauthorized: the key is missing, wrong, or may not use this model.
	Unauthorized Kind = "unauthorized"
	// Rejected: the endpoint does not take this request, or does not know the model.
	Rejected Kind = "rejected"
	// Refused: the model or a content filter would not answer.
	Refused Kind = "refused"
	// Truncated: the answer was cut at its token limit.
	Truncated Kind = "truncated"
	// Malformed: what came back is not an answer.
	Malformed Kind = "malformed"
)

// passes reports whether another model may not fail so.
func (k Kind) passes() bool {
	switch k {
	case RateLimited, QuotaExhausted, Unavailable, Unauthorized:
		return true
	case Rejected, Refused, Truncated, Malformed:
		return false
	}
	return false
}

// Error is a provider's failure. Its text is safe to show: it holds nothing of
// the request, the answer or the key.
type Error struct {
	Kind Kind
	// Model is the one that was asked, as provider/model.
	Model string
	// StatusCode is the HTTP status, or 0 when there was no answer.
	StatusCode int
	// RetryAfter is how long the provider asks to wait; 0 when it does not say.
	RetryAfter time.Duration
	// Cause is for the log, and may be nil.
	Cause error

	// detail says more than the kind does, in its place.
	detail string
	// whole is the text for all models of a chain.
	whole string
}

func (e *Error) Error() string {
	if e.whole != "" {
		return e.whole
	}
	text := "model " + e.Model + " " + cmp.Or(e.detail, e.sentence())
	if e.StatusCode >= 400 {
		text += fmt.Sprintf(" (HTTP %d)", e.StatusCode)
	}
	if e.RetryAfter > 0 {
		text += fmt.Sprintf("; retry after %s", e.RetryAfter)
	}
	return text
}

func (e *Error) sentence() string {
	switch e.Kind {
	case RateLimited:
		return "is rate limited by its provider"
	case QuotaExhausted:
		return "cannot be asked: the provider's account has no quota left"
	case Unavailable:
		return "is unavailable: its endpoint cannot be reached, failed, or took too long"
	case Unauthorized:
		return "cannot be asked: its endpoint does not accept the API key"
	case Rejected:
		return "cannot be asked: its endpoint does not know the model or does not take the request"
	case Refused:
		return "refused to answer, or its answer was held back by a content filter"
	case Truncated:
		return "was cut short: the answer is longer than its token limit"
	case Malformed:
		return "sent something that is not an answer"
	}
	return "failed"
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Retryable reports whether the same request could succeed later.
func (e *Error) Retryable() bool {
	switch e.Kind {
	case RateLimited, Unavailable, Malformed:
		return true
	case QuotaExhausted, Unauthorized, Rejected, Refused, Truncated:
		return false
	}
	return false
}
