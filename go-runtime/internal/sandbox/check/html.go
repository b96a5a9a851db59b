package check

import (
	"bytes"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
	"golang.org/x/net/html"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// page is an HTML file while it is read: what the standard calls the stack of
// open elements, without the repairs that browsers make.
type page struct {
	*findings

	data []byte
	// at is where the token begins, line and column that place; counted is how
	// far lines were counted.
	at, line, lineStart, counted int

	open []element
	// opened counts open elements by name.
	opened map[string]int
	// ids are the lines of ids.
	ids map[string]int
}

// element is an element that is open.
type element struct {
	name         string
	line, column int
	// loader is how its text is read; none: it is no script nor style.
	loader api.Loader
}

// parseHTML adds what is wrong with an HTML file: elements that are not closed,
// end tags that close nothing, ids that are there twice, and what scripts and
// styles in it have.
func parseHTML(f *findings, data []byte) {
	p := &page{findings: f, data: data, line: 1, opened: map[string]int{}, ids: map[string]int{}}
	tokens := html.NewTokenizer(bytes.NewReader(data))
	for {
		kind := tokens.Next()
		size := len(tokens.Raw())
		line, column := p.place()
		switch kind {
		case html.ErrorToken:
			if size > 0 || p.at < len(data) {
				p.addf(line, column, "the file ends within a tag or comment")
			}
			p.closeFrom(0)
			return
		case html.StartTagToken, html.SelfClosingTagToken:
			p.start(tokens.Token(), line, column)
		case html.EndTagToken:
			p.end(tokens.Token().Data, line, column)
		case html.TextToken:
			p.text(string(data[p.at:p.at+size]), line, column)
		case html.CommentToken, html.DoctypeToken:
		}
		p.at += size
	}
}

// place is the line and column of the token.
func (p *page) place() (line, column int) {
	if newlines := bytes.Count(p.data[p.counted:p.at], []byte("\n")); newlines > 0 {
		p.line += newlines
		p.lineStart = bytes.LastIndexByte(p.data[:p.at], '\n') + 1
	}
	p.counted = p.at
	return p.line, p.at - p.lineStart + 1
}

// isTemplate reports whether an HTML file becomes a page only when something is
// put in: of Django and Jinja, EJS or PHP.
func isTemplate(data []byte) bool {
	return bytes.Contains(data, []byte("{%")) || bytes.Contains(data, []byte("<%")) || bytes.Contains(data, []byte("<?php"))
}

// isVoid reports whether an element has no content, by the standard.
func isVoid(name string) bool {
	switch name {
	case "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr":
		return true
	default:
		return false
	}
}

// mayStayOpen reports whether an element needs no end tag, by the standard.
func mayStayOpen(name string) bool {
	switch name {
	case "html", "head", "body", "li", "dt", "dd", "p", "rt", "rp", "optgroup", "option", "colgroup", "caption",
		"thead", "tbody", "tfoot", "tr", "td", "th":
		return true
	default:
		return false
	}
}

// endsParagraph reports whether the start of an element ends a paragraph.
func endsParagraph(name string) bool {
	switch name {
	case "address", "article", "aside", "blockquote", "details", "dialog", "div", "dl", "fieldset", "figcaption", "figure",
		"footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hgroup", "hr", "main", "menu", "nav", "ol", "p",
		"pre", "search", "section", "table", "ul":
		return true
	default:
		return false
	}
}

func (p *page) start(tag html.Token, line, column int) {
	p.id(tag, line, column)
	if top := len(p.open) - 1; top >= 0 && p.open[top].name == "p" && endsParagraph(tag.Data) {
		p.pop()
	}
	isForeign := p.opened["svg"]+p.opened["math"] > 0 || tag.Data == "svg" || tag.Data == "math"
	if isVoid(tag.Data) || tag.Type == html.SelfClosingTagToken && isForeign {
		return
	}
	p.open = append(p.open, element{tag.Data, line, column, loaderOf(tag)})
	p.opened[tag.Data]++
}

// loaderOf is how the text of a script or style is read.
func loaderOf(tag html.Token) api.Loader {
	kind := ""
	for _, attribute := range tag.Attr {
		if attribute.Key == "type" {
			kind = strings.ToLower(strings.TrimSpace(attribute.Val))
		}
	}
	switch {
	case tag.Data == "style":
		return api.LoaderCSS
	case tag.Data != "script":
		return api.LoaderNone
	}
	switch kind {
	case "", "module", "text/javascript", "application/javascript":
		return api.LoaderJS
	case "text/babel", "text/jsx":
		return api.LoaderTSX
	case "application/json", "application/ld+json", "importmap", "speculationrules":
		return api.LoaderJSON
	default:
		return api.LoaderNone
	}
}

// id notes the id of an element. Those in a template, and those with a value that
// is put in later, are no ids of the page.
func (p *page) id(tag html.Token, line, column int) {
	for _, attribute := range tag.Attr {
		if attribute.Key != "id" || strings.ContainsAny(attribute.Val, "{}") || p.opened["template"] > 0 {
			continue
		}
		if first, there := p.ids[attribute.Val]; there {
			p.addf(line, column, "the id %q is in line %d already", violation.Clip(attribute.Val, maxExcerpt), first)
			return
		}
		p.ids[attribute.Val] = line
	}
}

func (p *page) end(name string, line, column int) {
	if p.opened[name] == 0 {
		p.addf(line, column, "</%s> closes nothing", violation.Clip(name, maxExcerpt))
		return
	}
	i := len(p.open) - 1
	for p.open[i].name != name {
		i--
	}
	p.closeFrom(i + 1)
	p.pop()
}

// closeFrom closes the elements from one on, which have no end tags.
func (p *page) closeFrom(first int) {
	for _, e := range p.open[first:] {
		if !mayStayOpen(e.name) {
			p.addf(e.line, e.column, "<%s> is not closed where it should be", violation.Clip(e.name, maxExcerpt))
		}
	}
	for len(p.open) > first {
		p.pop()
	}
}

func (p *page) pop() {
	last := len(p.open) - 1
	p.opened[p.open[last].name]--
	p.open = p.open[:last]
}

// text looks at the text of scripts and styles, but for those that something is
// put into later.
func (p *page) text(text string, line, column int) {
	if len(p.open) == 0 {
		return
	}
	loader := p.open[len(p.open)-1].loader
	if loader == api.LoaderNone || loader != api.LoaderTSX && strings.Contains(text, "{{") {
		return
	}
	p.transform(text, loader, line, column)
}
