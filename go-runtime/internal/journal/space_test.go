//go:build linux

package journal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

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

// smallStores are stores that have room for some megabytes.
func smallStores() map[string]func(t *testing.T) journal.Config {
	return map[string]func(t *testing.T) journal.Config{
		"free space": func(t *testing.T) journal.Config {
			t.Helper()
			return journal.Config{DataDir: smallDisk(t, 96), MinFreeBytes: 48 << 20}
		},
		"store limit": func(t *testing.T) journal.Config {
			t.Helper()
			return journal.Config{DataDir: t.TempDir(), MaxStoreBytes: 16 << 20}
		},
	}
}

func TestAppendsAreRefusedBeforeTheDiskIsFull(t *testing.T) {
	t.Parallel()
	for name, config := range smallStores() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t)
			j := start(t, cfg)
			s := open(t, j, logStream)
			if err := j.Full(); err != nil {
				t.Errorf("an empty store: %v", err)
			}
			last, err := fill(t.Context(), t, s)
			if !errors.Is(err, journal.ErrNoSpace) {
				t.Errorf("refused with %v", err)
			}
			if err := j.Full(); !errors.Is(err, journal.ErrNoSpace) {
				t.Errorf("a full store: %v", err)
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
			waitUntil(t, func() bool { return j.Full() == nil })
			if seq, err := s.Append(t.Context(), journal.Message{Subject: "log.a"}); err != nil || seq <= last {
				t.Errorf("append with room again: %d, %v", seq, err)
			}
			if err := j.Stop(context.Background()); err != nil {
				t.Fatal(err)
			}
			if err := j.Full(); err != nil {
				t.Errorf("a store that is closed: %v", err)
			}
			if seq, err := open(t, start(t, cfg), logStream).Append(t.Context(), journal.Message{Subject: "log.a"}); err != nil || seq <= last {
				t.Errorf("append after a restart: %d, %v", seq, err)
			}
		})
	}
}

// A full store goes on with what was accepted and takes what makes room, and
// what was removed gives its room back: several times its size passes through.
func TestAFullStoreTakesWhatMakesRoom(t *testing.T) {
	t.Parallel()
	for name, config := range smallStores() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := start(t, config(t))
			s := open(t, j, journal.StreamConfig{Name: "KEYS", Subjects: []string{"key.>"}, LastPerSubject: true})
			key := func(i int) string { return "key." + strconv.Itoa(i) }
			for round := range 4 {
				kept := 0
				for {
					_, err := s.Append(t.Context(), journal.Message{Subject: key(kept), Data: make([]byte, 40<<10)})
					if errors.Is(err, journal.ErrNoSpace) {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					kept++
				}
				if kept < 100 {
					t.Fatalf("round %d: there was room for %d records only", round, kept)
				}
				if _, err := s.Append(t.Context(), journal.Message{
					Subject: "key.run", Data: make([]byte, 512<<10), Purpose: journal.Finish,
				}); err != nil {
					t.Errorf("round %d: finish: %v", round, err)
				}
				var deletions []journal.Message
				for i := range kept {
					deletions = append(deletions, journal.Message{
						Subject: key(i), Header: map[string]string{"KV-Operation": "PURGE"}, TTL: time.Hour, Purpose: journal.Release,
					})
				}
				seqs, err := s.AppendAll(t.Context(), deletions)
				if err == nil {
					err = s.Commit(t.Context(), slices.Max(seqs))
				}
				if err != nil {
					t.Fatalf("round %d: release of %d: %v", round, kept, err)
				}
				waitUntil(t, func() bool { return j.Full() == nil })
			}
			if j.Err() != nil {
				t.Error(j.Err())
			}
		})
	}
}

// At the limit keys go on expiring, and give their room back.
func TestExpiryMakesRoom(t *testing.T) {
	t.Parallel()
	j := start(t, journal.Config{DataDir: t.TempDir(), MaxStoreBytes: 16 << 20})
	s := open(t, j, journal.StreamConfig{Name: "KEYS", Subjects: []string{"key.>"}, LastPerSubject: true})
	for i := 0; ; i++ {
		_, err := s.Append(t.Context(), journal.Message{
			Subject: "key." + strconv.Itoa(i), Data: make([]byte, 256<<10), TTL: time.Second,
		})
		if errors.Is(err, journal.ErrNoSpace) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	waitUntil(t, func() bool { return j.Full() == nil })
	if _, err := s.Append(t.Context(), journal.Message{Subject: "key.0", Data: make([]byte, 1<<20)}); err != nil {
		t.Error(err)
	}
}

// What finishes accepted work has its own share beyond the limit; it leaves the
// rest to what makes room.
func TestFinishedWorkLeavesRoomForDeletions(t *testing.T) {
	t.Parallel()
	j := start(t, journal.Config{DataDir: t.TempDir(), MaxStoreBytes: 16 << 20})
	s := open(t, j, logStream)
	for {
		if _, err := s.Append(t.Context(), journal.Message{
			Subject: "log.run", Data: make([]byte, 256<<10), Purpose: journal.Finish,
		}); errors.Is(err, journal.ErrNoSpace) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Append(t.Context(), journal.Message{Subject: "log.a"}); !errors.Is(err, journal.ErrNoSpace) {
		t.Errorf("accept: %v", err)
	}
	if _, err := s.Append(t.Context(), journal.Message{Subject: "log.a", Data: make([]byte, 1<<20), Purpose: journal.Release}); err != nil {
		t.Errorf("release: %v", err)
	}
}

// The journal starts on a disk without a byte left, on the room that it had set
// aside, and sets it aside again when there is room.
func TestStartOnAFullDisk(t *testing.T) {
	t.Parallel()
	cfg := journal.Config{DataDir: filepath.Join(smallDisk(t, 96), "data"), MinFreeBytes: 48 << 20}
	reserve := filepath.Join(cfg.DataDir, "reserve")
	j := start(t, cfg)
	s := open(t, j, logStream)
	last, err := s.Append(t.Context(), journal.Message{Subject: "log.a", Data: make([]byte, 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	set, err := os.Stat(reserve)
	if err != nil {
		t.Fatal(err)
	}
	if size := set.Sys().(*syscall.Stat_t).Blocks * 512; size < 4<<20 {
		t.Errorf("the reserve takes %d bytes of the disk", size)
	}
	filler := filepath.Join(filepath.Dir(cfg.DataDir), "filler")
	if err := os.WriteFile(filler, make([]byte, 96<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}

	j = start(t, cfg)
	s = open(t, j, logStream)
	if _, err := os.Stat(reserve); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the reserve is still there: %v", err)
	}
	if r, err := s.Get(t.Context(), last); err != nil || len(r.Data) != 1<<20 {
		t.Errorf("record %d: %v", last, err)
	}
	if _, err := s.Append(t.Context(), journal.Message{Subject: "log.a"}); !errors.Is(err, journal.ErrNoSpace) {
		t.Errorf("accept: %v", err)
	}
	if err := j.Full(); !errors.Is(err, journal.ErrNoSpace) {
		t.Errorf("a full disk: %v", err)
	}
	for _, purpose := range []journal.Purpose{journal.Finish, journal.Release} {
		seq, err := s.Append(t.Context(), journal.Message{Subject: "log.a", Purpose: purpose})
		if err == nil {
			err = s.Commit(t.Context(), seq)
		}
		if err != nil {
			t.Errorf("purpose %d: %v", purpose, err)
		}
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool {
		again, err := os.Stat(reserve)
		return err == nil && again.Size() == set.Size()
	})
	if err := j.Full(); err != nil {
		t.Errorf("a disk with room: %v", err)
	}
	if _, err := s.Append(t.Context(), journal.Message{Subject: "log.a"}); err != nil {
		t.Error(err)
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

// A transaction that is refused leaves nothing behind that keeps out others.
func TestRefusedTransactionsKeepOutNoOthers(t *testing.T) {
	t.Parallel()
	j := start(t, journal.Config{DataDir: t.TempDir(), MaxStoreBytes: 16 << 20})
	s := open(t, j, logStream)
	if _, err := fill(t.Context(), t, s); !errors.Is(err, journal.ErrNoSpace) {
		t.Fatal(err)
	}
	small, large := journal.Message{Subject: "log.a"}, journal.Message{Subject: "log.b", Data: make([]byte, 512<<10)}
	for range 60 {
		if _, err := s.AppendAtomic(t.Context(), []journal.Message{small, large}); !errors.Is(err, journal.ErrNoSpace) {
			t.Fatalf("refused with %v", err)
		}
	}
	small.Purpose = journal.Release
	if _, err := s.AppendAtomic(t.Context(), []journal.Message{small, small}); err != nil {
		t.Error(err)
	}
}
