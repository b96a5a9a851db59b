package workspace

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

func TestPaths(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 255)
	for name, test := range map[string]struct {
		path, problem string // empty: it is fine
	}{
		"plain":              {"main.go", ""},
		"folders":            {"src/pkg/main.go", ""},
		"dot file":           {".github/.env", ""},
		"dots inside":        {"a..b/...c", ""},
		"brackets":           {"pages/[...slug].tsx", ""},
		"spaces":             {"my file.txt", ""},
		"letters":            {"größe/δοκιμή.txt", ""},
		"long part":          {long + "/b", ""},
		"twenty deep":        {strings.Repeat("a/", 19) + "a", ""},
		"empty":              {"", "is empty"},
		"absolute":           {"/etc/passwd", "is absolute"},
		"up":                 {"../x", "two dots"},
		"up inside":          {"a/../../x", "two dots"},
		"up and back":        {"a/../b", "two dots"},
		"only up":            {"..", "two dots"},
		"the folder":         {".", "a dot"},
		"dot part":           {"a/./b", "a dot"},
		"slashes":            {"a//b", "empty part"},
		"slash at the end":   {"a/", "empty part"},
		"NUL":                {"a\x00b", "cannot be seen"},
		"line break":         {"a\nb", "cannot be seen"},
		"right to left":      {"a\u202egnp.exe", "cannot be seen"},
		"zero width":         {"a\u200bb", "cannot be seen"},
		"no-break space":     {"a\u00a0b", "cannot be seen"},
		"not UTF-8":          {"a\xff", "not UTF-8"},
		"decomposed":         {"gro\u0308\u00dfe", "composed"},
		"backslash":          {`a\b`, "one of the characters"},
		"drive":              {"C:x", "one of the characters"},
		"stream":             {"a.txt:secret", "one of the characters"},
		"star":               {"*", "one of the characters"},
		"dot at the end":     {"a./b", "ends in a dot"},
		"three dots":         {"...", "ends in a dot"},
		"space at the end":   {"a /b", "ends in a dot or a space"},
		"device":             {"src/nul", "device of Windows"},
		"device with ending": {"Aux.py", "device of Windows"},
		"numbered device":    {"com1.txt", "device of Windows"},
		"too long a part":    {long + "a", "255 bytes"},
		"too long":           {strings.Repeat("abcd/", 10) + strings.Repeat("a", 1000), "1024 bytes"},
		"too deep":           {strings.Repeat("a/", 20) + "a", "20 deep"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := CheckPath(test.path)
			if test.problem == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var v *violation.Error
			if !errors.As(err, &v) || v.Violations[0].Field != "path" || !strings.Contains(err.Error(), test.problem) {
				t.Errorf("want %q, got %v", test.problem, err)
			}
		})
	}
}

func TestSpellings(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		known   []string
		path    string
		problem string
	}{
		"another":               {[]string{"a", "b/c"}, "b/d", ""},
		"itself":                {[]string{"A"}, "A", ""},
		"case":                  {[]string{"README.md"}, "readme.md", "same as"},
		"case beyond ASCII":     {[]string{"ÄÖ"}, "äö", "same as"},
		"sharp s":               {[]string{"strasse"}, "straße", "same as"},
		"the sign of kelvin":    {[]string{"k"}, "\u212a", "same as"},
		"case of a folder":      {[]string{"src/a"}, "SRC/b", "same as"},
		"case of an inner one":  {[]string{"src/a/b"}, "src/A/c", "same as"},
		"a folder's name":       {[]string{"src/a"}, "src", "name of the folder"},
		"a folder, other case":  {[]string{"src/a"}, "SRC", "name of the folder"},
		"under a file":          {[]string{"src"}, "src/a", "name of the file"},
		"under a file, deeper":  {[]string{"src/a"}, "src/A/b", "name of the file"},
		"folded to more bytes":  {[]string{"ß/a"}, "ß/b", ""},
		"folders of equal fold": {[]string{"ß/x/a"}, "ss/y", "same as"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			problem := newSpellings(slices.Values(test.known)).clash(test.path)
			if (problem == "") != (test.problem == "") || !strings.Contains(problem, test.problem) {
				t.Errorf("got %q, want %q", problem, test.problem)
			}
		})
	}
}

// Whatever path is accepted makes a file in the folder, under that very name.
func FuzzCheckPath(f *testing.F) {
	for _, seed := range []string{
		"a", "../a", "/a", "a/b", "a/../b", ".", "..", "a\x00", "a.", "nul", "a\\b", "\xff", "ß", "a/", strings.Repeat("a/", 30), "C:", "a\u202eb",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if CheckPath(name) != nil {
			return
		}
		if !filepath.IsLocal(name) || filepath.Clean(name) != name || strings.ContainsAny(name, "\x00\\") {
			t.Fatalf("%q was accepted", name)
		}
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = root.Close() }()
		full := filepath.Join(filesFolder, name)
		if err := root.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := root.WriteFile(full, nil, 0o600); err != nil {
			t.Fatalf("%q was accepted: %v", name, err)
		}
		if s := newSpellings(slices.Values([]string{name})); s.clash(name) != "" {
			t.Fatalf("%q clashes with itself: %s", name, s.clash(name))
		}
	})
}
