package journal

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// newSync returns what makes everything written to the store durable: the
// records and the directory entries of new files, in one call.
func newSync(store *os.File) func() error {
	return func() error {
		if err := unix.Syncfs(int(store.Fd())); err != nil {
			return fmt.Errorf("sync the store: %w", err)
		}
		return nil
	}
}
