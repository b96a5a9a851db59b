package check

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/evanw/esbuild/pkg/api"

	"github.com/djangobridge/djangobridge/go-runtime/internal/sandbox"
)

// parseStage is the argument that makes the launcher parse files in place of all else.
const parseStage = "parse"

// Launch is what this binary does, instead of all else, when it is called with
// Config.Launcher: it is the launcher of the sandbox, or, there, the parser of
// the files of web pages. It returns an exit code.
//
// The parser is a process of its own because files can be nested so deep that
// it ends, which nothing in the process can prevent.
func Launch(args []string, stdout, stderr io.Writer) int {
	var err error
	if len(args) > 0 && args[0] == parseStage {
		err = parseFiles(args[1:], stdout, stderr)
	} else {
		err = sandbox.Launch(args)
	}
	switch {
	case errors.Is(err, errFound):
		return exitFound
	case err != nil:
		_, _ = fmt.Fprintln(stderr, err)
		return exitBroken
	default:
		return 0
	}
}

// The exit codes of the parser beside 0. A Go program that breaks exits with 2.
const (
	exitBroken = 1
	exitFound  = 3
)

// errFound says that something was found, and printed.
var errFound = errors.New("files do not parse")

const (
	// maxParseStack bounds how deep files are nested, to some ten thousands.
	maxParseStack = 96 << 20
	// parseTime is what all files of a check get.
	parseTime = 30 * time.Second
	// maxFound is how much is told of one file.
	maxFound = 20
)

// parseFiles prints what is wrong with files, and to stderr the name of each
// before it is parsed: the last tells which one ended the process.
func parseFiles(names []string, stdout, stderr io.Writer) error {
	debug.SetMaxStack(maxParseStack)
	var failed error
	for _, name := range names {
		if _, err := fmt.Fprintln(stderr, parsing+name); err != nil {
			return err
		}
		data, err := os.ReadFile(name) //nolint:gosec // the sandbox has nothing but the workspace
		if err != nil {
			return err
		}
		if isHTML(name) && isTemplate(data) {
			if _, err := fmt.Fprintln(stderr, template+name); err != nil {
				return err
			}
			continue
		}
		for _, found := range parseWeb(name, data) {
			failed = errFound
			if _, err := fmt.Fprintln(stdout, found); err != nil {
				return err
			}
		}
	}
	return failed
}

// What stands before the name of a file that is being parsed, and of one that
// is not looked at.
const (
	parsing  = "parsing "
	template = "template "
)

func isHTML(name string) bool { return ending(".html", ".htm")(name) }

// parseWeb says what is wrong with a file of a web page.
func parseWeb(name string, data []byte) []string {
	f := &findings{name: name}
	switch {
	case !utf8.Valid(data):
		f.addf(1, 1, "it is not UTF-8")
	case slices.Contains(data, 0):
		f.addf(1+bytes.Count(data[:bytes.IndexByte(data, 0)], []byte("\n")), 1, "it has a NUL byte")
	case isHTML(name):
		parseHTML(f, data)
	default:
		f.transform(string(data), loaders()[path.Ext(name)], 1, 1)
	}
	return f.all
}

// loaders are how esbuild reads files, by the ends of their names.
func loaders() map[string]api.Loader {
	return map[string]api.Loader{
		".js": api.LoaderJS, ".mjs": api.LoaderJS, ".cjs": api.LoaderJS, ".jsx": api.LoaderJSX,
		".ts": api.LoaderTS, ".mts": api.LoaderTS, ".cts": api.LoaderTS, ".tsx": api.LoaderTSX, ".css": api.LoaderCSS,
	}
}

// findings are what is wrong with a file.
type findings struct {
	name string
	all  []string
}

func (f *findings) addf(line, column int, format string, args ...any) {
	if len(f.all) < maxFound {
		f.all = append(f.all, fmt.Sprintf("%s:%d:%d: %s", f.name, line, column, fmt.Sprintf(format, args...)))
	}
}

// transform adds what esbuild finds in a text that begins at a line and column
// of the file. Its warnings are mistakes too: those of style sheets all are.
func (f *findings) transform(text string, loader api.Loader, line, column int) {
	result := api.Transform(text, api.TransformOptions{
		Loader: loader, JSX: api.JSXPreserve, LogLevel: api.LogLevelSilent, LogLimit: maxFound,
	})
	for _, message := range append(result.Errors, result.Warnings...) {
		at := message.Location
		if at == nil {
			f.addf(line, column, "%s", message.Text)
			continue
		}
		shift := 0
		if at.Line == 1 {
			shift = column - 1
		}
		f.addf(line+at.Line-1, at.Column+1+shift, "%s\n%s", message.Text, excerpt(at.LineText, at.Column))
	}
}

// maxExcerpt is how much of a line is shown before and behind a place, in bytes.
const maxExcerpt = 60

// excerpt shows a line with a mark under a place.
func excerpt(line string, column int) string {
	column = min(column, len(line))
	before := strings.ToValidUTF8(line[max(0, column-maxExcerpt):column], "")
	behind := strings.ToValidUTF8(line[column:min(len(line), column+maxExcerpt)], "")
	mark := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, before)
	return "    " + before + behind + "\n    " + mark + "^"
}

// webFiles is the command of the checks of files of web pages.
func webFiles(p *Programs, _ string, files []string) (sandbox.Command, string) {
	if len(p.launcher) == 0 {
		return sandbox.Command{}, "this program has no parser for them"
	}
	return sandbox.Command{
		Args: slices.Concat([]string{"/proc/self/exe"}, p.launcher, []string{parseStage}, files),
		// The names of all files are kept, so that the last is known.
		Limits: sandbox.Limits{Wall: parseTime, Output: 1 << 20},
	}, ""
}

// parsed is the verdict of the parser.
func parsed(o sandbox.Outcome) (Status, string) {
	switch {
	case o.ExitCode == exitFound:
		return Failed, ""
	case o.ExitCode != 0:
		return Failed, last(o.Stderr, parsing) + ": it cannot be parsed, mostly because it is nested too deep; " +
			"what comes behind it was not looked at"
	case bytes.Contains(o.Stderr, []byte("\n"+template)):
		return Skipped, "templates are no pages yet, such as " + last(o.Stderr, template)
	default:
		return Passed, ""
	}
}

// last returns what is in the last line that begins with a prefix.
func last(text []byte, prefix string) (found string) {
	for line := range strings.Lines(string(text)) {
		if rest, is := strings.CutPrefix(line, prefix); is {
			found = strings.TrimSpace(rest)
		}
	}
	return found
}
