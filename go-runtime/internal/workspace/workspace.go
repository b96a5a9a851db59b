package workspace

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
)

// The folders of an open workspace.
const (
	filesFolder    = "files"
	incomingFolder = "incoming" // what is written and not yet in place
)

// File is one file of a workspace.
type File struct {
	// Path has slashes; see CheckPath.
	Path string
	// Size is in bytes.
	Size int64
	// SHA256 is that of the content, in hex.
	SHA256 string
	// Executable says that a command made the file one to execute.
	Executable bool
}

// Workspace is the folder of one run. Its methods are safe for concurrent use.
type Workspace struct {
	store *Store
	at    place
	dir   string
	// opened counts the Opens without a Close; the store's lock guards it.
	opened int

	mu sync.RWMutex
	// err is why the workspace could not be opened.
	err error
	// root is the folder of the workspace; nil when it is closed.
	root  *os.Root
	files map[string]File
	bytes int64
	// names is what the paths of files are; nil when it has to be made anew.
	names *spellings
	// arrived numbers what is written.
	arrived atomic.Uint64

	// saved is the latest save, and saving the id of one whose outcome is not
	// known; contents is what is in the packs, by its sum.
	saved    root
	saving   string
	contents map[string]content
	// changed says that the files may be others than those that were saved.
	changed bool
}

// begin makes the folder. The lock is held.
func (w *Workspace) begin(ctx context.Context) error {
	if err := os.RemoveAll(w.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return err
	}
	var err error
	if w.root, err = os.OpenRoot(w.dir); err != nil {
		return err
	}
	return w.restore(ctx)
}

// end removes the folder.
func (w *Workspace) end() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.root == nil {
		return nil
	}
	err := w.root.Close()
	w.root = nil
	return errors.Join(err, os.RemoveAll(w.dir))
}

// Close gives the workspace back; with the last Close of a run's the folder is
// removed, and with it what was not saved.
func (w *Workspace) Close() error { return w.store.release(w) }

// Dir is the folder of the files. Who writes there past the workspace calls
// Check afterwards.
func (w *Workspace) Dir() string { return filepath.Join(w.dir, filesFolder) }

// List returns the files, sorted by path.
func (w *Workspace) List() []File {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.sorted()
}

func (w *Workspace) sorted() []File {
	files := make([]File, 0, len(w.files))
	for _, name := range slices.Sorted(maps.Keys(w.files)) {
		files = append(files, w.files[name])
	}
	return files
}

// Read returns the content of a file.
// Errors: *NotFoundError, ErrClosed, the disk's.
func (w *Workspace) Read(name string) ([]byte, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.root == nil {
		return nil, w.failed("read", name, ErrClosed)
	}
	file, found := w.files[name]
	if !found {
		return nil, &NotFoundError{w.at.runID, name}
	}
	data, err := w.read(file)
	if err != nil {
		return nil, w.failed("read", name, err)
	}
	return data, nil
}

// read reads a file that is in the list. The lock is held.
func (w *Workspace) read(file File) (_ []byte, err error) {
	f, err := w.openFile(file.Path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var data bytes.Buffer
	data.Grow(int(file.Size) + bytes.MinRead)
	if _, err = data.ReadFrom(io.LimitReader(f, w.store.cfg.MaxFileBytes)); err != nil {
		return nil, err
	}
	return data.Bytes(), nil
}

// openFile opens a file for reading, if it is a plain one: what else stands
// there was not put by the workspace. The lock is held.
func (w *Workspace) openFile(name string) (*os.File, error) {
	full := path.Join(filesFolder, name)
	info, err := w.root.Lstat(full)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotPlain
	}
	return w.root.Open(full)
}

var errNotPlain = errors.New("it is no plain file any more")

// Write puts a file in place, the folders above it too. Errors:
// *violation.Error, *QuotaError, ErrClosed, the disk's; then nothing changed.
func (w *Workspace) Write(name string, data []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.root == nil {
		return w.failed("write", name, ErrClosed)
	}
	if err := w.admit(name, int64(len(data))); err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	file := File{name, int64(len(data)), hex.EncodeToString(sum[:]), w.files[name].Executable}
	arrived, err := w.receive(w.root, bytes.NewReader(data), file.mode())
	if err == nil {
		err = w.place(file, arrived)
	}
	if err != nil {
		return w.failed("write", name, err)
	}
	return nil
}

// Remove removes a file, and the folders above it that are empty then.
// Errors: *NotFoundError, ErrClosed, the disk's.
func (w *Workspace) Remove(name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.root == nil {
		return w.failed("remove", name, ErrClosed)
	}
	if _, found := w.files[name]; !found {
		return &NotFoundError{w.at.runID, name}
	}
	if err := w.remove(name); err != nil {
		return w.failed("remove", name, err)
	}
	return nil
}

func (w *Workspace) failed(what, name string, err error) error {
	return fmt.Errorf("%s %q in the workspace of %s: %w", what, name, w.at, err)
}

// admit refuses a file that does not fit. The lock is held.
func (w *Workspace) admit(name string, size int64) error {
	if err := CheckPath(name); err != nil {
		return err
	}
	before, found := w.files[name]
	cfg := &w.store.cfg
	switch {
	case size > cfg.MaxFileBytes:
		return &QuotaError{QuotaFileBytes, name, size, cfg.MaxFileBytes}
	case w.bytes-before.Size+size > cfg.MaxBytes:
		return &QuotaError{QuotaBytes, name, w.bytes - before.Size + size, cfg.MaxBytes}
	case found:
		return nil
	case len(w.files) >= cfg.MaxFiles:
		return &QuotaError{QuotaFiles, name, int64(len(w.files)) + 1, int64(cfg.MaxFiles)}
	}
	if w.names == nil {
		w.names = newSpellings(maps.Keys(w.files))
	}
	return w.names.check(name)
}

// receive writes a new file beside the others, and returns its path in the
// folder.
func (w *Workspace) receive(root *os.Root, from io.Reader, mode os.FileMode) (_ string, err error) {
	name := path.Join(incomingFolder, strconv.FormatUint(w.arrived.Add(1), 10))
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, root.Remove(name))
	}
	return name, nil
}

// place puts what receive returned where it belongs. The lock is held.
func (w *Workspace) place(file File, arrived string) error {
	full := path.Join(filesFolder, file.Path)
	err := w.root.MkdirAll(path.Dir(full), 0o700)
	if err == nil {
		err = w.root.Rename(arrived, full)
	}
	if err != nil {
		return errors.Join(err, w.root.Remove(arrived))
	}
	w.list(file)
	w.changed = true
	return nil
}

// list notes a file that is in its place. The lock is held.
func (w *Workspace) list(file File) {
	before, found := w.files[file.Path]
	if !found && w.names != nil {
		w.names.add(file.Path)
	}
	w.bytes += file.Size - before.Size
	w.files[file.Path] = file
}

// remove takes a file away that is in the list. The lock is held.
func (w *Workspace) remove(name string) error {
	if err := w.root.Remove(path.Join(filesFolder, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	w.bytes -= w.files[name].Size
	delete(w.files, name)
	w.names, w.changed = nil, true
	empty := true
	for folder := path.Dir(name); folder != "." && empty; folder = path.Dir(folder) {
		empty = w.root.Remove(path.Join(filesFolder, folder)) == nil
	}
	return nil
}
