package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
	"github.com/djangobridge/djangobridge/go-runtime/internal/workspace"
)

// workspaceTools are those with which a model works in the workspace of its run.
func workspaceTools(workshop Workshop) []tool.Tool {
	f := fileTools{workshop}
	const path = `{"path": {"type": "string", "description": "Relative path with forward slashes."}`
	return []tool.Tool{
		{
			Name: "write_file", Description: "Writes a file of the project, new or in the place of what it was.",
			Schema: []byte(`{"type": "object", "properties": ` + path + `, "content": {"type": "string", "description": "The whole file."}},
				"required": ["path", "content"], "additionalProperties": false}`),
			Call: f.changes("wrote", func(w *workspace.Workspace, a fileArguments) error { return w.Write(a.Path, []byte(a.Content)) }),
		},
		{
			Name: "remove_file", Description: "Removes a file of the project.",
			Schema: []byte(`{"type": "object", "properties": ` + path + `}, "required": ["path"], "additionalProperties": false}`),
			Call:   f.changes("removed", func(w *workspace.Workspace, a fileArguments) error { return w.Remove(a.Path) }),
		},
		{
			Name: "read_file", Description: "Reads a file of the project.",
			Schema: []byte(`{"type": "object", "properties": ` + path + `}, "required": ["path"], "additionalProperties": false}`),
			Call:   f.read,
		},
		{Name: "list_files", Description: "Lists the files of the project with their sizes.", Call: f.list},
		{
			Name: "check_files", Description: "Parses, formats, lints and tests the files of the project, as far as this machine can.",
			Call: f.check,
		},
	}
}

// fileTools work in the workspace of the run that calls them.
type fileTools struct{ Workshop }

type fileArguments struct {
	Path    string `json:"path"`
	Content string `json:"content"`
}

// in opens the workspace of a call; that the run has it open keeps the folder.
func (f fileTools) in(
	ctx context.Context, c tool.Call, work func(w *workspace.Workspace) (tool.Result, error),
) (tool.Result, error) {
	w, err := f.Open(ctx, c.Namespace, c.RunID)
	if err != nil {
		return tool.Result{}, err
	}
	result, err := work(w)
	return result, errors.Join(err, w.Close())
}

// changes is a tool that changes a file, and keeps what it left.
func (f fileTools) changes(
	done string, change func(w *workspace.Workspace, a fileArguments) error,
) func(context.Context, tool.Call) (tool.Result, error) {
	return func(ctx context.Context, c tool.Call) (tool.Result, error) {
		var a fileArguments
		if err := json.Unmarshal(c.Arguments, &a); err != nil {
			return tool.Result{}, err
		}
		return f.in(ctx, c, func(w *workspace.Workspace) (tool.Result, error) {
			problem, err := problemOf(change(w, a))
			if err != nil || problem != "" {
				return refusal(problem), err
			}
			return tool.Result{Text: done + " " + a.Path}, w.Save(ctx)
		})
	}
}

func (f fileTools) read(ctx context.Context, c tool.Call) (tool.Result, error) {
	var a fileArguments
	if err := json.Unmarshal(c.Arguments, &a); err != nil {
		return tool.Result{}, err
	}
	return f.in(ctx, c, func(w *workspace.Workspace) (tool.Result, error) {
		content, err := w.Read(a.Path)
		problem, err := problemOf(err)
		if err != nil || problem != "" {
			return refusal(problem), err
		}
		return tool.Result{Text: string(content)}, nil
	})
}

func (f fileTools) list(ctx context.Context, c tool.Call) (tool.Result, error) {
	return f.in(ctx, c, func(w *workspace.Workspace) (tool.Result, error) {
		var said strings.Builder
		for _, file := range w.List() {
			fmt.Fprintf(&said, "%s %d bytes\n", file.Path, file.Size)
		}
		if said.Len() == 0 {
			return tool.Result{Text: "There are no files yet."}, nil
		}
		return tool.Result{Text: said.String()}, nil
	})
}

func (f fileTools) check(ctx context.Context, c tool.Call) (tool.Result, error) {
	return f.in(ctx, c, func(w *workspace.Workspace) (tool.Result, error) {
		checks, err := f.Check(ctx, w)
		if err != nil {
			return tool.Result{}, err
		}
		if err := w.Save(ctx); err != nil {
			return tool.Result{}, err
		}
		return resultOf(checks)
	})
}
