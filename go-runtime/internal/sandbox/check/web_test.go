package check

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseWeb(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		file, text string
		// want are the beginnings of what is found.
		want []string
	}{
		"types":             {"a.ts", "enum A { B }\nexport default class<T extends A> { constructor(private readonly a: T) {} }", nil},
		"decorators":        {"a.ts", "@Component({selector: 'a'}) class A { @Input() a!: string }", nil},
		"satisfies":         {"a.mts", "export const a = { b: 1 } satisfies Record<string, number>; await 0", nil},
		"no types":          {"a.js", "let a: number", []string{`a.js:1:6: Expected ";" but found ":"`}},
		"JSX":               {"a.jsx", "export default () => <><A b={1} {...c} /></>", nil},
		"JSX elsewhere":     {"a.js", "let a = <b></b>", []string{"a.js:1:9: The JSX syntax extension"}},
		"JSX left open":     {"a.tsx", "let a = <b>\n  <i></b>", []string{"a.tsx:2:8: ", "a.tsx:2:10: "}},
		"CommonJS":          {"a.cjs", "const a = require('a'); module.exports = { a }", nil},
		"constant":          {"a.js", "const a = 1\na = 2", []string{"a.js:2:1: "}},
		"typeof":            {"a.js", "if (typeof a == 'undefned') {}", []string{"a.js:1:17: "}},
		"modern style":      {"a.css", "@import 'tailwindcss';\n@theme { --a: 1px }\n.a { &:hover { color: red } @apply b; }\n@layer x { @media (width > 1px) { a { b: c } } }\n@container (width > 1px) { a { b: c } }", nil},
		"style":             {"a.css", "a { color red; }\nb { c: d }", []string{`a.css:1:10: Expected ":"`}},
		"brace in style":    {"a.css", "a { b: c } }", []string{"a.css:1:12: Unexpected"}},
		"NUL":               {"a.ts", "let a\n\x00", []string{"a.ts:2:1: it has a NUL byte"}},
		"no UTF-8":          {"a.html", "<b>\xff</b>", []string{"a.html:1:1: it is not UTF-8"}},
		"BOM":               {"a.ts", "\ufefflet a: number", nil},
		"empty":             {"a.html", "", nil},
		"one long line":     {"a.js", "a=[" + strings.Repeat("1,", 500_000) + "*]", []string{"a.js:1:1000004: Unexpected \"*\"\n    " + strings.Repeat("1,", 30) + "*]\n    " + strings.Repeat(" ", 60) + "^"}},
		"page":              {"a.html", "<!doctype html><html lang=en><head><title>A</title><meta charset=utf-8></head>\n<body><!-- <b> --><ul><li>1<li>2</ul><p>a<div>b</div><br/><table><tr><td>1</table></body></html>", nil},
		"raw text":          {"a.html", "<title></b></title><textarea><b></textarea><script>let a = '<b>' < 1</script>", nil},
		"drawing":           {"a.html", `<svg><path d="M0"/><g><circle/></g></svg>`, nil},
		"never closed":      {"a.html", "<main>\n <section>\n</main>", []string{"a.html:2:2: <section> is not closed"}},
		"at the end":        {"a.html", "<div>\n<span></span><b>", []string{"a.html:1:1: <div>", "a.html:2:14: <b>"}},
		"closes itself not": {"a.html", "<div/>", []string{"a.html:1:1: <div> is not closed"}},
		"closes nothing":    {"a.html", "<div></div></div>\n</br>", []string{"a.html:1:12: </div> closes nothing", "a.html:2:1: </br> closes nothing"}},
		"paragraph":         {"a.html", "<p><div></div></p>", []string{"a.html:1:15: </p> closes nothing"}},
		"within a tag":      {"a.html", "<b></b>\n<a href=\"x", []string{"a.html:2:1: the file ends within"}},
		"ids":               {"a.html", "<a id=x></a>\n<b id=y></b><b id=x></b>", []string{`a.html:2:13: the id "x" is in line 1`}},
		"ids put in later":  {"a.html", "<a id={{x}}></a><b id={{x}}></b><template><i id=a></i></template><i id=a></i>", nil},
		"script":            {"a.html", "<p>\n<script>let a = ;</script>", []string{"a.html:2:17: Unexpected"}},
		"script, later":     {"a.html", "<script type=module>\n\nlet a = ;</script>", []string{"a.html:3:9: Unexpected"}},
		"script, JSON":      {"a.html", "<script type=application/json>{\"a\":}</script>", []string{"a.html:1:36: Unexpected"}},
		"script, Babel":     {"a.html", "<script type=text/babel>let a = <A b={{c: 1}} /></script>", nil},
		"script, others":    {"a.html", "<script type=text/x-template>let a = ;</script><script>let a = {{ a }};</script>", nil},
		"script, open":      {"a.html", "<script>let a", []string{"a.html:1:1: <script> is not closed"}},
		"style in a page":   {"a.html", "<style>\na { b }</style>", []string{"a.html:2:6: Expected"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := parseWeb(test.file, []byte(test.text))
			for i, got := range found {
				if i >= len(test.want) || !strings.HasPrefix(got, test.want[i]) {
					t.Errorf("found %s", got)
				}
			}
			if len(found) != len(test.want) {
				t.Errorf("found %d, want %q", len(found), test.want)
			}
		})
	}
}

// What is told of a file has a bound, and is found in time that grows with it.
func TestPagesThatAreAllWrong(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"open":   strings.Repeat("<b>", 300_000),
		"closed": strings.Repeat("<a>", 150_000) + strings.Repeat("</b>", 100_000),
		"lines":  strings.Repeat("</b>\n", 200_000),
		"ids":    strings.Repeat("<br id=a>", 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if found := parseWeb("a.html", []byte(text)); len(found) != maxFound {
				t.Errorf("found %d", len(found))
			}
		})
	}
}

func FuzzParseHTML(f *testing.F) {
	for _, text := range []string{
		"<!doctype html><p>a<div id=x></div><svg><a/></svg>", "<script>let a = ;</script><style>a{</style>", "<b></i></b>\n<br/></br>",
		"<textarea><title></svg><math><mi/></math>", "<!--", "<a b='", "<script type=application/json>{</script>", "<p\x00>\r\n</p>",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4<<10 {
			t.Skip("deep nesting is for the sandbox")
		}
		// Scripts have more ends of lines than pages.
		lines := 1 + len(text) - len(strings.NewReplacer("\n", "", "\r", "", "\u2028", "..", "\u2029", "..").Replace(text))
		found := &findings{name: "a"}
		parseHTML(found, []byte(text))
		for _, one := range found.all {
			var line, column int
			if _, err := fmt.Sscanf(one, "a:%d:%d:", &line, &column); err != nil || line < 1 || line > lines || column < 1 {
				t.Errorf("%q has no place: %v", one, err)
			}
		}
	})
}
