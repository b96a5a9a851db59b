package event

import (
	"fmt"
	"strings"
	"testing"
)

func TestPatternMatches(t *testing.T) {
	t.Parallel()

	tests := map[string]struct {
		pattern  string
		matching []string
		others   []string
	}{
		"one type":            {"order.created", []string{"order.created"}, []string{"order", "order.created.late", "order.createD"}},
		"every type":          {"*", []string{"order", "a.b", ".", "*"}, nil},
		"words":               {"order.*", []string{"order.created", "order.line.added", "order."}, []string{"order", "orders.created"}},
		"part of a word":      {"ord*", []string{"ord", "order", "order.created"}, []string{"or", "user"}},
		"part of a late word": {"a.b.c*", []string{"a.b.c", "a.b.cd", "a.b.c.d"}, []string{"a.b", "a.b.d"}},
		"star inside":         {"a*b", []string{"a*b"}, []string{"ab", "axb"}},
		"empty words":         {".*", []string{".", "..", ".a"}, []string{"a", "a."}},
		"star before star":    {"a**", []string{"a*", "a*b"}, []string{"ab"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			for _, eventType := range test.matching {
				if !parsePattern(test.pattern).matches(eventType) {
					t.Errorf("%q does not match %q", test.pattern, eventType)
				}
			}
			for _, eventType := range test.others {
				if parsePattern(test.pattern).matches(eventType) {
					t.Errorf("%q matches %q", test.pattern, eventType)
				}
			}
		})
	}
}

func TestPatternsBecomeFilters(t *testing.T) {
	t.Parallel()

	tests := map[string]struct {
		types []string
		want  string
		exact bool
	}{
		"one type":               {[]string{"order.created"}, "[event.ns.order.created]", true},
		"encoded":                {[]string{"a b.*.ü"}, "[event.ns.a=20b.=2A.=C3=BC]", true},
		"every type":             {[]string{"*"}, "[event.ns.>]", true},
		"words":                  {[]string{"order.*"}, "[event.ns.order.>]", true},
		"part of a word":         {[]string{"ord*"}, "[event.ns.>]", false},
		"part of a late word":    {[]string{"a.b.c*"}, "[event.ns.a.b.>]", false},
		"empty word":             {[]string{".*"}, "[event.ns.=.>]", true},
		"several":                {[]string{"a", "b.*"}, "[event.ns.a event.ns.b.>]", true},
		"the same twice":         {[]string{"a", "a"}, "[event.ns.a]", true},
		"wide after narrow":      {[]string{"a.b", "c", "a.*", "a.b.*"}, "[event.ns.c event.ns.a.>]", true},
		"narrow after wide":      {[]string{"*", "a", "b*"}, "[event.ns.>]", true},
		"parts of one word":      {[]string{"a.x*", "a.y*"}, "[event.ns.a.>]", false},
		"one of several inexact": {[]string{"a", "b*"}, "[event.ns.a event.ns.>]", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			filters, exact := parsePatterns(test.types).filters("ns")
			if fmt.Sprint(filters) != test.want || exact != test.exact {
				t.Errorf("filters = %v, exact %v, want %v, %v", filters, exact, test.want, test.exact)
			}
		})
	}
}

// subjectMatches is NATS's own rule, for the filters that occur here.
func subjectMatches(filter, subject string) bool {
	if prefix, ok := strings.CutSuffix(filter, ">"); ok {
		return strings.HasPrefix(subject, prefix) && len(subject) > len(prefix)
	}
	return filter == subject
}

func FuzzPatterns(f *testing.F) {
	f.Add("order.created", "order.*", "ord*")
	f.Add("a..b", "a.*", "*")
	f.Add(".", ".*", "a*b")
	f.Add("*", "**", "ü.>")

	f.Fuzz(func(t *testing.T, eventType, one, two string) {
		subject := typeSubject("ns", eventType)
		if strings.ContainsAny(subject, "*> \t\r\n\x00") || strings.Contains(subject, "..") || strings.HasSuffix(subject, ".") {
			t.Fatalf("type %q makes the subject %q", eventType, subject)
		}
		tokens := strings.TrimPrefix(subject, "event.ns.")
		if decoded, err := decodeType(tokens); err != nil || decoded != eventType {
			t.Fatalf("type %q came back as %q, %v", eventType, decoded, err)
		}

		want := parsePattern(one).matches(eventType) || parsePattern(two).matches(eventType)
		wanted := parsePatterns([]string{one, two})
		if wanted.match(eventType) != want {
			t.Errorf("patterns %q and %q match %q: %v, want %v", one, two, eventType, !want, want)
		}
		filters, exact := wanted.filters("ns")
		filtered := false
		for _, filter := range filters {
			filtered = filtered || subjectMatches(filter, subject)
		}
		if want && !filtered || exact && filtered != want {
			t.Errorf("filters %q (exact %v) let %q through: %v, want %v", filters, exact, subject, filtered, want)
		}
	})
}
