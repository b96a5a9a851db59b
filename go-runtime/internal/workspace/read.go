package workspace

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Files returns what was saved last of a run, sorted by path; none when nothing
// was. Errors: *violation.Error, ErrDamaged, the journal's.
func (s *Store) Files(ctx context.Context, namespace, runID string) ([]File, error) {
	at, err := newPlace(namespace, runID)
	if err != nil {
		return nil, err
	}
	saved, _, err := s.latest(ctx, at)
	if err != nil {
		return nil, fmt.Errorf("list the files of %s: %w", at, err)
	}
	files := make([]File, len(saved))
	for i, file := range saved {
		files[i] = file.plain()
	}
	return files, nil
}

// Get returns a file that was saved last of a run, and its content, which is
// read as far as the reader is. The reader ends with ErrDamaged when it is not
// what was saved. Errors: *NotFoundError, and those of Files.
func (s *Store) Get(ctx context.Context, namespace, runID, name string) (File, io.Reader, error) {
	at, err := newPlace(namespace, runID)
	if err == nil {
		err = CheckPath(name)
	}
	if err != nil {
		return File{}, nil, err
	}
	saved, from, err := s.latest(ctx, at)
	if err != nil {
		return File{}, nil, fmt.Errorf("read %q of %s: %w", name, at, err)
	}
	i, found := slices.BinarySearchFunc(saved, name, func(f savedFile, path string) int { return strings.Compare(f.Path, path) })
	if !found {
		return File{}, nil, &NotFoundError{runID, name}
	}
	return saved[i].plain(), from.open(ctx, saved[i].content), nil
}

// Archive writes what was saved last of a run as a zip. Nothing was written when
// the error is one of Files; a later one leaves a zip that no program opens.
func (s *Store) Archive(ctx context.Context, namespace, runID string, to io.Writer) error {
	at, err := newPlace(namespace, runID)
	if err != nil {
		return err
	}
	saved, from, err := s.latest(ctx, at)
	if err != nil {
		return fmt.Errorf("read the files of %s: %w", at, err)
	}
	archive := zip.NewWriter(to)
	for _, file := range saved {
		header := &zip.FileHeader{Name: file.Path, Method: zip.Deflate}
		header.SetMode(0o644)
		if file.Executable {
			header.SetMode(0o755)
		}
		into, err := archive.CreateHeader(header)
		if err == nil {
			_, err = io.Copy(into, from.open(ctx, file.content))
		}
		if err != nil {
			return fmt.Errorf("read the files of %s: %q: %w", at, file.Path, err)
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("write the archive of %s: %w", at, err)
	}
	return nil
}

// latest returns the files of the latest save. While they are read, a newer
// save may remove what they need; then that one is read.
func (s *Store) latest(ctx context.Context, at place) ([]savedFile, *unpacker, error) {
	var before uint64
	for {
		latest, found, err := s.readRoot(ctx, at)
		if err != nil || !found {
			return nil, s.unpacker(at), err
		}
		from := s.unpacker(at)
		files, err := from.readIndex(ctx, latest)
		if !errors.Is(err, ErrDamaged) || latest.seq == before {
			return files, from, err
		}
		before = latest.seq
	}
}
