package workspace

import (
	"errors"
	"fmt"
	"io/fs"
)

var (
	// ErrClosed reports a workspace that was closed.
	ErrClosed = errors.New("the workspace is closed")
	// ErrSuperseded reports a save that somebody else's save of the same run
	// has overtaken.
	ErrSuperseded = errors.New("the files of the run were saved by somebody else meanwhile")
	// ErrDamaged reports saved files that are not what was saved: records were
	// lost with a damaged disk.
	ErrDamaged = errors.New("saved files are damaged")
)

// NotFoundError reports a file that a run does not have; it is an fs.ErrNotExist.
type NotFoundError struct{ RunID, Path string }

// Error implements error.
func (e *NotFoundError) Error() string { return fmt.Sprintf("run %s has no file %q", e.RunID, e.Path) }

// Is reports whether target is fs.ErrNotExist.
func (*NotFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// Quota is one of the limits of a workspace.
type Quota string

// The quotas.
const (
	QuotaFiles     Quota = "files"
	QuotaFileBytes Quota = "bytes of one file"
	QuotaBytes     Quota = "bytes of all files"
)

// QuotaError refuses a file for which a workspace has no room.
type QuotaError struct {
	Quota Quota
	// Path is the file that was refused.
	Path string
	// Size is what there would be, Limit what there may be.
	Size, Limit int64
}

// Error implements error.
func (e *QuotaError) Error() string {
	return fmt.Sprintf("%q does not fit into the workspace: %s would be %d, the limit is %d", e.Path, e.Quota, e.Size, e.Limit)
}

// Refused is something that was found in a workspace, or left there by a
// command, and was not taken: the reason completes the sentence that the path begins.
type Refused struct{ Path, Reason string }

// String is the sentence.
func (r Refused) String() string { return fmt.Sprintf("%q %s", r.Path, r.Reason) }
