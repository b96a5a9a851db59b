package workspace

import (
	"iter"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const (
	// maxPathBytes, maxPartBytes and maxParts bound a path, so that every
	// system can unpack it.
	maxPathBytes = 1024
	maxPartBytes = 255
	maxParts     = 20
	// shownPath is how much of a path a refusal repeats.
	shownPath = 200
)

// CheckPath refuses a path that is not portable, or that would lead out of the
// folder: want parts with single slashes between, relative, in UTF-8 of
// composed characters (NFC) that can be seen. The error is a *violation.Error.
func CheckPath(name string) error {
	problem := pathProblem(name)
	if problem == "" {
		return nil
	}
	return violation.New("path", "%q %s", violation.Clip(name, shownPath), problem)
}

// pathProblem completes the sentence that the path begins; empty: it is fine.
func pathProblem(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > maxPathBytes:
		return "has more than 1024 bytes"
	case !utf8.ValidString(name):
		return "is not UTF-8"
	case strings.HasPrefix(name, "/"):
		return "is absolute"
	case !norm.NFC.IsNormalString(name):
		return "is not in composed characters (NFC)"
	case path.Clean(name) != name || name == "." || name == ".." || strings.HasPrefix(name, "../"):
		return "has an empty part, a dot or two dots as a part"
	}
	parts := strings.Split(name, "/")
	if len(parts) > maxParts {
		return "is more than 20 deep"
	}
	for _, part := range parts {
		if problem := partProblem(part); problem != "" {
			return problem
		}
	}
	return ""
}

func partProblem(part string) string {
	if len(part) > maxPartBytes {
		return "has a part of more than 255 bytes"
	}
	for _, r := range part {
		if !unicode.IsPrint(r) {
			return "has a character that cannot be seen"
		}
		if strings.ContainsRune(`\<>:"|?*`, r) {
			return "has one of the characters \\ < > : \" | ? *"
		}
	}
	if last := part[len(part)-1]; last == '.' || last == ' ' {
		return "has a part that ends in a dot or a space"
	}
	stem, _, _ := strings.Cut(part, ".")
	if isDevice(strings.ToUpper(strings.TrimSpace(stem))) {
		return "has the name of a device of Windows"
	}
	return ""
}

// isDevice reports whether a name, without its extension, is one that Windows
// keeps for devices.
func isDevice(stem string) bool {
	switch stem {
	case "CON", "PRN", "AUX", "NUL":
		return true
	}
	digit, found := strings.CutPrefix(stem, "COM")
	if !found {
		digit, found = strings.CutPrefix(stem, "LPT")
	}
	return found && len(digit) == 1 && digit[0] >= '1' && digit[0] <= '9'
}

// fold returns what a path has in common with those that some systems take for
// the same.
func fold(name string) string {
	for i := range len(name) {
		if name[i] >= utf8.RuneSelf {
			return norm.NFC.String(cases.Fold().String(name))
		}
	}
	return strings.ToLower(name)
}

// spellings knows the paths of a set of files, to tell which others would be
// the same file, or file and folder at once, on some system.
type spellings struct {
	files   map[string]string // by what they fold to
	folders map[string]string
}

func newSpellings(names iter.Seq[string]) *spellings {
	s := &spellings{files: map[string]string{}, folders: map[string]string{}}
	for name := range names {
		s.add(name)
	}
	return s
}

func (s *spellings) add(name string) {
	folded := fold(name)
	s.files[folded] = name
	for i, c := range folded {
		if c == '/' {
			if _, known := s.folders[folded[:i]]; !known {
				s.folders[folded[:i]] = folderOf(name, strings.Count(folded[:i], "/")+1)
			}
		}
	}
}

// folderOf returns the first so many parts of a path.
func folderOf(name string, parts int) string {
	for i, c := range name {
		if c == '/' {
			if parts--; parts == 0 {
				return name[:i]
			}
		}
	}
	return name
}

// check refuses a new path that clashes with the others; a *violation.Error.
func (s *spellings) check(name string) error {
	if problem := s.clash(name); problem != "" {
		return violation.New("path", "%q %s", violation.Clip(name, shownPath), problem)
	}
	return nil
}

// clash completes the sentence that a new path begins; empty: it is fine.
func (s *spellings) clash(name string) string {
	folded := fold(name)
	if other, found := s.files[folded]; found && other != name {
		return "is the same as " + quoted(other) + " on some systems"
	}
	if other, found := s.folders[folded]; found {
		return "is the name of the folder " + quoted(other)
	}
	for i, c := range folded {
		if c != '/' {
			continue
		}
		if other, found := s.files[folded[:i]]; found {
			return "is in the folder of the name of the file " + quoted(other)
		}
		mine := folderOf(name, strings.Count(folded[:i], "/")+1)
		if other, found := s.folders[folded[:i]]; found && other != mine {
			return "is in a folder that is the same as " + quoted(other) + " on some systems"
		}
	}
	return ""
}

func quoted(name string) string { return `"` + violation.Clip(name, shownPath) + `"` }
