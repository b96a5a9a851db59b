//go:build linux

package journal_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// smallDisk mounts a file system of the given size.
func smallDisk(t *testing.T, megabytes int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", megabytes)); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill appends until an append is refused.
func fill(ctx context.Context, t *testing.T, s *journal.Stream) (acknowledged uint64, refusal error) {
	t.Helper()
	for range 1000 {
		seq, err := s.Append(ctx, journal.Message{Subject: "log.a", Data: make([]byte, 256<<10)})
		if err == nil {
			err = s.Commit(ctx, seq)
		}
		if err != nil {
			return acknowledged, err
		}
		acknowledged = seq
	}
	t.Fatal("nothing was refused")
	return 0, nil
}

var logStream = journal.StreamConfig{Name: "LOG", Subjects: []string{"log.>"}}

func TestAppendsAreRefusedBeforeTheDiskIsFull(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]func(t *testing.T) journal.Config{
		"free space": func(t *testing.T) journal.Config {
			t.Helper()
			return journal.Config{DataDir: smallDisk(t, 64), MinFreeBytes: 24 << 20}
		},
		"store limit": func(t *testing.T) journal.Config {
			t.Helper()
			return journal.Config{DataDir: t.TempDir(), MaxStoreBytes: 16 << 20}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t)
			j := start(t, cfg)
			s := open(t, j, logStream)
			last, err := fill(t.Context(), t, s)
			if !errors.Is(err, journal.ErrNoSpace) {
				t.Errorf("refused with %v", err)
			}
			if j.Err() != nil {
				t.Errorf("journal failed: %v", j.Err())
			}
			if r, err := s.Get(t.Context(), last); err != nil || len(r.Data) != 256<<10 {
				t.Errorf("record %d: %v", last, err)
			}
			if err := s.Purge(t.Context(), "log.a"); err != nil {
				t.Fatal(err)
			}
			if err := j.Stop(context.Background()); err != nil {
				t.Fatal(err)
			}
			if seq, err := open(t, start(t, cfg), logStream).Append(t.Context(), journal.Message{Subject: "log.a"}); err != nil || seq <= last {
				t.Errorf("append with room again: %d, %v", seq, err)
			}
		})
	}
}

// When something else fills the disk, the journal says that it failed, and
// what was acknowledged is there after a restart.
func TestFullDiskIsFatalAndLosesNothing(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, 24)
	j, err := journal.New(journal.Config{DataDir: dir}, discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := open(t, j, logStream)
	j.BlindToSpace()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-j.Failed()
		cancel() // as the process would, on its way out
	}()
	last, err := fill(ctx, t, s)
	if err == nil {
		t.Error("a full disk took an append")
	}
	<-j.Failed()
	if j.Err() == nil {
		t.Error("no reason is given")
	}
	if _, err := s.Append(t.Context(), journal.Message{Subject: "log.a"}); !errors.Is(err, journal.ErrUnavailable) {
		t.Errorf("append after the failure: %v", err)
	}
	// A disk this full may not take what a stop writes.
	if err := j.Stop(context.Background()); err != nil {
		t.Logf("stop: %v", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=96m"); err != nil {
		t.Fatal(err)
	}
	again := start(t, journal.Config{DataDir: dir, MinFreeBytes: 1})
	s = open(t, again, logStream)
	if p := again.Problems(); len(p) > 0 {
		t.Errorf("problems: %v", p)
	}
	for seq := uint64(1); seq <= last; seq++ {
		if r, err := s.Get(t.Context(), seq); err != nil || len(r.Data) != 256<<10 {
			t.Fatalf("record %d: %v", seq, err)
		}
	}
}

// A failed sync is final: what it covered is not acknowledged, and no later
// one can claim to have kept it.
func TestFailedSyncIsFinal(t *testing.T) {
	t.Parallel()
	j, err := journal.New(journal.Config{DataDir: t.TempDir()}, discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := open(t, j, logStream)
	seq, err := s.Append(t.Context(), journal.Message{Subject: "log.a"})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.BreakSync(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Commit(t.Context(), seq); err == nil {
			t.Error("a commit without a sync succeeded")
		}
	}
	<-j.Failed()
	if _, err := s.Last(t.Context(), "log.a"); err == nil || errors.Is(err, journal.ErrNotFound) {
		t.Errorf("a record that was not kept was shown: %v", err)
	}
	if err := j.Stop(context.Background()); err == nil {
		t.Error("the stop hides the failure")
	}
}
