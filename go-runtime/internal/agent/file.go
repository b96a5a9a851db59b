package agent

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"unicode"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// maxPath is what common file systems take, with room for a folder to put it in.
const maxPath = 255

// checkFiles returns which paths among an answer's files must not be written as
// they stand, or nil. The answer fits its schema.
func checkFiles(answer []byte) *violation.Error {
	var files struct {
		Files []struct {
			Path string `json:"path"`
		} `json:"files"`
	}
	if err := json.Unmarshal(answer, &files); err != nil {
		return violation.New("answer", "is not valid JSON")
	}
	var unfit violation.Error
	seen := make(map[string]bool, len(files.Files))
	for i, file := range files.Files {
		problem := pathProblem(file.Path)
		if problem == "" && seen[file.Path] {
			problem = "is that of an earlier file"
		}
		seen[file.Path] = true
		if problem != "" {
			unfit.Violations = append(unfit.Violations,
				violation.Violation{Field: fmt.Sprintf("answer.files[%d].path", i), Description: problem})
		}
	}
	if len(unfit.Violations) == 0 {
		return nil
	}
	return &unfit
}

// pathProblem says why a path could leave the folder that files are written to,
// on any system, or nothing.
func pathProblem(path string) string {
	switch {
	case len(path) > maxPath:
		return fmt.Sprintf("must be at most %d bytes long", maxPath)
	case path == "." || !fs.ValidPath(path):
		return "must be a relative path with forward slashes, without . or .. or empty parts"
	case strings.ContainsAny(path, `\:`) || strings.ContainsFunc(path, unicode.IsControl):
		return "must not contain backslashes, colons or control characters"
	}
	return ""
}
