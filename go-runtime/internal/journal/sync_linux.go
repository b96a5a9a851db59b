package journal

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// sync makes everything written to the store durable: the records and the
// directory entries of new files, in one call.
func (e *embedded) sync() error {
	if err := unix.Syncfs(int(e.folder.Fd())); err != nil {
		return fmt.Errorf("sync the store: %w", err)
	}
	return nil
}
