//go:build !linux

package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sync makes everything written to the store durable, file by file: the
// newest blocks, which have the records since the last sync, the high-water
// marks, and the folders that new files are in.
func (e *embedded) sync() error {
	root := filepath.Dir(e.folder.Name())
	newest := map[string]string{} // folder: its newest block
	var paths []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // the server removed it meanwhile
		case err != nil:
			return err
		case entry.IsDir(), filepath.Base(filepath.Dir(path)) == markFolder:
			paths = append(paths, path)
		case strings.HasSuffix(path, blockSuffix):
			if folder := filepath.Dir(path); len(path) > len(newest[folder]) || path > newest[folder] {
				newest[folder] = path
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("sync the store: %w", err)
	}
	for _, path := range newest {
		paths = append(paths, path)
	}
	for _, path := range paths {
		if err := syncPath(path); err != nil {
			return fmt.Errorf("sync the store: %w", err)
		}
	}
	return nil
}

func syncPath(path string) (err error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return file.Sync()
}
