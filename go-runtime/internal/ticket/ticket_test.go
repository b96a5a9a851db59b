package ticket

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a wall clock that a test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// open starts an office on a journal in dir, and returns what stops both.
func open(t *testing.T, dir string, c *clock) (*Office, func()) {
	t.Helper()
	ctx, log := testContext(t), slog.New(slog.DiscardHandler)
	j, err := journal.New(journal.Config{DataDir: dir, Durability: "os"}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Start(ctx); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		if err := j.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	o := New(j, c.now, log)
	if err := o.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return o, stop
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func newClock() *clock { return &clock{at: time.Date(2030, 1, 2, 3, 4, 5, 600, time.UTC)} }

func sample(c *clock) Ticket {
	return Ticket{Namespace: "n", RunID: "run", Principal: "user é", Least: "debug", Expires: c.now().Add(time.Hour)}
}

func mint(t *testing.T, o *Office, given Ticket) string {
	t.Helper()
	text, _, err := o.Mint(testContext(t), given)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestATicketSaysWhatItWasMadeFor(t *testing.T) {
	t.Parallel()
	c := newClock()
	o, _ := open(t, t.TempDir(), c)
	given := sample(c)
	text, expires, err := o.Mint(testContext(t), given)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		t.Errorf("%q needs escapes in an address", text)
	}
	got, err := o.Verify(testContext(t), text)
	if err != nil {
		t.Fatal(err)
	}
	given.Expires = given.Expires.Truncate(time.Second)
	if !got.Expires.Equal(given.Expires) || !expires.Equal(given.Expires) {
		t.Errorf("expires %s and %s, want %s", expires, got.Expires, given.Expires)
	}
	if got.Expires = given.Expires; got != given {
		t.Errorf("ticket = %+v, want %+v", got, given)
	}

	c.move(time.Hour)
	if _, err := o.Verify(testContext(t), text); !errors.Is(err, ErrExpired) {
		t.Errorf("an hour later: %v", err)
	}
}

func TestAnAlteredTicketIsInvalid(t *testing.T) {
	t.Parallel()
	c := newClock()
	o, _ := open(t, t.TempDir(), c)
	text := mint(t, o, sample(c))
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		altered := bytes.Clone(data)
		altered[i] ^= 1
		if _, err := o.Verify(testContext(t), base64.RawURLEncoding.EncodeToString(altered)); !errors.Is(err, ErrInvalid) {
			t.Errorf("byte %d altered: %v", i, err)
		}
	}
	for name, other := range map[string]string{
		"nothing": "", "cut": text[:len(text)-4], "longer": text + "AAAA", "padded": text + "=", "a break": text + "\n",
		"signature alone": text[len(text)-43:], "huge": strings.Repeat("A", 1<<20), "no base64": "%%%",
	} {
		if _, err := o.Verify(testContext(t), other); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnotherRuntimesTicketIsInvalid(t *testing.T) {
	t.Parallel()
	c := newClock()
	mine, _ := open(t, t.TempDir(), c)
	other, _ := open(t, t.TempDir(), c)
	mint(t, mine, sample(c))
	if _, err := mine.Verify(testContext(t), mint(t, other, sample(c))); !errors.Is(err, ErrInvalid) {
		t.Errorf("err = %v", err)
	}
}

func TestTicketsOutliveARestart(t *testing.T) {
	t.Parallel()
	c, dir := newClock(), filepath.Join(t.TempDir(), "data")
	before, stop := open(t, dir, c)
	text := mint(t, before, sample(c))
	stop()
	after, _ := open(t, dir, c)
	if _, err := after.Verify(testContext(t), text); err != nil {
		t.Error(err)
	}
	mint(t, after, sample(c))
	if after.newest != 1 {
		t.Errorf("the restart made key %d", after.newest)
	}
}

func TestKeysRotate(t *testing.T) {
	t.Parallel()
	c := newClock()
	o, _ := open(t, t.TempDir(), c)
	long := sample(c)
	long.Expires = c.now().Add(10 * MaxLife)
	mint(t, o, long)
	c.move(RotateEvery - time.Second)
	long.Expires = c.now().Add(10 * MaxLife)
	text, expires, err := o.Mint(testContext(t), long)
	if err != nil {
		t.Fatal(err)
	}
	if life := expires.Sub(c.now()); o.newest != 1 || life > MaxLife || life < MaxLife-time.Second {
		t.Errorf("key %d, life %s; want the first key and at most %s", o.newest, life, MaxLife)
	}
	c.move(time.Second)
	mint(t, o, sample(c))
	if o.newest != 2 {
		t.Errorf("key %d signs after %s", o.newest, RotateEvery)
	}
	c.move(expires.Sub(c.now()) - time.Second)
	if _, err := o.Verify(testContext(t), text); err != nil {
		t.Errorf("a ticket of the old key, in its last second: %v", err)
	}

	// A key whose tickets are all over signs nothing any more, whatever they say.
	first := o.keys[1]
	c.move(48 * time.Hour)
	forged := sample(c).encode(first)
	if _, err := o.Verify(testContext(t), forged); !errors.Is(err, ErrInvalid) {
		t.Errorf("a new ticket by a key that is over: %v", err)
	}
	c.move(RotateEvery)
	mint(t, o, sample(c))
	if _, kept := o.keys[1]; kept || o.newest != 3 {
		t.Errorf("keys = %d, newest %d; want the first one gone", len(o.keys), o.newest)
	}
}

func TestRuntimesThatShareAJournalShareKeys(t *testing.T) {
	t.Parallel()
	c := newClock()
	first, _ := open(t, t.TempDir(), c)
	second := New(nil, c.now, slog.New(slog.DiscardHandler))
	second.stream = first.stream
	third := New(nil, c.now, slog.New(slog.DiscardHandler))
	third.stream = first.stream

	text := mint(t, first, sample(c))
	if _, err := second.Verify(testContext(t), text); err != nil {
		t.Errorf("a key made elsewhere: %v", err)
	}
	// The third knows of no key, finds the number taken, and uses what is there.
	if _, err := first.Verify(testContext(t), mint(t, third, sample(c))); err != nil {
		t.Errorf("a key made at the same time: %v", err)
	}
	if third.newest != 1 {
		t.Errorf("newest = %d", third.newest)
	}
}

func TestManyMintAtOnceWithOneKey(t *testing.T) {
	t.Parallel()
	c := newClock()
	o, _ := open(t, t.TempDir(), c)
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			text, _, err := o.Mint(context.Background(), sample(c))
			if err == nil {
				_, err = o.Verify(context.Background(), text)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if o.newest != 1 {
		t.Errorf("%d keys were made", o.newest)
	}
}

func FuzzParse(f *testing.F) {
	c := newClock()
	k := key{ID: 300, Bytes: make([]byte, 32)}
	f.Add(sample(c).encode(k))
	f.Add(Ticket{}.encode(k))
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, text string) {
		p, ok := parse(text)
		if !ok {
			return
		}
		if strict().EncodeToString(append(bytes.Clone(p.body), p.signature...)) != text {
			t.Errorf("%q has a second spelling", text)
		}
	})
}
