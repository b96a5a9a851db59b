package thread

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// TestSaversKeepWhatMemoryKeeps runs turns of a thread, and holds its history against
// that in memory.
func TestSaversKeepWhatMemoryKeeps(t *testing.T) {
	t.Parallel()
	s := open(t, inFolder(t), Config{})
	g := counting(30, 9000, func(int) {})
	for _, durability := range []graph.Durability{graph.Sync, graph.Async, graph.Exit} {
		t.Run(string(durability), func(t *testing.T) {
			t.Parallel()
			thread := string(durability)
			memory := &graph.Memory{}
			o := graph.Options{Saver: memory, OnlyEnds: durability == graph.Exit, RecursionLimit: 1000}
			for range 2 {
				r := graph.Request{Thread: thread, Input: graph.State{"n": graph.Overwrite{Value: 0}}}
				want, err := g.Run(t.Context(), r, o)
				if err != nil {
					t.Fatal(err)
				}
				if got := s.mustRun(t, g, durability, r); !reflect.DeepEqual(got, want) {
					t.Fatalf("state %v, want %v", got, want)
				}
			}
			got := s.history(t, g, thread)
			want, err := g.History(t.Context(), memory, thread, 0, 100)
			if err != nil || len(got) != len(want) {
				t.Fatalf("%d checkpoints, want %d, %v", len(got), len(want), err)
			}
			for i := range got {
				if got[i].Time.IsZero() {
					t.Errorf("checkpoint %d has no time", got[i].Revision)
				}
				got[i].Time = want[i].Time
				if a, b := mustEncode(t, got[i]), mustEncode(t, want[i]); a != b || got[i].Revision != want[i].Revision {
					t.Fatalf("checkpoint %d is %s, want %s", got[i].Revision, a, b)
				}
			}
			// One by one as well.
			at, err := g.State(t.Context(), s.Saver(namespace, graph.Sync), thread, 2)
			if err != nil || at.Revision != 2 {
				t.Errorf("%+v, %v", at, err)
			}
		})
	}
}

func mustEncode(t *testing.T, c *graph.Checkpoint) string {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestOneOfManyRunnersWinsEachStep has 8 runners go on with one thread until it is done.
func TestOneOfManyRunnersWinsEachStep(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]func(t *testing.T) journal.Config{
		"embedded": inFolder,
		"cluster":  func(t *testing.T) journal.Config { t.Helper(); return journal.Config{NATSURL: startCluster(t)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, config(t), Config{})
			for _, durability := range []graph.Durability{graph.Sync, graph.Async} {
				raceFor(t, s, durability)
			}
		})
	}
}

func raceFor(t *testing.T, s *Store, durability graph.Durability) {
	t.Helper()
	const steps, runners = 12, 8
	thread := "raced-" + string(durability)
	g := counting(steps, 10*steps, func(int) {})
	if _, err := g.Update(t.Context(), s.Saver(namespace, graph.Sync), thread, graph.Start, graph.State{}); err != nil {
		t.Fatal(err)
	}
	var saves atomic.Int64
	var racing sync.WaitGroup
	for range runners {
		racing.Go(func() {
			for {
				saver := &counted{Saver: s.Saver(namespace, durability)}
				state, err := g.Run(t.Context(), graph.Request{Thread: thread}, graph.Options{Saver: saver})
				if errClose := saver.Close(t.Context()); errClose != nil && !errors.Is(errClose, graph.ErrConflict) {
					t.Error(errClose)
				}
				saves.Add(saver.saved.Load())
				if err == nil {
					wantCountedIn(t, state, steps)
					return
				}
				if !errors.Is(err, graph.ErrConflict) {
					t.Error(err)
					return
				}
			}
		})
	}
	racing.Wait()
	// Each checkpoint is behind the one before, and what each step did is there once.
	history := s.history(t, g, thread)
	wantCounted(t, history[0].State, steps)
	seen := map[int]int{}
	for i, c := range history {
		if want := uint64(len(history) - i); c.Revision != want {
			t.Fatalf("checkpoint %d stands where %d should", c.Revision, want)
		}
		if c.Source == graph.Stepped {
			seen[c.Step]++
		}
	}
	// The update was a step of its own.
	for step := 2; step <= steps+1; step++ {
		if seen[step] != 1 {
			t.Errorf("%s: step %d was recorded %d times", durability, step, seen[step])
		}
	}
	if won := saves.Load(); durability == graph.Sync && won != int64(len(history)-1) {
		t.Errorf("%d saves succeeded, and %d checkpoints are kept", won, len(history)-1)
	}
}

// wantCountedIn is wantCounted for a goroutine that is not the test's.
func wantCountedIn(t *testing.T, state graph.State, steps int) {
	t.Helper()
	if seen, _ := state["seen"].([]any); len(seen) != steps {
		t.Errorf("a runner ended with %d of %d steps", len(seen), steps)
	}
}

// counted counts the saves that succeed.
type counted struct {
	*Saver

	saved atomic.Int64
}

func (c *counted) Save(ctx context.Context, thread string, checkpoint *graph.Checkpoint) error {
	err := c.Saver.Save(ctx, thread, checkpoint)
	if err == nil {
		c.saved.Add(1)
	}
	return err
}

// TestOneOfEightAnswersIsTaken has eight runners answer one question, again and again.
func TestOneOfEightAnswersIsTaken(t *testing.T) {
	t.Parallel()
	s := open(t, inFolder(t), Config{})
	var calls atomic.Int64
	g := asking(&calls)
	for round := range 20 {
		thread := fmt.Sprint("t", round)
		_, err := s.run(t.Context(), g, graph.Async, graph.Request{Thread: thread, Input: graph.State{}})
		var waits *graph.InterruptedError
		if !errors.As(err, &waits) {
			t.Fatal(err)
		}
		calls.Store(0)
		var wins atomic.Int64
		var racing sync.WaitGroup
		for i := range 8 {
			racing.Go(func() {
				answers := map[string]any{waits.Interrupts[0].ID: i}
				_, err := s.run(t.Context(), g, graph.Async, graph.Request{Thread: thread, Answers: answers})
				var closed *graph.UnknownInterruptError
				switch {
				case err == nil:
					wins.Add(1)
				case !errors.Is(err, graph.ErrConflict) && !errors.As(err, &closed):
					t.Error(err)
				}
			})
		}
		racing.Wait()
		if wins.Load() != 1 || calls.Load() != 1 {
			t.Fatalf("round %d: %d of 8 won, the node went on %d times", round, wins.Load(), calls.Load())
		}
	}
}

// asking is a graph whose node asks in a subgraph; calls counts how often it went on.
func asking(calls *atomic.Int64) *graph.Graph {
	child := graph.New("child", map[string]graph.Channel{"said": {}}).
		Node("ask", graph.Node{Run: func(_ context.Context, call *graph.Call, _ graph.State) (graph.Command, error) {
			answer, err := call.Interrupt("?")
			if err == nil {
				calls.Add(1)
			}
			return graph.Command{Update: graph.State{"said": answer}}, err
		}}).Edge(graph.Start, "ask")
	return graph.New("asking", map[string]graph.Channel{"said": {}, "turns": {Reduce: graph.Append}}).
		Node("sub", graph.Node{Run: func(ctx context.Context, call *graph.Call, _ graph.State) (graph.Command, error) {
			state, err := call.Run(ctx, child, graph.State{})
			return graph.Command{Update: state}, err
		}}).Edge(graph.Start, "sub")
}

// TestConversationTakesFewBytes has a conversation of 400 messages of a kilobyte.
func TestConversationTakesFewBytes(t *testing.T) {
	t.Parallel()
	s := open(t, inFolder(t), Config{})
	const messages, size = 400, 1000
	g := counting(messages, messages*size, func(int) {})
	for _, durability := range []graph.Durability{graph.Sync, graph.Async} {
		thread := string(durability)
		s.mustRun(t, g, durability, graph.Request{Thread: thread, Input: graph.State{}})
		written, err := s.Bytes(t.Context(), namespace, thread)
		if most := int64(3 * messages * size); err != nil || written > most || written < messages*size {
			t.Errorf("%s: %d bytes were written, want %d at most: %v", durability, written, most, err)
		}
	}
}

// TestLostAnswersAreRecognised has appends whose outcome is unknown.
func TestLostAnswersAreRecognised(t *testing.T) {
	t.Parallel()
	s := open(t, inFolder(t), Config{})
	own := record{revision: 1, writer: "own", texts: [][]byte{[]byte(`{"whole":true}`)}}
	sequence, err := s.append(t.Context(), subjectOf(namespace, "t"), &own, 0)
	if err != nil {
		t.Fatal(err)
	}
	lost := journal.ErrUnavailable
	other := own
	other.writer = "other"
	for name, test := range map[string]struct {
		thread string
		record record
		after  uint64
		want   error
	}{
		"it is there":               {"t", own, 0, nil},
		"another's is there":        {"t", other, 0, graph.ErrConflict},
		"nothing is behind the one": {"t", own, sequence, journal.ErrUnavailable},
		"nothing is there":          {"none", own, 0, journal.ErrUnavailable},
		"it was deleted":            {"none", own, 7, graph.ErrConflict},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found, err := s.recognise(t.Context(), subjectOf(namespace, test.thread), &test.record, test.after, lost)
			if !errors.Is(err, test.want) || test.want == nil && found != sequence {
				t.Errorf("%d, %v, want %v", found, err, test.want)
			}
		})
	}
}

func TestTooLargeACheckpointIsRefused(t *testing.T) {
	t.Parallel()
	s := open(t, inFolder(t), Config{})
	g := graph.New("g", map[string]graph.Channel{"text": {}}).
		Node("a", graph.Node{Run: func(context.Context, *graph.Call, graph.State) (graph.Command, error) {
			return graph.Command{}, nil
		}}).Edge(graph.Start, "a")
	r := graph.Request{Thread: "t", Input: graph.State{"text": strings.Repeat("x", 2<<20)}}
	saver := s.Saver(namespace, graph.Async)
	_, err := g.Run(t.Context(), r, graph.Options{Saver: saver, MaxStateBytes: 1 << 30})
	if !errors.Is(err, journal.ErrTooLarge) || !errors.Is(saver.Close(t.Context()), journal.ErrTooLarge) {
		t.Error(err)
	}
}

func FuzzRecords(f *testing.F) {
	f.Add("thread.a.b", []byte(`{"whole":true}`), "1", "")
	f.Add("thread.a.b.c=2E0", []byte("{}\n{}"), "7", "3")
	f.Fuzz(func(t *testing.T, subject string, data []byte, revision, base string) {
		if ns, root, below, err := parseSubject(subject); err == nil {
			thread := root
			if below != "" {
				thread += "." + below
			}
			if again := subjectOf(ns, thread); strings.HasPrefix(subject, subjectPrefix) && !strings.Contains(root, ".") && again != subject {
				t.Errorf("%q is read as %q of %q, which is %q", subject, thread, ns, again)
			}
		}
		header := map[string]string{headerRevision: revision}
		if base != "" {
			header[headerBase] = base
		}
		r, err := decode(journal.Record{Sequence: 9, Data: data, Header: header})
		if err == nil && (r.first() == 0 || r.whole() >= len(r.texts)) {
			t.Errorf("%+v", r)
		}
	})
}
