package ticket

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

const (
	// RotateEvery is how old the newest key gets before there is another.
	RotateEvery = 30 * 24 * time.Hour
	// keyLife is how long a key is kept: until the last ticket it signed is over,
	// and a day for clocks that disagree.
	keyLife = RotateEvery + MaxLife + 24*time.Hour
	// keyTries is how often a key is made that others make at the same time.
	keyTries = 5

	streamName    = "KEYS"
	subjectRoot   = "key."
	subjectPrefix = subjectRoot + "ticket."
)

// Office makes tickets and checks them. Its methods are safe for concurrent use
// once Start returned.
type Office struct {
	journal *journal.Journal
	now     func() time.Time
	log     *slog.Logger
	stream  *journal.Stream

	// rotating is held while a key is made.
	rotating sync.Mutex

	mu   sync.RWMutex
	keys map[uint64]key
	// newest is the highest number of a key that was ever seen.
	newest uint64
}

// key signs tickets.
type key struct {
	ID      uint64    `json:"id"`
	Bytes   []byte    `json:"bytes"`
	Created time.Time `json:"created"`
}

// New returns an office in the journal, which must be started before the office.
// now is the wall clock; nil: time.Now.
func New(j *journal.Journal, now func() time.Time, log *slog.Logger) *Office {
	if now == nil {
		now = time.Now
	}
	return &Office{journal: j, now: now, log: log, keys: map[uint64]key{}}
}

// Start reads the keys, and returns when tickets can be made and checked.
func (o *Office) Start(ctx context.Context) error {
	stream, err := o.journal.OpenStream(ctx, journal.StreamConfig{
		Name: streamName, Subjects: []string{subjectRoot + ">"}, LastPerSubject: true,
	})
	if err != nil {
		return fmt.Errorf("start ticket: %w", err)
	}
	o.stream = stream
	if err := o.readKeys(ctx); err != nil {
		return fmt.Errorf("start ticket: %w", err)
	}
	return nil
}

// Stop is safe twice and before Start. The office does nothing in the background.
func (o *Office) Stop(context.Context) error { return nil }

// Mint returns the text of a ticket that expires within MaxLife, and when it does.
// Errors: the journal's, when a key has to be made.
func (o *Office) Mint(ctx context.Context, t Ticket) (string, time.Time, error) {
	k, err := o.signingKey(ctx)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("make a ticket for run %s: %w", t.RunID, err)
	}
	if latest := o.now().Add(MaxLife); t.Expires.After(latest) {
		t.Expires = latest
	}
	t.Expires = time.Unix(t.Expires.Unix(), 0)
	return t.encode(k), t.Expires, nil
}

// Verify returns the ticket whose text is given. Errors: ErrInvalid, ErrExpired,
// the journal's.
func (o *Office) Verify(ctx context.Context, text string) (Ticket, error) {
	p, ok := parse(text)
	if !ok {
		return Ticket{}, ErrInvalid
	}
	k, err := o.key(ctx, p.keyID)
	if err != nil {
		return Ticket{}, err
	}
	if !hmac.Equal(k.sign(p.body), p.signature) {
		return Ticket{}, ErrInvalid
	}
	if !o.now().Before(p.ticket.Expires) {
		return Ticket{}, ErrExpired
	}
	return p.ticket, nil
}

// key returns the key with a number; ErrInvalid when there is none.
func (o *Office) key(ctx context.Context, id uint64) (key, error) {
	k, found, next := o.known(id)
	if !found && id == next {
		// Another runtime may have made it since. One number is looked up and no
		// other, so that made-up tickets are refused without asking the journal.
		rec, err := o.stream.Last(ctx, subject(id))
		switch {
		case errors.Is(err, journal.ErrNotFound):
		case err != nil:
			return key{}, fmt.Errorf("look up key %d of a ticket: %w", id, err)
		default:
			o.keep(rec)
			k, found, _ = o.known(id)
		}
	}
	if !found || o.now().Sub(k.Created) >= keyLife {
		return key{}, ErrInvalid
	}
	return k, nil
}

// known returns the key with a number, if it was read, and the number that the
// next key will have.
func (o *Office) known(id uint64) (k key, found bool, next uint64) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	k, found = o.keys[id]
	return k, found, o.newest + 1
}

// newestKey returns the key that signs; false when there is none that is young enough.
func (o *Office) newestKey() (key, bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	k, found := o.keys[o.newest]
	return k, found && o.now().Sub(k.Created) < RotateEvery
}

// signingKey returns the key that signs, and makes one when it is time to.
func (o *Office) signingKey(ctx context.Context) (key, error) {
	if k, found := o.newestKey(); found {
		return k, nil
	}
	o.rotating.Lock()
	defer o.rotating.Unlock()
	for range keyTries {
		if k, found := o.newestKey(); found {
			return k, nil
		}
		err := o.addKey(ctx)
		if errors.Is(err, journal.ErrConflict) {
			// Another runtime was first, or the answer of an earlier try was lost.
			err = o.readKeys(ctx)
		}
		if err != nil {
			return key{}, err
		}
	}
	return key{}, fmt.Errorf("%w: the key that signs tickets cannot be made", journal.ErrUnavailable)
}

// addKey makes the next key and keeps it; journal.ErrConflict when there is one.
func (o *Office) addKey(ctx context.Context) error {
	_, _, next := o.known(0)
	random := make([]byte, sha256.Size)
	_, _ = rand.Read(random) // it never fails
	k := key{ID: next, Bytes: random, Created: o.now().UTC()}
	data, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("encode key %d: %w", k.ID, err)
	}
	var none uint64
	seq, err := o.stream.Append(ctx, journal.Message{
		Subject: subject(k.ID), Data: data, Expect: &none, TTL: keyLife, Purpose: journal.Finish,
	})
	if err != nil {
		return fmt.Errorf("keep key %d: %w", k.ID, err)
	}
	if err := o.stream.Commit(ctx, seq); err != nil {
		return fmt.Errorf("keep key %d: %w", k.ID, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keys[k.ID], o.newest = k, max(o.newest, k.ID)
	for id, old := range o.keys {
		if o.now().Sub(old.Created) >= keyLife {
			delete(o.keys, id)
		}
	}
	o.log.Info("key of stream tickets made", "key", k.ID)
	return nil
}

// readKeys takes in every key of the journal.
func (o *Office) readKeys(ctx context.Context) error {
	_, err := o.stream.Scan(ctx, 0, true, []string{subjectPrefix + ">"}, func(rec journal.Record) error {
		o.keep(rec)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	return nil
}

// keep takes in a record of the journal. One that cannot be read, or that has
// expired, still counts: its number is not given again.
func (o *Office) keep(rec journal.Record) {
	number, _ := strings.CutPrefix(rec.Subject, subjectPrefix)
	id, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		o.log.Error("key of stream tickets unreadable", "subject", rec.Subject, "err", err)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.newest = max(o.newest, id)
	if rec.Expired {
		return
	}
	var k key
	if err := json.Unmarshal(rec.Data, &k); err != nil || k.ID != id || len(k.Bytes) < sha256.Size {
		o.log.Error("key of stream tickets unreadable", "subject", rec.Subject, "sequence", rec.Sequence)
		return
	}
	o.keys[id] = k
}

func subject(id uint64) string { return subjectPrefix + strconv.FormatUint(id, 10) }
