package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// errBadNote reports a note whose checksum does not fit.
var errBadNote = errors.New("the file is damaged")

// A note is a small file beside the store: a line with the checksum of the
// JSON that follows it, so that people can read it and damage shows.

// readNote reads what writeNote wrote: os.ErrNotExist when there is none,
// errBadNote when it cannot be trusted.
func readNote(path string, into any) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	sum, text, _ := bytes.Cut(content, []byte("\n"))
	if string(sum) != noteChecksum(text) || json.Unmarshal(text, into) != nil {
		return fmt.Errorf("%s: %w", path, errBadNote)
	}
	return nil
}

// writeNote puts a note in the place of the one that was there; a crash leaves
// one of the two. It is on disk on return when durable is set, and with
// the next sync of the store otherwise.
func writeNote(path string, what any, durable bool) error {
	text, err := json.Marshal(what)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the folder of %s: %w", path, err)
	}
	content := append([]byte(noteChecksum(text)+"\n"), text...)
	fresh := path + ".new"
	if err := writeFile(fresh, content, durable); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	if durable {
		return syncFolder(filepath.Dir(path))
	}
	return nil
}

func noteChecksum(text []byte) string { return fmt.Sprintf("crc32c %08x", markChecksum(text)) }

// writeFile writes a whole file, and when durable is set has it on disk when
// it returns.
func writeFile(path string, content []byte, durable bool) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := file.Write(content); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if !durable {
		return nil
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// syncFolder makes the names in a folder durable.
func syncFolder(path string) (err error) {
	folder, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	if err := folder.Sync(); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}
