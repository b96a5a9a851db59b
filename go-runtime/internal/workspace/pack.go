package workspace

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// extent is a part of a content: the sequence of the pack that it is in, where
// it begins there, and its length.
type extent [3]uint64

// content is where a content is, and what it is.
type content struct {
	Sum     string   `json:"sha256"`
	Size    int64    `json:"size"`
	Extents []extent `json:"at,omitempty"`
}

// packer appends contents, as many to a record as fit.
type packer struct {
	stream  *journal.Stream
	subject string
	limit   int

	buffer []byte
	// parts are what the buffer has, pieces of which the sequence is not known yet.
	parts []part
	// first is the sequence of the first pack; 0: none was appended. written is
	// how many bytes were.
	first   uint64
	written int64
}

type part struct {
	of *content
	at int // in its extents
}

// add takes in a content, up to the end of r. Its extents are complete after flush.
func (p *packer) add(ctx context.Context, r io.Reader) (*content, error) {
	c, sum := &content{}, sha256.New()
	for {
		if len(p.buffer) == p.limit {
			if err := p.flush(ctx); err != nil {
				return nil, err
			}
		}
		if p.buffer == nil {
			p.buffer = make([]byte, 0, p.limit)
		}
		begin := len(p.buffer)
		n, err := io.ReadFull(r, p.buffer[begin:p.limit])
		if n > 0 {
			p.buffer = p.buffer[:begin+n]
			_, _ = sum.Write(p.buffer[begin:]) // it never fails
			p.parts = append(p.parts, part{c, len(c.Extents)})
			c.Extents = append(c.Extents, extent{0, uint64(begin), uint64(n)})
			c.Size += int64(n)
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			c.Sum = hex.EncodeToString(sum.Sum(nil))
			return c, nil
		default:
			return nil, fmt.Errorf("read what is to be saved: %w", err)
		}
	}
}

// flush appends what is in the buffer.
func (p *packer) flush(ctx context.Context) error {
	if len(p.buffer) == 0 {
		return nil
	}
	seq, err := p.stream.Append(ctx, journal.Message{Subject: p.subject, Data: p.buffer})
	if err != nil {
		return err
	}
	for _, part := range p.parts {
		part.of.Extents[part.at][0] = seq
	}
	if p.first == 0 {
		p.first = seq
	}
	p.written += int64(len(p.buffer))
	p.buffer, p.parts = p.buffer[:0], p.parts[:0]
	return nil
}

// unpacker reads contents. It keeps the pack that it read last, where as a rule
// the next content is too. It is for one goroutine.
type unpacker struct {
	stream  *journal.Stream
	subject string
	seq     uint64
	data    []byte
}

// read returns one extent of a content; ErrDamaged when it is gone.
func (u *unpacker) read(ctx context.Context, e extent) ([]byte, error) {
	if u.seq != e[0] || u.data == nil {
		rec, err := u.stream.Get(ctx, e[0])
		if errors.Is(err, journal.ErrNotFound) || err == nil && rec.Subject != u.subject {
			return nil, fmt.Errorf("%w: record %d is gone", ErrDamaged, e[0])
		}
		if err != nil {
			return nil, err
		}
		u.seq, u.data = e[0], rec.Data
	}
	size := uint64(len(u.data))
	if e[1] > size || e[2] > size-e[1] {
		return nil, fmt.Errorf("%w: record %d is too short", ErrDamaged, e[0])
	}
	return u.data[e[1] : e[1]+e[2]], nil
}

// open returns a content's bytes. The reader's end is an ErrDamaged when they
// are not what was saved.
func (u *unpacker) open(ctx context.Context, c content) io.Reader {
	return &contentReader{ctx: ctx, from: u, content: c, sum: sha256.New()}
}

type contentReader struct {
	ctx     context.Context //nolint:containedctx // io.Reader takes none; it lives as long as the call
	from    *unpacker
	content content
	next    int // of its extents
	rest    []byte
	sum     hash.Hash
}

// Read implements io.Reader.
func (r *contentReader) Read(into []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.next == len(r.content.Extents) {
			if hex.EncodeToString(r.sum.Sum(nil)) != r.content.Sum {
				return 0, fmt.Errorf("%w: a file has another content", ErrDamaged)
			}
			return 0, io.EOF
		}
		data, err := r.from.read(r.ctx, r.content.Extents[r.next])
		if err != nil {
			return 0, err
		}
		r.next++
		r.rest = data
		_, _ = r.sum.Write(data) // it never fails
	}
	n := copy(into, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// root is the record of one save.
type root struct {
	// ID tells saves apart.
	ID string `json:"id"`
	// Index is where the list of the files is: a JSON list of savedFile.
	Index content `json:"index"`
	// FirstPack is the sequence of the oldest pack that is needed; Packed is how
	// many bytes there are from there on, of older saves too.
	FirstPack uint64 `json:"first_pack"`
	Packed    int64  `json:"packed"`

	// seq is the record's own.
	seq uint64
}

// savedFile is a file of a save.
type savedFile struct {
	content

	Path       string `json:"path"`
	Executable bool   `json:"executable,omitempty"`
}

// readRoot returns the latest save of a run; found is false when there is none.
func (s *Store) readRoot(ctx context.Context, at place) (latest root, found bool, err error) {
	rec, err := s.stream.Last(ctx, at.subject(rootPrefix))
	if errors.Is(err, journal.ErrNotFound) {
		return root{}, false, nil
	}
	if err != nil {
		return root{}, false, fmt.Errorf("read what was saved of %s: %w", at, err)
	}
	if err := json.Unmarshal(rec.Data, &latest); err != nil {
		return root{}, false, fmt.Errorf("%w: record %d: %w", ErrDamaged, rec.Sequence, err)
	}
	latest.seq = rec.Sequence
	return latest, true, nil
}

// readIndex returns the files of a save, sorted by path.
func (u *unpacker) readIndex(ctx context.Context, r root) ([]savedFile, error) {
	var text bytes.Buffer
	if _, err := text.ReadFrom(u.open(ctx, r.Index)); err != nil {
		return nil, err
	}
	if text.Len() == 0 {
		return nil, nil
	}
	var files []savedFile
	if err := json.Unmarshal(text.Bytes(), &files); err != nil {
		return nil, fmt.Errorf("%w: the list of files: %w", ErrDamaged, err)
	}
	return files, nil
}
