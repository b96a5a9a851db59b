package workspace

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

func TestFilesAreWrittenReadAndRemoved(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), nil, nil).workspace(t)
	write(t, w, "src/main.go", "package main")
	write(t, w, "README.md", "hello")
	write(t, w, "src/main.go", "package other")
	if got := paths(w.List()); got != "README.md src/main.go" {
		t.Error(got)
	}
	if data, err := w.Read("src/main.go"); err != nil || string(data) != "package other" {
		t.Errorf("%q, %v", data, err)
	}
	onDisk, err := os.ReadFile(filepath.Join(w.Dir(), "src", "main.go"))
	if err != nil || string(onDisk) != "package other" {
		t.Errorf("on the disk: %q, %v", onDisk, err)
	}
	if w.bytes != int64(len("package other")+len("hello")) {
		t.Error("bytes:", w.bytes)
	}
	if err := w.Remove("src/main.go"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(w.Dir(), "src")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("an empty folder stays:", err)
	}
	for what, err := range map[string]error{"remove": w.Remove("src/main.go"), "read": errOf(w.Read("nothing"))} {
		var missing *NotFoundError
		if !errors.As(err, &missing) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// The name of a folder that is gone is free.
	write(t, w, "src", "a file now")
	if err := w.Write("SRC", nil); !errors.As(err, new(*violation.Error)) {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(filepath.Join(w.dir, incomingFolder)); len(entries) > 0 {
		t.Error("left behind:", entries)
	}
}

func errOf(_ []byte, err error) error { return err }

func TestQuotas(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), func(c *Config, _ *journal.Config) { c.MaxFiles, c.MaxFileBytes, c.MaxBytes = 3, 10, 20 }, nil).workspace(t)
	refused := func(name string, size int, quota Quota) {
		t.Helper()
		var q *QuotaError
		if err := w.Write(name, make([]byte, size)); !errors.As(err, &q) || q.Quota != quota || q.Path != name {
			t.Errorf("%s of %d bytes: %v", name, size, err)
		}
	}
	refused("a", 11, QuotaFileBytes)
	write(t, w, "a", strings.Repeat("a", 10))
	write(t, w, "b", strings.Repeat("b", 9))
	refused("c", 2, QuotaBytes)
	write(t, w, "c", "c")
	refused("d", 0, QuotaFiles)
	write(t, w, "a", "") // what is replaced makes room
	write(t, w, "b", strings.Repeat("b", 10))
	if err := w.Remove("c"); err != nil {
		t.Fatal(err)
	}
	write(t, w, "d", strings.Repeat("d", 10))
	if w.bytes != 20 || paths(w.List()) != "a b d" {
		t.Error(w.bytes, w.List())
	}
}

// Parallel writers share the quotas: what they were told fits is there, and no more.
func TestQuotasHoldForParallelWriters(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), func(c *Config, _ *journal.Config) { c.MaxFiles, c.MaxFileBytes, c.MaxBytes = 50, 100, 3000 }, nil).workspace(t)
	var group sync.WaitGroup
	var accepted atomic.Int64
	for writer := range 8 {
		group.Go(func() {
			for i := range 20 {
				err := w.Write(fmt.Sprintf("%d/%d", writer, i), make([]byte, 100))
				switch {
				case err == nil:
					accepted.Add(1)
				case !errors.As(err, new(*QuotaError)):
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if accepted.Load() != 30 || w.bytes != 3000 || len(w.List()) != 30 {
		t.Errorf("accepted %d, %d bytes, %d files", accepted.Load(), w.bytes, len(w.List()))
	}
	refused, err := w.Check()
	if err != nil || len(refused) > 0 || w.bytes != 3000 || len(w.List()) != 30 {
		t.Errorf("on the disk: %v, %v, %d bytes, %d files", refused, err, w.bytes, len(w.List()))
	}
}

// What others plant in the folder is neither followed nor kept.
func TestCheckRemovesWhatIsNoPlainFile(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), func(c *Config, _ *journal.Config) { c.MaxFiles, c.MaxFileBytes = 4, 100 }, nil)
	w := f.workspace(t)
	outside := filepath.Join(f.dir, "outside")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, w, "kept/file", "kept")
	write(t, w, "replaced", "mine")
	in := func(name string) string { return filepath.Join(w.Dir(), name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Symlink("../../../../outside", in("link")))
	must(os.Symlink("..", in("folder")))
	must(os.Remove(in("replaced")))
	must(os.Symlink(outside, in("replaced")))
	must(os.Link(outside, in("hard")))
	must(syscall.Mkfifo(in("pipe"), 0o600))
	must(os.Mkdir(in("empty"), 0o700))
	must(os.WriteFile(in("large"), make([]byte, 101), 0o600))
	must(os.WriteFile(in("a\nb"), nil, 0o600))
	must(os.WriteFile(in("run.sh"), []byte("true"), 0o700))
	must(os.WriteFile(in("RUN.sh"), []byte("true"), 0o700))

	if _, err := w.Read("replaced"); !errors.Is(err, errNotPlain) {
		t.Errorf("read a link: %v", err)
	}
	if err := w.Write("folder/x", []byte("x")); err == nil {
		if _, err := os.Stat(filepath.Join(f.dir, "workspaces", "default", "x")); err == nil {
			t.Error("written outside")
		}
	}
	refused, err := w.Check()
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(refused)
	for _, want := range []string{
		`"link" is a link`, `"folder" is a link`, `"replaced" is a link`, `"hard" has a second name`, `"pipe" is a pipe`, `bytes of one file`,
		`cannot be seen`, `same as "RUN.sh"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not named: %s", want, text)
		}
	}
	if got := paths(w.List()); got != "RUN.sh kept/file" || !w.List()[0].Executable {
		t.Error(got)
	}
	entries, err := os.ReadDir(w.Dir())
	if err != nil || len(entries) != 2 {
		t.Error(entries, err)
	}
	if data, err := os.ReadFile(outside); err != nil || string(data) != "secret" {
		t.Errorf("outside: %q, %v", data, err)
	}
	save(t, w)
	if f.saved(t, "kept/file") != "kept" {
		t.Error("not saved")
	}
}

func TestWorkspaceIsClosed(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil, nil)
	first, second := f.workspace(t), f.workspace(t)
	if first != second {
		t.Error("two workspaces of one run")
	}
	write(t, first, "a", "a")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, second, "b", "b")
	if err := errors.Join(second.Close(), second.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(first.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the folder stays:", err)
	}
	_, errCheck := first.Check()
	_, errSend := first.Send(new(bytes.Buffer))
	for what, err := range map[string]error{
		"write": first.Write("a", nil), "read": errOf(first.Read("a")), "remove": first.Remove("a"), "save": first.Save(t.Context()),
		"restore": first.Restore(t.Context()), "check": errCheck, "send": errSend,
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestNamesOfRuns(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil, nil)
	for _, name := range []string{"", "..", "a/b", "A", "a.b", strings.Repeat("a", 64)} {
		var v *violation.Error
		if _, err := f.Open(t.Context(), name, name); !errors.As(err, &v) || len(v.Violations) != 2 {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestConfigurationMistakes(t *testing.T) {
	t.Parallel()
	_, err := New(Config{MaxFiles: -1, PackBytes: 1 << 20}, nil, nil, nil)
	for _, mistake := range []string{"folder", "negative", "packs"} {
		if err == nil || !strings.Contains(err.Error(), mistake) {
			t.Errorf("%s: %v", mistake, err)
		}
	}
}
