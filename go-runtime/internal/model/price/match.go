package price

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// clause recognises names, by the one of its members that is set. Names and texts
// are in lower case.
type clause struct {
	Equals   string   `json:"equals"`
	Starts   string   `json:"starts"`
	Ends     string   `json:"ends"`
	Contains string   `json:"contains"`
	Matches  *pattern `json:"matches"`
	Lacks    *pattern `json:"lacks"`
	Any      []clause `json:"any"`
	All      []clause `json:"all"`
}

func (c clause) fits(name string) bool {
	fits := func(part clause) bool { return part.fits(name) }
	switch {
	case c.Equals != "":
		return name == c.Equals
	case c.Starts != "":
		return strings.HasPrefix(name, c.Starts)
	case c.Ends != "":
		return strings.HasSuffix(name, c.Ends)
	case c.Contains != "":
		return strings.Contains(name, c.Contains)
	case c.Matches != nil:
		return c.Matches.MatchString(name)
	case c.Lacks != nil:
		return !c.Lacks.MatchString(name)
	case c.All != nil:
		return !slices.ContainsFunc(c.All, func(part clause) bool { return !fits(part) })
	}
	return slices.ContainsFunc(c.Any, fits)
}

// pattern is a regular expression as text.
type pattern struct{ *regexp.Regexp }

// UnmarshalJSON implements json.Unmarshaler.
func (p *pattern) UnmarshalJSON(text []byte) error { return compile(text, "", &p.Regexp) }

// anchored is a pattern of what a text begins with.
type anchored struct{ *regexp.Regexp }

// UnmarshalJSON implements json.Unmarshaler.
func (a *anchored) UnmarshalJSON(text []byte) error { return compile(text, "^", &a.Regexp) }

func compile(quoted []byte, before string, into **regexp.Regexp) error {
	var text string
	if err := json.Unmarshal(quoted, &text); err != nil {
		return err
	}
	var err error
	*into, err = regexp.Compile(before + "(?:" + text + ")")
	return err
}
