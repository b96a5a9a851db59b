//go:build !linux

package journal

import (
	"fmt"
	"os"
)

// identify returns a file's size; what tells it from another file that was put
// in its place is not looked up here.
func identify(path string) (size int64, identity string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, "", fmt.Errorf("look up %s: %w", path, err)
	}
	return info.Size(), "", nil
}
