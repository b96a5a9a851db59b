package definition

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Checker finds out whether a document can be registered.
type Checker interface {
	// Check returns what a document says. Its error is a *violation.Error that names every
	// mistake with its place in the document, or a *violation.TooLargeError.
	Check(namespace string, kind Kind, text []byte) (Checked, error)
}

// Checked is what a document says that can be registered.
type Checked struct {
	Name, Description string
	// Missing are the graphs and agents that it names and the namespace does not see. They
	// may come before it runs, and agents may be those of workers.
	Missing []Reference
}

// Reference is a name in a document of another one.
type Reference struct {
	// Place is where it stands, such as `nodes.plan.with.graph`.
	Place string
	Kind  Kind
	Name  string
}

// ReadFolder reads the documents of a folder: the files *.yaml, *.yml and *.json of its
// subfolders graphs and agents, of which one may be missing. Its error names all mistakes of all files,
// each with its file and its place there.
func ReadFolder(dir string, checker Checker) ([]Definition, error) {
	var (
		all     []Definition
		wrong   []error
		missing int
	)
	for _, kind := range []Kind{Graph, Agent} {
		sub := string(kind) + "s"
		files, err := os.ReadDir(filepath.Join(dir, sub))
		switch {
		case errors.Is(err, os.ErrNotExist):
			missing++
		case err != nil:
			wrong = append(wrong, fmt.Errorf("read definitions: %w", err))
		}
		byName := map[string]string{}
		for _, file := range files {
			if !isDocument(file.Name()) {
				continue
			}
			short := filepath.Join(sub, file.Name())
			d, err := readFile(filepath.Join(dir, short), kind, checker)
			if err != nil {
				wrong = append(wrong, inFile(short, err)...)
				continue
			}
			if other, taken := byName[d.Name]; taken {
				wrong = append(wrong, fmt.Errorf("%s: name: %s is that of %s too", short, d.Name, other))
			}
			byName[d.Name] = short
			all = append(all, d)
		}
	}
	if missing > 1 {
		wrong = append(wrong, fmt.Errorf("read definitions: %s has neither a folder graphs nor a folder agents", dir))
	}
	if len(all) > MaxDefinitions {
		wrong = append(wrong, fmt.Errorf("read definitions: %s has %d documents, %d are the most", dir, len(all), MaxDefinitions))
	}
	return all, errors.Join(wrong...)
}

func isDocument(file string) bool {
	// Editors and orchestrators keep what is not meant under names that begin with a dot.
	return !strings.HasPrefix(file, ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(file))
}

func readFile(path string, kind Kind, checker Checker) (d Definition, err error) {
	file, err := os.Open(path)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	text, err := io.ReadAll(io.LimitReader(file, MaxTextBytes+1))
	if err != nil {
		return d, err
	}
	d = Definition{Kind: kind, Text: text}
	if len(text) > MaxTextBytes {
		return d, fmt.Errorf("is longer than %d bytes", MaxTextBytes)
	}
	said, err := checker.Check("", kind, text)
	if err != nil {
		return d, err
	}
	d.Name, d.Description = said.Name, said.Description
	return d, d.check()
}

// inFile has each mistake say in which file it is.
func inFile(file string, err error) []error {
	mistakes, many := errors.AsType[*violation.Error](err)
	if !many {
		return []error{fmt.Errorf("%s: %w", file, err)}
	}
	wrong := make([]error, len(mistakes.Violations))
	for i, v := range mistakes.Violations {
		wrong[i] = fmt.Errorf("%s: %s: %s", file, v.Field, v.Description)
	}
	return wrong
}
