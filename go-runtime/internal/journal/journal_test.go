package journal_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

var discard = slog.New(slog.DiscardHandler)

func start(t *testing.T, cfg journal.Config) *journal.Journal {
	t.Helper()
	j, err := journal.New(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return j
}

func open(t *testing.T, j *journal.Journal, cfg journal.StreamConfig) *journal.Stream {
	t.Helper()
	s, err := j.OpenStream(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConfigurationMistakesAreAllNamed(t *testing.T) {
	t.Parallel()
	_, err := journal.New(journal.Config{Durability: "maybe", Replicas: 2, MinFreeBytes: -1, MaxStoreBytes: -1, MaxMessageBytes: 1}, discard)
	for _, mistake := range []string{"data folder", "maybe", "replicas", "free space", "store limit", "largest record"} {
		if err == nil || !strings.Contains(err.Error(), mistake) {
			t.Errorf("the error does not name the %s: %v", mistake, err)
		}
	}
	if _, err := journal.New(journal.Config{NATSURL: "nats://127.0.0.1:1", Replicas: 1}, discard); err == nil {
		t.Error("one replica with fsync on a cluster was accepted")
	}
}

func TestStopIsSafeTwiceAndBeforeStart(t *testing.T) {
	t.Parallel()
	j, err := journal.New(journal.Config{DataDir: t.TempDir()}, discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Stop(t.Context()), j.Stop(t.Context())); err != nil {
		t.Error(err)
	}
	if err := j.Start(t.Context()); err == nil {
		t.Error("started after the stop")
	}
}

func TestDataFolderIsOwnedByOneProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, journal.Config{DataDir: dir})
	second, err := journal.New(journal.Config{DataDir: dir}, discard)
	if err != nil {
		t.Fatal(err)
	}
	var locked *journal.LockedError
	if err := second.Start(t.Context()); !errors.As(err, &locked) || locked.Holder != fmt.Sprintf("process %d", os.Getpid()) {
		t.Errorf("second start: %v", err)
	}
	if err := first.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	start(t, journal.Config{DataDir: dir})
}

// What was committed before a stop is there after the next start, and Follow
// ends with the journal.
func TestRecordsOutliveTheProcess(t *testing.T) {
	t.Parallel()
	for _, durability := range []journal.Durability{journal.Fsync, journal.OS} {
		t.Run(string(durability), func(t *testing.T) {
			t.Parallel()
			cfg := journal.Config{DataDir: t.TempDir(), Durability: durability}
			log := journal.StreamConfig{Name: "LOG", Subjects: []string{"log.>"}}
			j := start(t, cfg)
			s := open(t, j, log)
			seq, err := s.Append(t.Context(), journal.Message{Subject: "log.a", Data: []byte("kept")})
			if err != nil || s.Commit(t.Context(), seq) != nil {
				t.Fatal(err)
			}
			following := make(chan struct{})
			ended := make(chan error, 1)
			go func() {
				ended <- s.Follow(t.Context(), 0, nil, func([]journal.Record, uint64) error {
					close(following)
					return nil
				})
			}()
			<-following
			if err := j.Stop(context.Background()); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; !errors.Is(err, journal.ErrUnavailable) {
				t.Errorf("follow ended with %v", err)
			}
			if _, err := s.Append(t.Context(), journal.Message{Subject: "log.a"}); !errors.Is(err, journal.ErrUnavailable) {
				t.Errorf("append after the stop: %v", err)
			}
			if r, err := open(t, start(t, cfg), log).Last(t.Context(), "log.a"); err != nil || string(r.Data) != "kept" || r.Sequence != seq {
				t.Errorf("after the restart: %+v, %v", r, err)
			}
		})
	}
}
