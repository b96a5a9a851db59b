package thread

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// killOrder is the variable that has the test's program run a graph and be killed.
const killOrder = "THREAD_KILL_ORDER"

const killSteps = 20

type order struct {
	Folder     string           `json:"folder"`
	Thread     string           `json:"thread"`
	Calls      string           `json:"calls"`
	Durability graph.Durability `json:"durability"`
	// Saves is how many are made before the kill.
	Saves int `json:"saves"`
}

// killing is a saver whose process is killed.
type killing struct {
	*Saver

	left int
}

func (k *killing) Save(ctx context.Context, thread string, c *graph.Checkpoint) error {
	if k.left == 0 {
		process, err := os.FindProcess(os.Getpid())
		if err != nil {
			return err
		}
		if err := process.Kill(); err != nil {
			return err
		}
		select {}
	}
	k.left--
	return k.Saver.Save(ctx, thread, c)
}

// calling counts to killSteps, and notes each call in a file.
func calling(file string) *graph.Graph {
	return counting(killSteps, 100*killSteps, func(step int) {
		f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			panic(err)
		}
		if _, err := fmt.Fprintf(f, "%d\n", step); err != nil {
			panic(err)
		}
		if err := f.Close(); err != nil {
			panic(err)
		}
	})
}

// runUntilKilled is the other process.
func runUntilKilled(text string) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	ctx, log := context.Background(), slog.New(slog.DiscardHandler)
	j, err := journal.New(journal.Config{DataDir: o.Folder}, log)
	if err != nil {
		return err
	}
	if err := j.Start(ctx); err != nil {
		return err
	}
	s, err := New(Config{}, j, log)
	if err != nil {
		return err
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	saver := &killing{Saver: s.Saver(namespace, o.Durability), left: o.Saves}
	_, err = calling(o.Calls).Run(ctx, graph.Request{Thread: o.Thread, Input: graph.State{}}, graph.Options{Saver: saver})
	return fmt.Errorf("it was not killed: %w", err)
}

// TestKilledRunsGoOn kills a process between any two appends of a graph of 20 steps, and
// goes on in another one.
func TestKilledRunsGoOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	orders := map[string]order{}
	for _, durability := range []graph.Durability{graph.Sync, graph.Async} {
		stride := 1
		if testing.Short() || durability == graph.Async {
			stride = 5
		}
		// The input, each step and the end are saved.
		for saves := 1; saves <= killSteps; saves += stride {
			thread := fmt.Sprintf("%s-%d", durability, saves)
			o := order{dir, thread, filepath.Join(t.TempDir(), thread), durability, saves}
			text, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			child := exec.CommandContext(t.Context(), os.Args[0])
			child.Env = append(os.Environ(), killOrder+"="+string(text))
			if output, err := child.CombinedOutput(); err == nil || len(output) > 0 {
				t.Fatalf("%s: %v: %s", thread, err, output)
			}
			orders[thread] = o
		}
	}
	s := open(t, journal.Config{DataDir: dir}, Config{})
	for thread, o := range orders {
		g := calling(o.Calls)
		wantCounted(t, s.mustRun(t, g, o.Durability, graph.Request{Thread: thread}), killSteps)
		recorded := map[int]int{}
		for _, c := range s.history(t, g, thread) {
			if c.Source == graph.Stepped {
				recorded[c.Step]++
			}
		}
		calls, err := os.ReadFile(o.Calls)
		if err != nil {
			t.Fatal(err)
		}
		made := map[string]int{}
		for call := range strings.Lines(string(calls)) {
			made[strings.TrimSpace(call)]++
		}
		for step := range killSteps {
			if n := recorded[step+1]; n != 1 {
				t.Errorf("%s: step %d was recorded %d times", thread, step, n)
			}
			// The step whose end was not saved is done again, and no other.
			want := 1
			if step == o.Saves-1 {
				want = 2
			}
			if n := made[strconv.Itoa(step)]; o.Durability == graph.Sync && n != want || n < 1 {
				t.Errorf("%s: step %d was done %d times, want %d", thread, step, n, want)
			}
		}
	}
}
