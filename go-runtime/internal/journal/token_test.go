package journal_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

var token = regexp.MustCompile(`^(=|([A-Za-z0-9_-]|=[0-9A-F]{2})+)$`)

func FuzzToken(f *testing.F) {
	for _, s := range []string{"", "=", "a", "A-z_9", "a.b", "*", ">", "a b", "ä", "\x00\xff", "=41", "🙂"} {
		f.Add(s, "a")
	}
	f.Fuzz(func(t *testing.T, s, rest string) {
		encoded := journal.EncodeToken(s)
		if !token.MatchString(encoded) {
			t.Errorf("%q encodes to %q", s, encoded)
		}
		if decoded, err := journal.DecodeToken(encoded); err != nil || decoded != s {
			t.Errorf("%q comes back as %q, %v", s, decoded, err)
		}
		if s != "" && !strings.HasPrefix(journal.EncodeToken(s+rest), encoded) {
			t.Errorf("the token of %q does not begin with that of %q", s+rest, s)
		}
		// What decodes is the one encoding of its value.
		if decoded, err := journal.DecodeToken(s); err == nil && journal.EncodeToken(decoded) != s {
			t.Errorf("%q decodes to %q, which encodes to %q", s, decoded, journal.EncodeToken(decoded))
		}
	})
}
