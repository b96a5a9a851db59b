package workspace

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"
)

// Check looks the folder through after somebody wrote there past the workspace:
// what is no plain file, has no portable path or is beyond the quotas is removed
// and named, the rest is taken in. Errors: ErrClosed, the disk's.
func (w *Workspace) Check() ([]Refused, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.root == nil {
		return nil, fmt.Errorf("check the workspace of %s: %w", w.at, ErrClosed)
	}
	w.files, w.bytes, w.names, w.changed = map[string]File{}, 0, nil, true
	c := &inspection{w: w}
	if err := c.folder(""); err != nil {
		return nil, fmt.Errorf("check the workspace of %s: %w", w.at, err)
	}
	return c.refused, nil
}

// inspection is one Check.
type inspection struct {
	w       *Workspace
	refused []Refused
}

// folder looks through a folder of the files, "" for all.
func (c *inspection) folder(name string) (err error) {
	f, err := c.w.root.Open(path.Join(filesFolder, name))
	if err != nil {
		return err
	}
	entries, err := f.ReadDir(-1)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	for _, entry := range entries {
		if err := c.entry(path.Join(name, entry.Name())); err != nil {
			return err
		}
	}
	if name != "" {
		_ = c.w.root.Remove(path.Join(filesFolder, name)) // if it is empty
	}
	return nil
}

func (c *inspection) entry(name string) error {
	full := path.Join(filesFolder, name)
	info, err := c.w.root.Lstat(full)
	if err != nil {
		return err
	}
	reason := unplain(info)
	if reason == "" && info.IsDir() {
		if reason = pathProblem(name); reason == "" {
			return c.folder(name)
		}
	}
	if reason == "" {
		if reason, err = c.take(name, info); err != nil {
			return err
		}
	}
	if reason == "" {
		return nil
	}
	c.refused = append(c.refused, Refused{name, reason})
	return c.w.root.RemoveAll(full)
}

// take takes in a plain file; the reason says why not.
func (c *inspection) take(name string, info os.FileInfo) (reason string, err error) {
	if reason := refusal(c.w.admit(name, info.Size())); reason != "" {
		return reason, nil
	}
	f, err := c.w.openFile(name)
	if err != nil {
		return "", err
	}
	content := newSummed(io.LimitReader(f, c.w.store.cfg.MaxFileBytes))
	size, err := io.Copy(io.Discard, content)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	c.w.list(File{name, size, content.text(), info.Mode()&0o100 != 0})
	return "", nil
}

// refusal completes the sentence that the path of a file begins which was not
// admitted, or is empty.
func refusal(err error) string {
	if err == nil {
		return ""
	}
	return "is left out: " + err.Error()
}

// unplain completes the sentence that a path begins of which the workspace
// keeps no copy; empty: it is a folder or a plain file.
func unplain(info os.FileInfo) string {
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		return "is a link"
	case mode&fs.ModeDevice != 0:
		return "is a device"
	case mode&fs.ModeSocket != 0:
		return "is a socket"
	case mode&fs.ModeNamedPipe != 0:
		return "is a pipe"
	case mode.IsDir():
		return ""
	case !mode.IsRegular():
		return "is no plain file"
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Nlink > 1 {
		return "has a second name, a hard link"
	}
	return ""
}

// summed reads what another reader has and knows the SHA-256 of it.
type summed struct {
	from io.Reader
	sum  hash.Hash
}

func newSummed(from io.Reader) *summed { return &summed{from, sha256.New()} }

// Read implements io.Reader.
func (s *summed) Read(into []byte) (int, error) {
	n, err := s.from.Read(into)
	_, _ = s.sum.Write(into[:n]) // it never fails
	return n, err
}

// text is the sum of what was read so far, in hex.
func (s *summed) text() string { return hex.EncodeToString(s.sum.Sum(nil)) }
