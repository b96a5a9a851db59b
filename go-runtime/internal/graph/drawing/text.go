package drawing

import (
	"strings"
	"unicode"
)

// How many characters of a text are shown: of a label on an edge, of one in a node.
const (
	longestText  = 60
	longestLabel = 30
	longestName  = 26
)

// shorten returns a text on one line, of so many characters at most.
func shorten(text string, most int) string {
	runes := []rune(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "�")))
	if len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return string(runes)
}
