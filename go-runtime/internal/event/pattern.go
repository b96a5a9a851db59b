package event

import (
	"slices"
	"strings"
)

// pattern selects events by type: one type, or every type with a prefix.
type pattern struct {
	text     string // the type, or the prefix
	isPrefix bool
}

// parsePattern reads a type as a subscription names it: `*` is every type, and
// one that ends in `*` every type with the prefix before it.
func parsePattern(s string) pattern {
	prefix, isPrefix := strings.CutSuffix(s, "*")
	return pattern{text: prefix, isPrefix: isPrefix}
}

func (p pattern) matches(eventType string) bool {
	if p.isPrefix {
		return strings.HasPrefix(eventType, p.text)
	}
	return eventType == p.text
}

// includes reports whether p matches whatever q matches.
func (p pattern) includes(q pattern) bool {
	if p.isPrefix {
		return strings.HasPrefix(q.text, p.text)
	}
	return p == q
}

// filter is a subject filter for the journal that matches at least the
// pattern's events. It can only cut at the end of a word: exact reports whether
// it matches nothing else.
func (p pattern) filter(namespace string) (filter string, exact bool) {
	if !p.isPrefix {
		return typeSubject(namespace, p.text), true
	}
	words := strings.LastIndexByte(p.text, '.')
	if words < 0 {
		return namespaceSubject(namespace) + ">", p.text == ""
	}
	return typeSubject(namespace, p.text[:words]) + ".>", words == len(p.text)-1
}

// patterns selects events that match any of them.
type patterns []pattern

// parsePatterns leaves out those that another one includes.
func parsePatterns(types []string) patterns {
	var kept patterns
	for _, t := range types {
		p := parsePattern(t)
		if slices.ContainsFunc(kept, func(k pattern) bool { return k.includes(p) }) {
			continue
		}
		kept = slices.DeleteFunc(kept, p.includes)
		kept = append(kept, p)
	}
	return kept
}

func (ps patterns) match(eventType string) bool {
	return slices.ContainsFunc(ps, func(p pattern) bool { return p.matches(eventType) })
}

// filters are the subject filters for the journal, none twice, and whether they
// match nothing else than the patterns.
func (ps patterns) filters(namespace string) (filters []string, exact bool) {
	exact = true
	for _, p := range ps {
		filter, fits := p.filter(namespace)
		exact = exact && fits
		if !slices.Contains(filters, filter) {
			filters = append(filters, filter)
		}
	}
	return filters, exact
}
