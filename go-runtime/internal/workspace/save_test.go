package workspace

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

func TestSavedFilesComeBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	large := strings.Repeat("0123456789abcdef", 60_000) // more than a pack
	f := start(t, dir, nil, nil)
	w := f.workspace(t)
	write(t, w, "src/large.txt", large)
	write(t, w, "empty", "")
	write(t, w, "gone", "gone")
	save(t, w)
	write(t, w, "copy.txt", large)
	if err := w.Remove("gone"); err != nil {
		t.Fatal(err)
	}
	save(t, w)
	write(t, w, "unsaved", "unsaved")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f.stop()

	// On another machine there is only what the journal has.
	f = start(t, dir, func(c *Config, _ *journal.Config) { c.Dir = filepath.Join(t.TempDir(), "elsewhere") }, nil)
	w = f.workspace(t)
	if got := paths(w.List()); got != "copy.txt empty src/large.txt" {
		t.Error(got)
	}
	if data, err := w.Read("src/large.txt"); err != nil || string(data) != large {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	write(t, w, "empty", "not any more")
	if err := w.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if data, err := w.Read("empty"); err != nil || len(data) > 0 {
		t.Errorf("%q, %v", data, err)
	}
	if files, err := f.Files(t.Context(), "default", runID); err != nil || fmt.Sprint(files) != fmt.Sprint(w.List()) {
		t.Errorf("%v, %v", files, err)
	}
	if f.saved(t, "copy.txt") != large || f.saved(t, "empty") != "" {
		t.Error("other contents")
	}
	if _, _, err := f.Get(t.Context(), "default", runID, "gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if files, err := f.Files(t.Context(), "other", runID); err != nil || len(files) > 0 {
		t.Errorf("another namespace sees %v, %v", files, err)
	}
}

// Contents that were saved are not written again, and what is not needed any
// more does not pile up.
func TestContentsAreWrittenOnce(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil, nil)
	w := f.workspace(t)
	appended := func() uint64 { return f.journal.Stats().Appends }
	random := func() string {
		data := make([]byte, 900_000)
		_, _ = rand.NewChaCha8([32]byte{byte(appended())}).Read(data)
		return string(data)
	}
	text := random()
	for i := range 20 {
		write(t, w, fmt.Sprintf("%d.bin", i), text)
	}
	save(t, w)
	before := appended()
	save(t, w)
	if appended() != before {
		t.Error("the same files were saved twice")
	}
	write(t, w, "small", "small")
	save(t, w)
	if n := appended() - before; n > 3 {
		t.Errorf("a small file took %d records", n)
	}
	for range 12 {
		for i := range 20 {
			write(t, w, fmt.Sprintf("%d.bin", i), text)
		}
		text = random()
		save(t, w)
	}
	if limit := 2*w.distinct() + slack + 1<<20; w.saved.Packed > limit {
		t.Errorf("%d bytes are kept, want at most %d", w.saved.Packed, limit)
	}
	first, _, err := f.stream.Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if first == 1 {
		t.Error("nothing was dropped")
	}
	if got := f.saved(t, "7.bin"); len(got) != 900_000 {
		t.Error(len(got))
	}
}

func TestArchive(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil, nil)
	w := f.workspace(t)
	write(t, w, "größe/a.txt", "content")
	if err := os.WriteFile(filepath.Join(w.Dir(), "run.sh"), []byte("true"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Check(); err != nil {
		t.Fatal(err)
	}
	save(t, w)
	var text bytes.Buffer
	if err := f.Archive(t.Context(), "default", runID, &text); err != nil {
		t.Fatal(err)
	}
	archive, err := zip.NewReader(bytes.NewReader(text.Bytes()), int64(text.Len()))
	if err != nil || len(archive.File) != 2 {
		t.Fatal(err)
	}
	if archive.File[1].Name != "run.sh" || archive.File[1].Mode() != 0o755 {
		t.Error(archive.File[1].Name, archive.File[1].Mode())
	}
	content, err := archive.File[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(content); err != nil || string(data) != "content" || archive.File[0].Name != "größe/a.txt" {
		t.Errorf("%s: %q, %v", archive.File[0].Name, data, err)
	}
}

func TestFullStoreRefusesASave(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), func(_ *Config, j *journal.Config) { j.MaxStoreBytes = 4 << 20 }, nil)
	w := f.workspace(t)
	write(t, w, "first", "first")
	save(t, w)
	for i := range 30 {
		data := make([]byte, 1<<20)
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(data)
		if err := w.Write(strconv.Itoa(i), data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Save(t.Context()); !errors.Is(err, journal.ErrNoSpace) {
		t.Fatal(err)
	}
	if files, err := f.Files(t.Context(), "default", runID); err != nil || paths(files) != "first" {
		t.Errorf("%v, %v", files, err)
	}
	if err := f.Delete(t.Context(), "default", runID); err != nil {
		t.Fatal("what makes room was refused:", err)
	}
}

func TestDamagedContentsAreNoticed(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil, nil)
	w := f.workspace(t)
	write(t, w, "a", "a")
	save(t, w)
	at := place{"default", runID}
	if err := f.stream.Purge(t.Context(), at.subject(packPrefix)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Files(t.Context(), "default", runID); !errors.Is(err, ErrDamaged) {
		t.Error("files:", err)
	}
	if err := w.Restore(t.Context()); !errors.Is(err, ErrDamaged) {
		t.Error("restore:", err)
	}
	// A record of another run is not taken for one's own.
	other := &unpacker{stream: f.stream, subject: "file.pack.x.y"}
	latest, _, err := f.readRoot(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	latest.Index.Extents = []extent{{latest.seq, 0, 1}}
	if _, err := other.readIndex(t.Context(), latest); !errors.Is(err, ErrDamaged) {
		t.Error("index:", err)
	}
}

func TestDeletedRunIsNotSavedAgain(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil, nil)
	w := f.workspace(t)
	write(t, w, "a", "a")
	save(t, w)
	if err := f.Delete(t.Context(), "default", runID); err != nil {
		t.Fatal(err)
	}
	if files, err := f.Files(t.Context(), "default", runID); err != nil || len(files) > 0 {
		t.Errorf("%v, %v", files, err)
	}
	write(t, w, "a", "b")
	if err := w.Save(t.Context()); !errors.Is(err, ErrSuperseded) {
		t.Error(err)
	}
}

// A save whose answer was lost does not stand in the way of the next.
func TestSaveOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil, nil)
	w := f.workspace(t)
	write(t, w, "a", "a")
	save(t, w)
	before := w.saved
	write(t, w, "a", "b")
	save(t, w)
	w.saving, w.saved = w.saved.ID, before // as if nobody had heard of it
	write(t, w, "a", "c")
	save(t, w)
	if got := f.saved(t, "a"); got != "c" {
		t.Error(got)
	}
}

func TestSweepRemovesFilesOfOldRuns(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ids := map[string]RunStatus{
		"live": {Known: true}, "fresh": {Known: true, Ended: now.Add(-6 * 24 * time.Hour)},
		"old": {Known: true, Ended: now.Add(-8 * 24 * time.Hour)}, "open": {Known: true, Ended: now.Add(-8 * 24 * time.Hour)}, "forgotten": {},
	}
	var at time.Time
	f := start(t, t.TempDir(), func(c *Config, _ *journal.Config) { c.Now = func() time.Time { return at } },
		func(_ context.Context, namespace, runID string) (RunStatus, error) {
			if namespace != "default" {
				return RunStatus{}, fmt.Errorf("asked for namespace %s", namespace)
			}
			return ids[runID], nil
		})
	for id := range ids {
		w, err := f.Open(t.Context(), "default", id)
		if err != nil {
			t.Fatal(err)
		}
		write(t, w, "a", "a")
		save(t, w)
		if id != "open" {
			_ = w.Close()
		}
	}
	left := func() string {
		t.Helper()
		if err := f.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, id := range []string{"live", "fresh", "old", "open", "forgotten"} {
			if files, err := f.Files(t.Context(), "default", id); err != nil {
				t.Fatal(err)
			} else if len(files) > 0 {
				found = append(found, id)
			}
		}
		return strings.Join(found, " ")
	}
	at = now
	if got := left(); got != "live fresh open forgotten" {
		t.Error(got)
	}
	at = now.Add(2 * time.Hour) // nobody knows the forgotten one for longer than a run takes to be known
	if got := left(); got != "live fresh open" {
		t.Error(got)
	}
	if n := records(t, f, ">"); n == 0 {
		t.Error("nothing is left")
	}
	for _, id := range []string{"old", "forgotten"} {
		if n := records(t, f, "*.default."+id); n > 0 {
			t.Errorf("%d records of %s are left", n, id)
		}
	}
}

func records(t *testing.T, f *fixture, filter string) int {
	t.Helper()
	n := 0
	if _, err := f.stream.Scan(t.Context(), 0, false, []string{subjectRoot + filter}, func(journal.Record) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// A process that is killed right after Save returned has lost nothing of it.
func TestSavedFilesOutliveKill(t *testing.T) {
	t.Parallel()
	for _, rounds := range []int{1, 2, 5} {
		t.Run(strconv.Itoa(rounds), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), saveHelper+"="+dir)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines, told := bufio.NewScanner(out), 0
			for told < rounds && lines.Scan() {
				told++
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			for lines.Scan() {
				told++
			}
			_ = cmd.Wait()
			if told < rounds {
				t.Fatalf("it saved %d times", told)
			}
			w := start(t, dir, nil, nil).workspace(t)
			if len(w.List()) != 20 {
				t.Fatalf("%d files", len(w.List()))
			}
			data, err := w.Read("src/0.txt")
			if err != nil {
				t.Fatal(err)
			}
			// What was saved and not yet told may be there too; but as a whole.
			round := told
			if bytes.Equal(data, roundText(told+1, 0)) {
				round++
			}
			for i := range 20 {
				data, err := w.Read(fmt.Sprintf("src/%d.txt", i))
				if err != nil || !bytes.Equal(data, roundText(round, i)) {
					t.Errorf("file %d is not that of round %d: %.40q, %v", i, round, data, err)
				}
			}
		})
	}
}
