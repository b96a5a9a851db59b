package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

var errDone = errors.New("seen enough")

// Every backend keeps the same contract. The streams have a subtest's name,
// so that the subtests of a backend share it and run at once.
func TestConformance(t *testing.T) {
	t.Parallel()
	backends := map[string]func(t *testing.T) journal.Config{
		"embedded fsync": func(t *testing.T) journal.Config {
			t.Helper()
			return journal.Config{DataDir: t.TempDir()}
		},
		"embedded os": func(t *testing.T) journal.Config {
			t.Helper()
			return journal.Config{DataDir: t.TempDir(), Durability: journal.OS}
		},
		"cluster": func(t *testing.T) journal.Config {
			t.Helper()
			return journal.Config{NATSURL: startCluster(t).url()}
		},
	}
	contract := map[string]func(*testing.T, *journal.Journal){
		"Sequences":      testSequences,
		"CompareAndSet":  testCompareAndSet,
		"Racing":         testRacingCompareAndSet,
		"AppendEach":     testAppendEach,
		"Newest":         testLastIsNewest,
		"Dedupe":         testDedupe,
		"Headers":        testHeaders,
		"Atomic":         testAtomic,
		"AtomicIsolated": testAtomicIsContiguous,
		"Limits":         testLimits,
		"Expiry":         testExpiry,
		"Purge":          testPurge,
		"Scan":           testScan,
		"Follow":         testFollow,
		"FollowFilters":  testFollowMovesPosition,
		"FollowEvery":    testFollowEvery,
		"FollowSkips":    testFollowTellsSkipped,
		"FollowAlways":   testFollowTellsAmidSkipped,
		"Truncated":      testTruncated,
	}
	for name, config := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := start(t, config(t))
			for name, test := range contract {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					test(t, j)
				})
			}
		})
	}
}

// stream opens a stream for the test; subjects begin with its token.
func stream(t *testing.T, j *journal.Journal, cfg journal.StreamConfig) (*journal.Stream, string) {
	t.Helper()
	token := journal.EncodeToken(t.Name()[strings.LastIndex(t.Name(), "/")+1:])
	cfg.Name = strings.ToUpper(token)
	cfg.Subjects = []string{token + ".>"}
	return open(t, j, cfg), token + "."
}

func testSequences(t *testing.T, j *journal.Journal) {
	s, p := stream(t, j, journal.StreamConfig{})
	if first, last, err := s.Bounds(t.Context()); err != nil || first != 0 || last != 0 {
		t.Errorf("bounds of an empty stream: %d, %d, %v", first, last, err)
	}
	if _, err := s.Get(t.Context(), 1); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("get of nothing: %v", err)
	}
	if _, err := s.Last(t.Context(), p+"none"); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("last of nothing: %v", err)
	}
	for want := uint64(1); want <= 20; want++ {
		seq, err := s.Append(t.Context(), journal.Message{Subject: p + "a", Data: []byte{byte(want)}})
		if err != nil || seq != want {
			t.Fatalf("append: %d, %v, want %d", seq, err, want)
		}
		if err := s.Commit(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
		r, err := s.Get(t.Context(), seq)
		if err != nil || r.Sequence != seq || !bytes.Equal(r.Data, []byte{byte(want)}) || r.Time.IsZero() {
			t.Fatalf("get: %+v, %v", r, err)
		}
	}
	if first, last, err := s.Bounds(t.Context()); err != nil || first != 1 || last != 20 {
		t.Errorf("bounds: %d, %d, %v", first, last, err)
	}
	if j.Durability() != "quorum" {
		if err := s.Commit(t.Context(), 21); err == nil {
			t.Error("committed what was never appended")
		}
	}
}

func testCompareAndSet(t *testing.T, j *journal.Journal) {
	s, p := stream(t, j, journal.StreamConfig{LastPerSubject: true})
	seq, err := s.Append(t.Context(), journal.Message{Subject: p + "a", Expect: new(uint64)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), journal.Message{Subject: p + "a", Expect: new(uint64)}); !errors.Is(err, journal.ErrConflict) {
		t.Errorf("create of an existing subject: %v", err)
	}
	next, err := s.Append(t.Context(), journal.Message{Subject: p + "a", Expect: &seq})
	if err != nil || next <= seq {
		t.Errorf("update: %d, %v", next, err)
	}
	if _, err := s.Append(t.Context(), journal.Message{Subject: p + "a", Expect: &seq}); !errors.Is(err, journal.ErrConflict) {
		t.Errorf("update with an old sequence: %v", err)
	}
	if r, err := s.Last(t.Context(), p+"a"); err != nil || r.Sequence != next {
		t.Errorf("last: %+v, %v", r, err)
	}
}

// Of many writers that expect the same sequence, one wins.
func testRacingCompareAndSet(t *testing.T, j *journal.Journal) {
	s, p := stream(t, j, journal.StreamConfig{LastPerSubject: true})
	var expect uint64
	for range 10 {
		var mu sync.Mutex
		var winners []uint64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				e := expect
				seq, err := s.Append(t.Context(), journal.Message{Subject: p + "a", Expect: &e})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					winners = append(winners, seq)
				} else if !errors.Is(err, journal.ErrConflict) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(winners) != 1 {
			t.Fatalf("%d writers won", len(winners))
		}
		expect = winners[0]
	}
}

// Of many appends at once, more than are under way at a time, those that find a
// conflict fail, and only those; what is read then is the newest.
func testAppendEach(t *testing.T, j *journal.Journal) {
	s, p := stream(t, j, journal.StreamConfig{LastPerSubject: true})
	const count, taken = 1100, 7
	subject := func(i int) string { return p + strconv.Itoa(i) }
	first := map[int]uint64{}
	ms := make([]journal.Message, count)
	for i := range ms {
		ms[i] = journal.Message{Subject: subject(i), Data: []byte(strconv.Itoa(i)), Expect: new(uint64)}
		if i%taken != 0 {
			continue
		}
		seq, err := s.Append(t.Context(), journal.Message{Subject: subject(i), Data: []byte("first")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Last(t.Context(), subject(i)); err != nil {
			t.Fatal(err)
		}
		first[i] = seq
		if i%2 == 0 {
			ms[i].Expect = &seq
		}
	}
	results, err := s.AppendEach(t.Context(), ms)
	if err != nil || len(results) != count {
		t.Fatalf("%d results, %v", len(results), err)
	}
	var before uint64
	for i, result := range results {
		last, err := s.Last(t.Context(), subject(i))
		if err != nil {
			t.Fatal(err)
		}
		if i%taken == 0 && i%2 != 0 {
			if !errors.Is(result.Err, journal.ErrConflict) || last.Sequence != first[i] || string(last.Data) != "first" {
				t.Fatalf("append %d that expects no record: %+v, last %+v", i, result, last)
			}
			continue
		}
		if result.Err != nil || result.Sequence <= before || last.Sequence != result.Sequence || string(last.Data) != strconv.Itoa(i) {
			t.Fatalf("append %d: %+v after %d, last %+v", i, result, before, last)
		}
		before = result.Sequence
	}
	if err := s.Commit(t.Context(), before); err != nil {
		t.Error(err)
	}

	large := journal.Message{Subject: p + "large", Data: make([]byte, 2<<20)}
	if _, err := s.AppendEach(t.Context(), []journal.Message{{Subject: p + "fits"}, large}); !errors.Is(err, journal.ErrTooLarge) {
		t.Errorf("append of 2 MiB: %v", err)
	}
	if r, err := s.Last(t.Context(), p+"fits"); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("appended although the call was refused: %+v, %v", r, err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	results, err = s.AppendEach(canceled, []journal.Message{{Subject: p + "gone"}, {Subject: p + "away"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range results {
		// An answer that is there already counts.
		if result.Err != nil && !errors.Is(result.Err, context.Canceled) {
			t.Errorf("append with a canceled context: %v", result.Err)
		}
	}
}

// No reader sees a record older than one that was acknowledged or seen before,
// not even while appends are given up before their answer comes.
func testLastIsNewest(t *testing.T, j *journal.Journal) {
	s, p := stream(t, j, journal.StreamConfig{LastPerSubject: true})
	var acknowledged atomic.Uint64
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			var seen uint64
			for {
				least := max(seen, acknowledged.Load())
				r, err := s.Last(t.Context(), p+"a")
				if least == 0 && errors.Is(err, journal.ErrNotFound) {
					err = nil
				}
				if err != nil || r.Sequence < least {
					t.Errorf("record %d, %v; %d was there before", r.Sequence, err, least)
					return
				}
				seen = r.Sequence
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		if i%4 == 3 {
			go cancel()
		}
		ms := []journal.Message{{Subject: p + "a"}, {Subject: p + "b"}}
		var seq uint64
		var err error
		if i%10 == 9 {
			var seqs []uint64
			if seqs, err = s.AppendAtomic(ctx, ms); err == nil {
				seq = seqs[0]
			}
		} else {
			seq, err = s.Append(ctx, ms[0])
		}
		if err == nil {
			err = s.Commit(ctx, seq)
		}
		cancel()
		switch {
		case err == nil:
			acknowledged.Store(seq)
		case !errors.Is(err, context.Canceled):
			t.Fatal(err)
		}
	}
	close(done)
	readers.Wait()
}

func testDedupe(t *testing.T, j *journal.Journal) {
	s, p := stream(t, j, journal.StreamConfig{DedupeWindow: time.Minute})
	m := journal.Message{Subject: p + "a", DedupeID: "one"}
	first, err := s.Append(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Append(t.Context(), m); err != nil || again != first {
		t.Errorf("second append: %d, %v, want %d", again, err, first)
	}
}

func testHeaders(t *testing.T, j *journal.Journal) {
	s, p := stream(t, j, journal.StreamConfig{})
	header := map[string]string{"kind": "a b; c: d", "Other-One": "äöü", "empty": ""}
	seq, err := s.Append(t.Context(), journal.Message{Subject: p + "a", Header: header, TTL: time.Hour, DedupeID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Get(t.Context(), seq)
	if err != nil || fmt.Sprint(r.Header) != fmt.Sprint(header) {
		t.Errorf("header %v, %v", r.Header, err)
	}
	for name, bad := range map[string]journal.Message{
		"reserved name":        {Subject: p + "a", Header: map[string]string{"Nats-TTL": "1s"}},
		"name with a space":    {Subject: p + "a", Header: map[string]string{"a b": "1"}},
		"line break":           {Subject: p + "a", Header: map[string]string{"a": "1\r\nb: 2"}},
		"space at the end":     {Subject: p + "a", Header: map[string]string{"a": "1 "}},
		"wildcard":             {Subject: p + "*"},
		"no subject":           {},
		"fraction of a second": {Subject: p + "a", TTL: 1500 * time.Millisecond},
	} {
		if _, err := s.Append(t.Context(), bad); err == nil {
			t.Errorf("%s: appended", name)
		}
	}
}

func testAtomic(t *testing.T, j *journal.Journal) {
	s, p := stream(t, j, journal.StreamConfig{})
	seqs, err := s.AppendAtomic(t.Context(), []journal.Message{
		{Subject: p + "a", Expect: new(uint64), Data: []byte("1")},
		{Subject: p + "b", Expect: new(uint64), Data: []byte("2")},
	})
	if err != nil || len(seqs) != 2 {
		t.Fatalf("batch: %v, %v", seqs, err)
	}
	for i, seq := range seqs {
		if r, err := s.Get(t.Context(), seq); err != nil || string(r.Data) != strconv.Itoa(i+1) || r.Header != nil {
			t.Errorf("record %d: %+v, %v", seq, r, err)
		}
	}
	if _, err := s.AppendAtomic(t.Context(), []journal.Message{
		{Subject: p + "c", Expect: new(uint64)},
		{Subject: p + "b", Expect: new(uint64)},
	}); !errors.Is(err, journal.ErrConflict) {
		t.Errorf("batch with a conflict: %v", err)
	}
	if _, err := s.Last(t.Context(), p+"c"); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("half a batch was appended: %v", err)
	}
	if _, err := s.AppendAtomic(t.Context(), make([]journal.Message, 1001)); !errors.Is(err, journal.ErrTooLarge) {
		t.Errorf("batch of 1001: %v", err)
	}
}

// No other record gets in between those of a batch.
func testAtomicIsContiguous(t *testing.T, j *journal.Journal) {
	s, p := stream(t, j, journal.StreamConfig{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 5 {
				batch := make([]journal.Message, 5)
				for k := range batch {
					batch[k] = journal.Message{Subject: fmt.Sprintf("%sbatch.%d.%d", p, w, i)}
				}
				seqs, err := s.AppendAtomic(t.Context(), batch)
				if err != nil {
					t.Error(err)
					return
				}
				for _, seq := range seqs {
					if r, err := s.Get(t.Context(), seq); err != nil || r.Subject != batch[0].Subject {
						t.Errorf("record %d of batch %s: %+v, %v", seq, batch[0].Subject, r, err)
					}
				}
				if _, err := s.Append(t.Context(), journal.Message{Subject: p + "single"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func testLimits(t *testing.T, j *journal.Journal) {
	s, p := stream(t, j, journal.StreamConfig{})
	if _, err := s.Append(t.Context(), journal.Message{Subject: p + "a", Data: make([]byte, 2<<20)}); !errors.Is(err, journal.ErrTooLarge) {
		t.Errorf("append of 2 MiB: %v", err)
	}
	if _, err := s.AppendAll(t.Context(), []journal.Message{{Subject: p + "a", Data: make([]byte, 2<<20)}}); !errors.Is(err, journal.ErrTooLarge) {
		t.Errorf("append of 2 MiB: %v", err)
	}
	seq, err := s.Append(t.Context(), journal.Message{Subject: p + "a", Data: make([]byte, 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Get(t.Context(), seq); err != nil || len(r.Data) != 1<<20 {
		t.Errorf("1 MiB came back as %d bytes, %v", len(r.Data), err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Append(canceled, journal.Message{Subject: p + "a"}); !errors.Is(err, context.Canceled) {
		t.Errorf("append with a canceled context: %v", err)
	}
}

// An expired record leaves a marker that followers get, though no writer
// commits it, and its subject is free again.
func testExpiry(t *testing.T, j *journal.Journal) {
	s, p := stream(t, j, journal.StreamConfig{LastPerSubject: true})
	seq, err := s.Append(t.Context(), journal.Message{Subject: p + "a", TTL: time.Second, Data: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	var marker journal.Record
	err = s.Follow(t.Context(), seq, nil, func(batch []journal.Record, _ uint64) error {
		if len(batch) == 0 {
			return nil
		}
		marker = batch[0]
		return errDone
	})
	if !errors.Is(err, errDone) || !marker.Expired || marker.Subject != p+"a" || len(marker.Data) != 0 {
		t.Fatalf("marker %+v, %v", marker, err)
	}
	if r, err := s.Last(t.Context(), p+"a"); err != nil || !r.Expired || r.Sequence != marker.Sequence {
		t.Errorf("last: %+v, %v", r, err)
	}
	if _, err := s.Append(t.Context(), journal.Message{Subject: p + "a", Expect: &marker.Sequence}); err != nil {
		t.Errorf("append after the marker: %v", err)
	}
}

func testPurge(t *testing.T, j *journal.Journal) {
	s, p := stream(t, j, journal.StreamConfig{})
	seqs, err := s.AppendAll(t.Context(), []journal.Message{{Subject: p + "a"}, {Subject: p + "b"}, {Subject: p + "a"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context(), p+"a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Last(t.Context(), p+"a"); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("last of a purged subject: %v", err)
	}
	if seq, err := s.Append(t.Context(), journal.Message{Subject: p + "a", Expect: new(uint64)}); err != nil || seq != seqs[2]+1 {
		t.Errorf("append after the purge: %d, %v", seq, err)
	}
	if r, err := s.Last(t.Context(), p+"b"); err != nil || r.Sequence != seqs[1] {
		t.Errorf("another subject: %+v, %v", r, err)
	}
	more, err := s.AppendAll(t.Context(), []journal.Message{{Subject: p + "a"}, {Subject: p + "a"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PurgeBefore(t.Context(), p+"a", more[1]); err != nil {
		t.Fatal(err)
	}
	left := map[uint64]string{}
	if _, err := s.Scan(t.Context(), 0, false, nil, func(r journal.Record) error { left[r.Sequence] = r.Subject; return nil }); err != nil {
		t.Fatal(err)
	}
	if want := map[uint64]string{seqs[1]: p + "b", more[1]: p + "a"}; !maps.Equal(left, want) {
		t.Errorf("left of a purge up to a sequence: %v, want %v", left, want)
	}
}

func testScan(t *testing.T, j *journal.Journal) {
	s, p := stream(t, j, journal.StreamConfig{})
	var ms []journal.Message
	for i := range 1000 {
		ms = append(ms, journal.Message{Subject: fmt.Sprintf("%s%d.%d", p, i%2, i%10)})
	}
	seqs, err := s.AppendAll(t.Context(), ms)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		after    uint64
		lastOnly bool
		filters  []string
		want     int
	}{
		"all":                  {want: 1000},
		"after":                {after: seqs[899], want: 100},
		"one filter":           {filters: []string{p + "0.>"}, want: 500},
		"two filters":          {filters: []string{p + "0.2", p + "1.3"}, want: 200},
		"one includes another": {filters: []string{p + "0.>", p + "0.2"}, want: 500},
		"overlapping":          {filters: []string{p + "*.2", p + "0.*"}, want: 500},
		"same filter twice":    {filters: []string{p + "0.2", p + "0.2"}, want: 100},
		"no match":             {filters: []string{p + "9.9"}, want: 0},
		"last":                 {lastOnly: true, want: 10},
		"last of some":         {lastOnly: true, filters: []string{p + "0.>"}, want: 5},
		"last after":           {lastOnly: true, after: seqs[994], want: 5},
		"beyond the end":       {after: seqs[999] + 5, want: 0},
	} {
		got, previous := 0, test.after
		upTo, err := s.Scan(t.Context(), test.after, test.lastOnly, test.filters, func(r journal.Record) error {
			if r.Sequence <= previous {
				t.Errorf("%s: record %d after %d", name, r.Sequence, previous)
			}
			previous = r.Sequence
			got++
			return nil
		})
		if err != nil || got != test.want || upTo != max(seqs[999], test.after) {
			t.Errorf("%s: %d records up to %d, %v; want %d up to %d", name, got, upTo, err, test.want, seqs[999])
		}
	}
	if _, err := s.Scan(t.Context(), 0, false, nil, func(journal.Record) error { return errDone }); err != errDone { //nolint:errorlint // as is
		t.Errorf("error of fn: %v", err)
	}
}

// Followers with their own filters, starts and pauses each get exactly what a
// reader of the whole stream would pick for them.
func testFollow(t *testing.T, j *journal.Journal) {
	const (
		writers, perWriter = 4, 600
		followers          = 14
	)
	s, p := stream(t, j, journal.StreamConfig{})
	if _, err := s.AppendAll(t.Context(), slices.Repeat([]journal.Message{{Subject: p + "0.0"}}, 300)); err != nil {
		t.Fatal(err)
	}
	filterSets := [][]string{
		nil, {p + "0.>"}, {p + "*.3"}, {p + "1.2", p + "3.*"}, {p + "1.*", p + "*.2"}, {p + "2.2", p + "2.2"}, {p + "never"},
	}
	written := make(chan struct{})
	results := make([][]journal.Record, followers)
	positions := make([]uint64, followers)
	afters := make([]uint64, followers)
	var end uint64
	var wg sync.WaitGroup
	for i := range followers {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		afters[i] = uint64(random.IntN(300))
		wg.Go(func() {
			positions[i] = afters[i]
			err := s.Follow(t.Context(), afters[i], filterSets[i%len(filterSets)], func(batch []journal.Record, position uint64) error {
				if position < positions[i] || len(batch) > 0 && batch[len(batch)-1].Sequence > position {
					t.Errorf("position %d after %d with %d records", position, positions[i], len(batch))
				}
				positions[i] = position
				results[i] = append(results[i], batch...)
				if i%3 == 0 && random.IntN(20) == 0 {
					<-written // fall behind the ring
				}
				select {
				case <-written:
					if position >= end {
						return errDone
					}
				default:
				}
				return nil
			})
			if !errors.Is(err, errDone) {
				t.Errorf("follower %d: %v", i, err)
			}
		})
	}
	var writing sync.WaitGroup
	for w := range writers {
		random := rand.New(rand.NewPCG(2, uint64(w)))
		writing.Go(func() {
			for left := perWriter; left > 0; {
				batch := make([]journal.Message, min(left, 1+random.IntN(100)))
				for k := range batch {
					batch[k] = journal.Message{Subject: fmt.Sprintf("%s%d.%d", p, random.IntN(4), random.IntN(4)), Data: make([]byte, 5000)}
				}
				if _, err := s.AppendAll(t.Context(), batch); err != nil {
					t.Error(err)
					return
				}
				left -= len(batch)
			}
		})
	}
	writing.Wait()
	var err error
	if _, end, err = s.Bounds(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(written)
	// One more record moves the position of those who had seen everything.
	if _, err := s.Append(t.Context(), journal.Message{Subject: p + "end"}); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for i := range followers {
		var want []uint64
		if _, err := s.Scan(t.Context(), afters[i], false, filterSets[i%len(filterSets)], func(r journal.Record) error {
			if r.Sequence <= end {
				want = append(want, r.Sequence)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		var got []uint64
		for _, r := range results[i] {
			if r.Sequence <= end {
				got = append(got, r.Sequence)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("follower %d got %d records, want %d; first difference at %d", i, len(got), len(want), difference(got, want))
		}
	}
}

func difference(a, b []uint64) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// A follower that wants records together gets few batches, and all records.
func testFollowEvery(t *testing.T, j *journal.Journal) {
	const (
		records  = 100
		interval = 20 * time.Millisecond
	)
	s, p := stream(t, j, journal.StreamConfig{})
	batches, seen := 0, 0
	begun := time.Now()
	done := make(chan error, 1)
	go func() {
		done <- s.Follow(t.Context(), 0, nil, func(batch []journal.Record, _ uint64) error {
			batches++
			if seen += len(batch); seen < records {
				return nil
			}
			return errDone
		}, journal.Every(interval))
	}()
	for range records {
		seq, err := s.Append(t.Context(), journal.Message{Subject: p + "a"})
		if err == nil {
			err = s.Commit(t.Context(), seq)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; !errors.Is(err, errDone) || seen != records {
		t.Fatalf("%d records, %v", seen, err)
	}
	if most := int(time.Since(begun)/interval) + 2; batches > most {
		t.Errorf("%d batches, at most %d", batches, most)
	}
}

// A follower hears of the position though no record is for it.
func testFollowMovesPosition(t *testing.T, j *journal.Journal) {
	s, p := stream(t, j, journal.StreamConfig{})
	following := make(chan struct{})
	var once sync.Once
	var last uint64
	done := make(chan error, 1)
	go func() {
		done <- s.Follow(t.Context(), 0, []string{p + "mine"}, func(_ []journal.Record, position uint64) error {
			once.Do(func() { close(following) })
			if position >= 3 {
				last = position
				return errDone
			}
			return nil
		})
	}()
	if _, err := s.Append(t.Context(), journal.Message{Subject: p + "mine"}); err != nil {
		t.Fatal(err)
	}
	<-following
	if _, err := s.AppendAll(t.Context(), []journal.Message{{Subject: p + "other"}, {Subject: p + "other"}}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, errDone) || last != 3 {
		t.Errorf("position %d, %v", last, err)
	}
}

// A follower that skipped a batch hears of its position though nothing follows.
func testFollowTellsSkipped(t *testing.T, j *journal.Journal) {
	s, p := stream(t, j, journal.StreamConfig{})
	last, err := s.Append(t.Context(), journal.Message{Subject: p + "a"})
	if err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{"on disk", "in memory"} {
		skipped := false
		err := s.Follow(t.Context(), last-1, nil, func(batch []journal.Record, position uint64) error {
			if len(batch) > 0 {
				skipped = true
				return journal.Skip
			}
			if !skipped || position != last {
				t.Errorf("%s: skipped is %t, position %d of %d", where, skipped, position, last)
			}
			return errDone
		})
		if !errors.Is(err, errDone) {
			t.Errorf("%s: %v", where, err)
		}
	}
}

// A follower that skips batch after batch hears of its position all the same.
func testFollowTellsAmidSkipped(t *testing.T, j *journal.Journal) {
	s, p := stream(t, j, journal.StreamConfig{})
	if _, err := s.Append(t.Context(), journal.Message{Subject: p + "a"}); err != nil {
		t.Fatal(err)
	}
	err := s.Follow(t.Context(), 0, nil, func(batch []journal.Record, position uint64) error {
		if len(batch) == 0 && position > 1 {
			return errDone
		}
		if _, err := s.Append(t.Context(), journal.Message{Subject: p + "a"}); err != nil {
			return err
		}
		return journal.Skip
	})
	if !errors.Is(err, errDone) {
		t.Error(err)
	}
}

func testTruncated(t *testing.T, j *journal.Journal) {
	s, p := stream(t, j, journal.StreamConfig{MaxBytes: 100_000})
	seqs, err := s.AppendAll(t.Context(), slices.Repeat([]journal.Message{{Subject: p + "a", Data: make([]byte, 1000)}}, 500))
	if err != nil {
		t.Fatal(err)
	}
	first, _, err := s.Bounds(t.Context())
	if err != nil || first <= 1 {
		t.Fatalf("bounds from %d, %v", first, err)
	}
	var truncated *journal.TruncatedError
	err = s.Follow(t.Context(), 0, []string{p + "a"}, func([]journal.Record, uint64) error {
		t.Error("records were handed over")
		return errDone
	})
	if !errors.Is(err, journal.ErrTruncated) || !errors.As(err, &truncated) || truncated.Oldest != first {
		t.Fatalf("follow of removed records: %v, want the oldest %d", err, first)
	}
	// Removed records may have been for any filter, also for one that matches
	// what is left only, or nothing.
	if _, err := s.Append(t.Context(), journal.Message{Subject: p + "b"}); err != nil {
		t.Fatal(err)
	}
	for _, filter := range []string{"b", "*", "none"} {
		err := s.Follow(t.Context(), 1, []string{p + filter}, func([]journal.Record, uint64) error {
			t.Errorf("filter %s: records were handed over", filter)
			return errDone
		})
		if !errors.Is(err, journal.ErrTruncated) {
			t.Errorf("filter %s: follow of removed records: %v", filter, err)
		}
	}
	next := truncated.Oldest
	err = s.Follow(t.Context(), truncated.Oldest-1, []string{p + "a"}, func(batch []journal.Record, _ uint64) error {
		for _, r := range batch {
			if r.Sequence != next {
				t.Errorf("record %d, want %d", r.Sequence, next)
			}
			next++
		}
		if next > seqs[len(seqs)-1] {
			return errDone
		}
		return nil
	})
	if !errors.Is(err, errDone) {
		t.Error(err)
	}
}
