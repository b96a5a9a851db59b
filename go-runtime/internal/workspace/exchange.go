package workspace

import (
	"archive/tar"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Send writes the files as a tar archive, for a command that works on a copy of
// them. back takes an archive of the copy as the command left it, once: what
// changed there is changed here and what is missing there is removed, unless it
// was changed here meanwhile. What is no plain file, has no portable path or is
// beyond the quotas is left out; back names it. An archive that breaks off
// changes nothing. Errors: ErrClosed, the disk's, the writer's and the reader's.
func (w *Workspace) Send(to io.Writer) (back func(io.Reader) (refused []string, err error), err error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.root == nil {
		return nil, fmt.Errorf("send the files of %s: %w", w.at, ErrClosed)
	}
	archive := tar.NewWriter(to)
	sent := make(map[string]File, len(w.files))
	for _, file := range w.sorted() {
		if err := w.sendFile(archive, file); err != nil {
			return nil, fmt.Errorf("send %q of %s: %w", file.Path, w.at, err)
		}
		sent[file.Path] = file
	}
	if err := archive.Close(); err != nil {
		return nil, fmt.Errorf("send the files of %s: %w", w.at, err)
	}
	r := &returning{w: w, root: w.root, sent: sent, back: map[string]returned{}}
	return r.take, nil
}

func (w *Workspace) sendFile(archive *tar.Writer, file File) (err error) {
	f, err := w.openFile(file.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	header := &tar.Header{
		Typeflag: tar.TypeReg, Name: file.Path, Size: file.Size, Mode: int64(file.mode()),
		ModTime: time.Unix(0, 0), Format: tar.FormatPAX,
	}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	// A file that was cut short past the workspace is an error of the archive.
	_, err = io.Copy(archive, io.LimitReader(f, file.Size))
	return err
}

// mode is what the file has in the folder.
func (f File) mode() os.FileMode {
	if f.Executable {
		return 0o700
	}
	return 0o600
}

// returning takes back what a command left.
type returning struct {
	w    *Workspace
	root *os.Root
	sent map[string]File
	// back is what is there now, by path.
	back    map[string]returned
	bytes   int64 // of what is in the folder of what arrived
	refused []string
}

// returned is a plain file that came back.
type returned struct {
	file    File
	arrived string // empty: it is as it was sent
}

func (r *returning) take(from io.Reader) (refused []string, err error) {
	defer func() {
		for _, b := range r.back {
			if b.arrived != "" {
				_ = r.root.Remove(b.arrived) // as a rule it is in its place by now
			}
		}
	}()
	archive := tar.NewReader(from)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = r.entry(header, archive)
		}
		if err != nil {
			return nil, fmt.Errorf("take back the files of %s: %w", r.w.at, err)
		}
	}
	if err := r.apply(); err != nil {
		return nil, fmt.Errorf("take back the files of %s: %w", r.w.at, err)
	}
	return r.refused, nil
}

// maxRefused is how many refusals are named, one by one.
const maxRefused = 100

func (r *returning) refuse(name, reason string) {
	switch len(r.refused) {
	case maxRefused:
		r.refused = append(r.refused, "and more")
	case maxRefused + 1:
	default:
		r.refused = append(r.refused, Refused{violation.Clip(name, shownPath), reason}.String())
	}
}

// entry takes in one entry of the archive, but does not put it in place yet.
func (r *returning) entry(header *tar.Header, content io.Reader) error {
	cfg := &r.w.store.cfg
	var reason string
	switch header.Typeflag {
	case tar.TypeReg:
		reason = pathProblem(header.Name)
	case tar.TypeDir:
		return nil
	case tar.TypeSymlink, tar.TypeLink:
		reason = "is a link"
	case tar.TypeFifo:
		reason = "is a pipe or a socket"
	case tar.TypeChar, tar.TypeBlock:
		reason = "is a device"
	default:
		reason = "is no plain file"
	}
	switch {
	case reason != "":
	case header.Size > cfg.MaxFileBytes:
		reason = refusal(&QuotaError{QuotaFileBytes, header.Name, header.Size, cfg.MaxFileBytes})
	case r.bytes+header.Size > cfg.MaxBytes:
		reason = refusal(&QuotaError{QuotaBytes, header.Name, r.bytes + header.Size, cfg.MaxBytes})
	case len(r.back) > cfg.MaxFiles:
		reason = refusal(&QuotaError{QuotaFiles, header.Name, int64(len(r.back)) + 1, int64(cfg.MaxFiles)})
	case r.back[header.Name] != returned{}:
		reason = "is there twice"
	}
	if reason != "" {
		r.refuse(header.Name, reason)
		return nil
	}
	return r.receive(header, content)
}

func (r *returning) receive(header *tar.Header, content io.Reader) error {
	file := File{Path: header.Name, Size: header.Size, Executable: header.Mode&0o100 != 0}
	hashing := newSummed(content)
	arrived, err := r.w.receive(r.root, hashing, file.mode())
	if err != nil {
		return err
	}
	file.SHA256 = hashing.text()
	if r.sent[file.Path] == file {
		err, arrived = r.root.Remove(arrived), ""
	} else {
		r.bytes += file.Size
	}
	r.back[file.Path] = returned{file, arrived}
	return err
}

// apply makes the workspace what came back.
func (r *returning) apply() error {
	w := r.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.root != r.root {
		return ErrClosed
	}
	for name, before := range r.sent {
		if _, stays := r.back[name]; !stays && w.files[name] == before {
			if err := w.remove(name); err != nil {
				return err
			}
		}
	}
	names := make([]string, 0, len(r.back))
	for name, b := range r.back {
		if b.arrived != "" {
			names = append(names, name)
		}
	}
	// What makes room goes first.
	growth := func(name string) int64 { return r.back[name].file.Size - w.files[name].Size }
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(growth(a), growth(b)), cmp.Compare(a, b)) })
	for _, name := range names {
		b := r.back[name]
		if reason := refusal(w.admit(name, b.file.Size)); reason != "" {
			r.refuse(name, reason)
			continue
		}
		if err := w.place(b.file, b.arrived); err != nil {
			return err
		}
	}
	return nil
}
