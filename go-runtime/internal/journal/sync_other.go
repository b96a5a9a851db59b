//go:build !linux

package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// newSync returns what makes everything written to the store durable, file by
// file. One goroutine at a time may call it.
func newSync(store *os.File) func() error {
	s := &fileSync{root: filepath.Dir(store.Name()), clean: make(map[string]fileState)}
	return s.run
}

// fileSync syncs the blocks and high-water marks that changed since it synced
// them last, and the folders that new files are in.
type fileSync struct {
	root  string
	clean map[string]fileState // by path, as it was before its last sync
}

// fileState differs after a write to the file.
type fileState struct {
	size     int64
	modified time.Time
}

func (s *fileSync) run() error {
	changed, err := s.changed()
	if err != nil {
		return fmt.Errorf("sync the store: %w", err)
	}
	for path, state := range changed {
		if err := syncPath(path); err != nil {
			return fmt.Errorf("sync the store: %w", err)
		}
		s.clean[path] = state
	}
	return nil
}

// changed looks through the store for what is to be synced.
func (s *fileSync) changed() (map[string]fileState, error) {
	present := make(map[string]fileState)
	err := filepath.WalkDir(s.root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && (entry.IsDir() || strings.HasSuffix(path, blockSuffix) || filepath.Base(filepath.Dir(path)) == markFolder) {
			var info fs.FileInfo
			if info, err = entry.Info(); err == nil {
				present[path] = fileState{size: info.Size(), modified: info.ModTime()}
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the server removed it meanwhile
		}
		return err
	})
	for path, state := range s.clean {
		now, ok := present[path]
		if !ok {
			delete(s.clean, path)
		} else if now == state {
			delete(present, path)
		}
	}
	return present, err
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
