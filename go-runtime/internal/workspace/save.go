package workspace

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// slack is how much more than twice what is needed the packs of a run may take
// before a save writes everything anew.
const slack = 1 << 20

// Save keeps the files as they are; when it returns they are durable. Contents
// that were saved before are not written again. Errors: ErrSuperseded,
// ErrClosed, the journal's: with journal.ErrNoSpace what was saved before stays.
func (w *Workspace) Save(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.root == nil {
		return fmt.Errorf("save the files of %s: %w", w.at, ErrClosed)
	}
	if !w.changed {
		return nil
	}
	if err := w.save(ctx); err != nil {
		return fmt.Errorf("save the files of %s: %w", w.at, err)
	}
	w.changed = false
	return nil
}

func (w *Workspace) save(ctx context.Context) error {
	if w.saved.seq == 0 {
		// An empty root goes before the first pack: what is left of a save that
		// does not end is found by it.
		if err := w.appendRoot(ctx, root{Index: content{Sum: emptySum}}); err != nil {
			return err
		}
	}
	anew := w.saved.Packed > 2*w.distinct()+slack
	known := w.contents
	if anew {
		known = map[string]content{}
	}
	p := &packer{stream: w.store.stream, subject: w.at.subject(packPrefix), limit: w.store.cfg.PackBytes}
	next, files, err := w.pack(ctx, p, known)
	if err != nil {
		return err
	}
	if next.FirstPack, next.Packed = w.saved.FirstPack, w.saved.Packed+p.written; anew || next.FirstPack == 0 {
		next.FirstPack, next.Packed = p.first, p.written
	}
	if err := w.appendRoot(ctx, next); err != nil {
		return err
	}
	w.contents = map[string]content{}
	for _, file := range files {
		w.contents[file.Sum] = file.content
	}
	if anew {
		return w.drop(ctx)
	}
	return nil
}

// distinct is how many bytes the files have, the same content counted once.
func (w *Workspace) distinct() (bytes int64) {
	seen := map[string]bool{}
	for _, file := range w.files {
		if !seen[file.SHA256] {
			seen[file.SHA256] = true
			bytes += file.Size
		}
	}
	return bytes
}

// emptySum is the SHA-256 of nothing.
const emptySum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// pack appends the contents that are not known, and the list of the files.
func (w *Workspace) pack(ctx context.Context, p *packer, known map[string]content) (next root, files []savedFile, err error) {
	packed := map[string]*content{}
	list := w.sorted()
	for _, file := range list {
		if _, found := known[file.SHA256]; found || packed[file.SHA256] != nil {
			continue
		}
		if packed[file.SHA256], err = w.packFile(ctx, p, file); err != nil {
			return root{}, nil, err
		}
	}
	if err := p.flush(ctx); err != nil {
		return root{}, nil, err
	}
	for _, file := range list {
		c, found := known[file.SHA256]
		if !found {
			c = *packed[file.SHA256]
		}
		files = append(files, savedFile{c, file.Path, file.Executable})
	}
	text, err := json.Marshal(files)
	if err != nil {
		return root{}, nil, err
	}
	index, err := p.add(ctx, bytes.NewReader(text))
	if err == nil {
		err = p.flush(ctx)
	}
	if err != nil {
		return root{}, nil, err
	}
	return root{Index: *index}, files, nil
}

func (w *Workspace) packFile(ctx context.Context, p *packer, file File) (_ *content, err error) {
	f, err := w.openFile(file.Path)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", file.Path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	c, err := p.add(ctx, f)
	if err == nil && c.Sum != file.SHA256 {
		err = fmt.Errorf("%q was changed past the workspace", file.Path)
	}
	return c, err
}

// appendRoot makes a save count, and returns when it is durable.
func (w *Workspace) appendRoot(ctx context.Context, next root) error {
	stream, subject := w.store.stream, w.at.subject(rootPrefix)
	next.ID = uuid.NewString()
	data, err := json.Marshal(next)
	if err != nil {
		return err
	}
	expected := w.saved.seq
	seq, err := stream.Append(ctx, journal.Message{Subject: subject, Data: data, Expect: &expected, Purpose: journal.Finish})
	if errors.Is(err, journal.ErrConflict) && w.saving != "" {
		// The one before may have been kept although its answer was lost.
		latest, found, readErr := w.store.readRoot(ctx, w.at)
		if readErr != nil {
			return readErr
		}
		if found && latest.ID == w.saving {
			expected = latest.seq
			seq, err = stream.Append(ctx, journal.Message{Subject: subject, Data: data, Expect: &expected, Purpose: journal.Finish})
		}
	}
	switch {
	case errors.Is(err, journal.ErrConflict):
		return fmt.Errorf("%w: %w", ErrSuperseded, err)
	case errors.Is(err, journal.ErrNoSpace), errors.Is(err, journal.ErrTooLarge):
		return err
	case err != nil:
		w.saving = next.ID
		return err
	}
	if err := stream.Commit(ctx, seq); err != nil {
		w.saving = next.ID
		return err
	}
	next.seq = seq
	w.saved, w.saving = next, ""
	return nil
}

// drop removes what older saves alone needed. A reader of such a save finds
// that out and reads the latest.
func (w *Workspace) drop(ctx context.Context) error {
	for prefix, seq := range map[string]uint64{packPrefix: w.saved.FirstPack, rootPrefix: w.saved.seq} {
		if err := w.store.stream.PurgeBefore(ctx, w.at.subject(prefix), seq); err != nil {
			return err
		}
	}
	return nil
}

// Restore throws away what was not saved. Errors: ErrDamaged, ErrClosed, the
// journal's, the disk's; then the workspace may have lost files.
func (w *Workspace) Restore(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.root == nil {
		return fmt.Errorf("restore the files of %s: %w", w.at, ErrClosed)
	}
	if err := w.restore(ctx); err != nil {
		return fmt.Errorf("restore the files of %s: %w", w.at, err)
	}
	return nil
}

// restore makes the folder what was saved last. The lock is held.
func (w *Workspace) restore(ctx context.Context) error {
	for _, folder := range []string{filesFolder, incomingFolder} {
		if err := errors.Join(w.root.RemoveAll(folder), w.root.Mkdir(folder, 0o700)); err != nil {
			return err
		}
	}
	w.files, w.bytes, w.names = map[string]File{}, 0, nil
	w.contents, w.saving = map[string]content{}, ""
	latest, found, err := w.store.readRoot(ctx, w.at)
	if err != nil {
		return err
	}
	if w.saved = latest; !found {
		return nil
	}
	from := w.store.unpacker(w.at)
	files, err := from.readIndex(ctx, latest)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := CheckPath(file.Path); err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		arrived, err := w.receive(w.root, from.open(ctx, file.content), file.plain().mode())
		if err == nil {
			err = w.place(file.plain(), arrived)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", file.Path, err)
		}
		w.contents[file.Sum] = file.content
	}
	w.changed = false
	return nil
}

// plain is the file as others see it.
func (f savedFile) plain() File { return File{f.Path, f.Size, f.Sum, f.Executable} }

func (s *Store) unpacker(at place) *unpacker {
	return &unpacker{stream: s.stream, subject: at.subject(packPrefix)}
}
