package definition

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// words is a Checker of documents whose first word is their name; "bad" has two mistakes.
type words struct{}

func (words) Check(_ string, _ Kind, text []byte) (Checked, error) {
	name, description, _ := strings.Cut(string(text), " ")
	if name == "bad" {
		return Checked{}, violation.Join(violation.New("nodes.a", "is bad"), violation.New("edges[0]", "is bad too"))
	}
	return Checked{Name: name, Description: description}, nil
}

func folderOf(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReadFolder(t *testing.T) {
	t.Parallel()
	dir := folderOf(t, map[string]string{
		"graphs/a.yaml": "a first", "graphs/b.yml": "b", "graphs/c.json": "c", "graphs/.d.yaml": "bad", "graphs/README.md": "bad",
		"agents/a.yaml": "a agent", "other/a.yaml": "bad", "e.yaml": "bad",
	})
	definitions, err := ReadFolder(dir, words{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range definitions {
		got = append(got, string(d.Kind)+" "+d.Name+" "+d.Description)
	}
	if want := "graph a first,graph b ,graph c ,agent a agent"; strings.Join(got, ",") != want {
		t.Errorf("%v", got)
	}
}

func TestReadFolderNamesEveryMistake(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files map[string]string
		want  []string
	}{
		"in several files": {
			map[string]string{"graphs/a.yaml": "bad", "graphs/b.yaml": "b", "agents/c.json": "bad", "agents/d.json": "bad name"},
			[]string{
				"graphs/a.yaml: nodes.a: is bad", "graphs/a.yaml: edges[0]: is bad too",
				"agents/c.json: nodes.a: is bad", "agents/c.json: edges[0]: is bad too",
				"agents/d.json: nodes.a: is bad", "agents/d.json: edges[0]: is bad too",
			},
		},
		"a name twice":  {map[string]string{"graphs/a.yaml": "a", "graphs/b.yaml": "a"}, []string{"graphs/b.yaml: name: a is that of graphs/a.yaml too"}},
		"no name":       {map[string]string{"graphs/a.yaml": "ä"}, []string{"graphs/a.yaml: name: must be letters, digits, dashes and underscores, at most 100"}},
		"empty":         {map[string]string{"graphs/a.yaml": ""}, []string{"graphs/a.yaml: name: must be letters, digits, dashes and underscores, at most 100", "graphs/a.yaml: document: is empty"}},
		"too long":      {map[string]string{"graphs/a.yaml": strings.Repeat("a", MaxTextBytes+1)}, []string{"graphs/a.yaml: is longer than 262144 bytes"}},
		"a folder":      {map[string]string{"graphs/a.yaml/b": ""}, []string{"graphs/a.yaml: read"}},
		"nothing there": {map[string]string{"graph/a.yaml": "a"}, []string{"has neither a folder graphs nor a folder agents"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ReadFolder(folderOf(t, test.files), words{})
			if err == nil {
				t.Fatal("no mistake was found")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(test.want) {
				t.Fatalf("%v", err)
			}
			for i, want := range test.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("%q, want %q", lines[i], want)
				}
			}
		})
	}
}
