package workspace

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// send returns what the workspace sends, by path, and what takes it back.
func send(t *testing.T, w *Workspace) (map[string]string, func(io.Reader) ([]string, error)) {
	t.Helper()
	var text bytes.Buffer
	back, err := w.Send(&text)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	archive := tar.NewReader(&text)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, back
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = string(data)
	}
}

// archived is an archive of what a command left.
func archived(t *testing.T, files map[string]string, more ...tar.Header) *bytes.Buffer {
	t.Helper()
	var text bytes.Buffer
	archive := tar.NewWriter(&text)
	for name, content := range files {
		more = append(more, tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o600})
	}
	slices.SortStableFunc(more, func(a, b tar.Header) int { return strings.Compare(a.Name, b.Name) })
	for _, header := range more {
		if err := archive.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(archive, files[header.Name]); header.Typeflag == tar.TypeReg && err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return &text
}

func TestWhatACommandLeftIsTakenBack(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), nil, nil).workspace(t)
	for _, name := range []string{"same", "changed", "removed", "changed here", "removed here", "both"} {
		write(t, w, name, name)
	}
	files, back := send(t, w)
	if len(files) != 6 || files["changed"] != "changed" {
		t.Fatal(files)
	}
	// Meanwhile others go on.
	write(t, w, "changed here", "newer")
	write(t, w, "added here", "new")
	write(t, w, "both", "here")
	if err := w.Remove("removed here"); err != nil {
		t.Fatal(err)
	}
	refused, err := back(archived(t, map[string]string{
		"same": "same", "changed": "by the command", "changed here": "changed here", "removed here": "removed here", "both": "there", "new/file": "new",
	}))
	if err != nil || len(refused) > 0 {
		t.Fatal(refused, err)
	}
	want := map[string]string{
		"same": "same", "changed": "by the command", "changed here": "newer", "added here": "new", "both": "there", "new/file": "new",
	}
	if got, _ := send(t, w); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if entries, _ := os.ReadDir(filepath.Join(w.dir, incomingFolder)); len(entries) > 0 {
		t.Error("left behind:", entries)
	}
}

func TestWhatACommandMustNotLeave(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), func(c *Config, _ *journal.Config) { c.MaxFiles, c.MaxFileBytes, c.MaxBytes = 4, 100, 150 }, nil)
	w := f.workspace(t)
	write(t, w, "mine", "mine")
	_, back := send(t, w)
	refused, err := back(archived(t, map[string]string{
		"../../x": "x", "/abs": "x", "a/../../x": "x", "ok": "fine", "OK": "fine too", "large": strings.Repeat("x", 101),
		"z1": strings.Repeat("x", 90), "z2": strings.Repeat("x", 90), "dev/con": "x", "bad\nname": "x",
	},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "../../x"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "mine", Linkname: "/etc/shadow"},
		tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "/etc/shadow"},
		tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3},
		tar.Header{Typeflag: tar.TypeFifo, Name: "pipe"},
		tar.Header{Typeflag: tar.TypeDir, Name: "folder/"},
	))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(refused, "\n")
	for _, want := range []string{
		"../../x", "absolute", `"link" is a link`, `"mine" is a link`, `"hard" is a link`, `"null" is a device`, `"pipe" is a pipe`, "bytes of one file",
		"bytes of all files", "same as", "device of Windows", "cannot be seen",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not named:\n%s", want, text)
		}
	}
	if got := paths(w.List()); got != "ok z1" {
		t.Error(got)
	}
	err = filepath.WalkDir(f.dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && (entry.Name() == "x" || entry.Name() == "abs" || entry.Type()&fs.ModeSymlink != 0) {
			t.Error("written:", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), nil, nil).workspace(t)
	_, back := send(t, w)
	var links []tar.Header
	for i := range 1000 {
		links = append(links, tar.Header{Typeflag: tar.TypeSymlink, Name: fmt.Sprint(i, strings.Repeat("x", 1000)), Linkname: "x"})
	}
	refused, err := back(archived(t, nil, links...))
	if err != nil || len(refused) != maxRefused+1 || len(refused[0]) > 300 {
		t.Errorf("%d refusals, %v", len(refused), err)
	}
}

// An archive that breaks off, anywhere, changes nothing.
func TestBrokenArchiveChangesNothing(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), nil, nil).workspace(t)
	write(t, w, "a", "a")
	whole := archived(t, map[string]string{"b": strings.Repeat("b", 2000), "c": "c"}).Bytes()
	for _, length := range []int{1, 511, 600, 1500, len(whole) - 1024 - 512} {
		_, back := send(t, w)
		if _, err := back(bytes.NewReader(whole[:length])); err == nil {
			t.Errorf("%d bytes were taken", length)
		}
		if got := paths(w.List()); got != "a" {
			t.Errorf("%d bytes: %s", length, got)
		}
	}
	if entries, _ := os.ReadDir(filepath.Join(w.dir, incomingFolder)); len(entries) > 0 {
		t.Error("left behind:", entries)
	}
}

func FuzzTakeBack(f *testing.F) {
	f.Add([]byte("not an archive"))
	f.Add([]byte{})
	var whole bytes.Buffer
	archive := tar.NewWriter(&whole)
	_ = archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "../x", Size: 1})
	_, _ = archive.Write([]byte("x"))
	_ = archive.Close()
	f.Add(whole.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		root := t.TempDir()
		s, err := New(Config{Dir: root, MaxFileBytes: 1 << 10}, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := os.OpenRoot(root)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = opened.Close() }()
		for _, folder := range []string{filesFolder, incomingFolder} {
			if err := opened.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		w := &Workspace{store: s, root: opened, dir: root, files: map[string]File{}}
		r := &returning{w: w, root: opened, back: map[string]returned{}}
		_, _ = r.take(bytes.NewReader(data))
		refused, err := w.Check()
		if err != nil || len(refused) > 0 {
			t.Fatal(refused, err)
		}
	})
}
