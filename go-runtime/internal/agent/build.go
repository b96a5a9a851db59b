package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/sandbox/check"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
	"github.com/djangobridge/djangobridge/go-runtime/internal/workspace"
)

// maxRepairs is how often an agent may mend what its checks found.
const maxRepairs = 3

// What of a workspace stands in an output: files up to a size, as long as there is room.
// The others have no content there, and are downloaded.
const (
	maxShownFile  = 64 << 10
	maxShownFiles = 256 << 10
	// maxShownCheck is how much of what a check found the model is shown.
	maxShownCheck = 8 << 10
)

// Workshop is where agents build: the folders of runs, and what looks at the files in them.
type Workshop interface {
	// Open returns the workspace of a run; see workspace.Store.
	Open(ctx context.Context, namespace, runID string) (*workspace.Workspace, error)
	// Check runs the checks that fit the files.
	Check(ctx context.Context, files *workspace.Workspace) ([]check.Result, error)
}

// builder writes the files of answers into the run's workspace, has them checked, and lets
// the model mend what does not pass.
type builder struct{ Workshop }

// begin opens the workspace of a run. The first call with the run puts the files there that
// it was given.
func (b *builder) begin(ctx context.Context, call engine.Call, given []madeFile) (*workspace.Workspace, error) {
	w, err := b.Open(ctx, call.Namespace, call.RunID)
	if err != nil {
		return nil, err
	}
	if len(w.List()) > 0 || len(given) == 0 {
		return w, nil
	}
	refused, err := writeAll(w, given)
	if err == nil && len(refused) > 0 {
		err = violation.New("input.files", "%s", refused[0].Output)
	}
	if err == nil {
		err = w.Save(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// madeFile is a file as answers have it.
type madeFile struct {
	Path     string  `json:"path"`
	Language string  `json:"language"`
	Content  *string `json:"content,omitempty"`
	// Size stands in the place of a content that is too large to be shown.
	Size int64 `json:"size,omitempty"`
}

// buildAnswer is the node that builds what the model has answered.
func (t *turnOfLoop) buildAnswer(ctx context.Context, _ *graph.Call, state graph.State) (graph.Command, error) {
	text, _ := state[answerChannel].(string)
	files, err := filesOf(text)
	if err != nil {
		return graph.Command{}, err
	}
	refused, err := writeAll(t.workspace, files)
	if err != nil {
		return graph.Command{}, err
	}
	checks, err := t.build.Check(ctx, t.workspace)
	if err != nil {
		return graph.Command{}, fmt.Errorf("check files: %w", err)
	}
	checks = append(refused, checks...)
	if err := t.workspace.Save(ctx); err != nil {
		return graph.Command{}, err
	}
	command := graph.Command{Update: graph.State{checksChannel: checks}}
	failed := describeFailed(checks)
	if repairs, _ := state[repairsChannel].(float64); failed == "" || repairs >= maxRepairs || ledgerOf(ctx).isOffline() {
		return command, nil
	}
	command.Update[repairsChannel] = 1
	return askAgain(command, failed), nil
}

func filesOf(answer string) ([]madeFile, error) {
	var made struct {
		Files []madeFile `json:"files"`
	}
	if err := json.Unmarshal([]byte(answer), &made); err != nil {
		return nil, fmt.Errorf("read files of the answer: %w", err)
	}
	return made.Files, nil
}

// writeAll writes files, and returns what of them the workspace does not take, as a check
// that failed.
func writeAll(w *workspace.Workspace, files []madeFile) ([]check.Result, error) {
	var problems, paths []string
	for _, file := range files {
		if file.Content == nil {
			continue
		}
		problem, err := problemOf(w.Write(file.Path, []byte(*file.Content)))
		if err != nil {
			return nil, err
		}
		if problem != "" {
			problems, paths = append(problems, problem), append(paths, file.Path)
		}
	}
	if len(problems) == 0 {
		return nil, nil
	}
	return []check.Result{{Name: "write files", Status: check.Failed, Files: paths, Output: strings.Join(problems, "\n")}}, nil
}

// problemOf is what a model can mend about a file that was not written. Other errors stay.
func problemOf(err error) (string, error) {
	if errors.As(err, new(*violation.Error)) || errors.As(err, new(*workspace.QuotaError)) ||
		errors.As(err, new(*workspace.NotFoundError)) {
		return err.Error(), nil
	}
	return "", err
}

// describeFailed asks the model to mend what did not pass; empty: all passed.
func describeFailed(checks []check.Result) string {
	var said strings.Builder
	for _, c := range checks {
		if c.Status == check.Failed {
			fmt.Fprintf(&said, "\n\nCheck %q of %s:\n%s", c.Name, strings.Join(c.Files, ", "), violation.Clip(c.Output, maxShownCheck))
		}
	}
	if said.Len() == 0 {
		return ""
	}
	return "Your files were written and checked, and this does not pass. Mend it, and send the whole answer again, " +
		"with each file that changes whole; the others stay as they are." + said.String()
}

// shown are the files of a workspace that were made or changed, as an output has them.
// Those of the answer keep the language that it gives.
func shown(w *workspace.Workspace, given, answered []madeFile) ([]madeFile, error) {
	files := []madeFile{}
	room := maxShownFiles
	for _, file := range w.List() {
		if before := named(given, file.Path); before != nil && before.Content != nil && sumOf(*before.Content) == file.SHA256 {
			continue
		}
		made := madeFile{Path: file.Path, Language: languageOf(file.Path), Size: file.Size}
		if said := named(answered, file.Path); said != nil {
			made.Language = said.Language
		}
		if file.Size <= maxShownFile && int(file.Size) <= room {
			content, err := w.Read(file.Path)
			if err != nil {
				return nil, err
			}
			text := strings.ToValidUTF8(string(content), "\uFFFD")
			made.Content, made.Size = &text, 0
			room -= len(text)
		}
		files = append(files, made)
	}
	return files, nil
}

func named(files []madeFile, path string) *madeFile {
	if i := slices.IndexFunc(files, func(f madeFile) bool { return f.Path == path }); i >= 0 {
		return &files[i]
	}
	return nil
}

func sumOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// adopt copies what a sub-run has made into a workspace, and returns the paths.
func (b *builder) adopt(ctx context.Context, into *workspace.Workspace, namespace, runID string) (paths []string, err error) {
	from, err := b.Open(ctx, namespace, runID)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	for _, file := range from.List() {
		content, err := from.Read(file.Path)
		if err != nil {
			return nil, err
		}
		problem, err := problemOf(into.Write(file.Path, content))
		if err != nil {
			return nil, err
		}
		if problem != "" {
			return nil, refusalError(problem)
		}
		paths = append(paths, file.Path)
	}
	if len(paths) == 0 {
		return nil, nil
	}
	return paths, into.Save(ctx)
}

// languageOf is the language of a file by its name, as agents name languages.
func languageOf(name string) string {
	languages := map[string]string{
		".py": "python", ".go": "go", ".js": "javascript", ".ts": "typescript", ".md": "markdown", ".yml": "yaml",
		".sh": "shell", ".rs": "rust", ".rb": "ruby", ".txt": "text", "": "text",
	}
	extension := strings.ToLower(path.Ext(name))
	if known, there := languages[extension]; there {
		return known
	}
	return strings.TrimPrefix(extension, ".")
}
