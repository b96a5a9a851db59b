package journal

import (
	"errors"
	"fmt"
)

// Errors of the journal. They come wrapped with what was attempted; match
// them with errors.Is.
var (
	// ErrConflict reports that Message.Expect did not hold. A retried append
	// whose first acknowledgement was lost sees its own success this way; a
	// cluster also refuses so in passing, while it still keeps the record before.
	ErrConflict = errors.New("subject has another last sequence")
	// ErrNotFound reports a record that was never there or is gone.
	ErrNotFound = errors.New("record not found")
	// ErrTooLarge reports a record above Config.MaxMessageBytes.
	ErrTooLarge = errors.New("record is too large")
	// ErrNoSpace reports that the disk or the store is full for records of
	// this Purpose. Reads go on.
	ErrNoSpace = errors.New("no space left in the journal")
	// ErrUnavailable reports that no answer came: an append may or may not
	// have happened.
	ErrUnavailable = errors.New("journal is unavailable")
	// ErrTruncated reports that retention overtook a reader, or that what comes
	// next was lost with a damaged disk.
	ErrTruncated = errors.New("records were removed before they were read")
)

// Skip is what the function of Follow returns for a batch that has nothing for
// it. It is not an error: Follow goes on, and says within about a second how far
// it has come.
var Skip = errors.New("skip this batch") //nolint:errname,gochecknoglobals,revive,staticcheck // as fs.SkipDir is

// TruncatedError is the ErrTruncated of Follow.
type TruncatedError struct {
	// Oldest is the oldest sequence that may still be there: a reader that
	// accepts the gap goes on after Oldest-1.
	Oldest uint64
	// Damaged says that records were lost with a damaged disk; otherwise
	// retention removed them.
	Damaged bool
}

// Error implements error.
func (e *TruncatedError) Error() string {
	return fmt.Sprintf("%v: the oldest record is %d", ErrTruncated, e.Oldest)
}

// Is reports whether target is ErrTruncated.
func (*TruncatedError) Is(target error) bool { return target == ErrTruncated }

// LockedError reports that another runtime owns the data folder or cluster.
type LockedError struct {
	// Resource is the data folder or the address of the cluster.
	Resource string
	// Holder names the owner: "process 4711", or the host and process that
	// hold a cluster's lease.
	Holder string
}

// Error implements error.
func (e *LockedError) Error() string {
	return fmt.Sprintf("%s is in use by %s", e.Resource, e.Holder)
}

// Problem is a lasting fault that an operator has to know of.
type Problem struct {
	// Stream is the stream it concerns.
	Stream string
	// First and Last bound the sequences that were acknowledged and are
	// gone; both 0 when the fault is of another kind.
	First, Last uint64
	// Message says what happened, for people.
	Message string
}
