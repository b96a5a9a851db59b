package journal

import (
	"errors"
	"fmt"
	"strings"
)

const upperHex = "0123456789ABCDEF"

var errToken = errors.New("not an encoded token")

// EncodeToken makes any string one subject token, reversibly and injectively:
// [A-Za-z0-9_-] stay, every other byte becomes =XX (upper-case hex), and the
// empty string becomes "=". A prefix of s encodes to a prefix of its token.
func EncodeToken(s string) string {
	if s == "" {
		return "="
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := range len(s) {
		if c := s[i]; isPlain(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('=')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&0xf])
		}
	}
	return b.String()
}

// DecodeToken is the inverse of EncodeToken. It accepts exactly what
// EncodeToken makes.
func DecodeToken(token string) (string, error) {
	if token == "=" {
		return "", nil
	}
	if token == "" {
		return "", fmt.Errorf("decode %q: %w", token, errToken)
	}
	var b strings.Builder
	b.Grow(len(token))
	for i := 0; i < len(token); i++ {
		c := token[i]
		switch {
		case isPlain(c):
			b.WriteByte(c)
		case c == '=' && i+2 < len(token):
			high := strings.IndexByte(upperHex, token[i+1])
			low := strings.IndexByte(upperHex, token[i+2])
			if high < 0 || low < 0 || isPlain(byte(high<<4|low)) {
				return "", fmt.Errorf("decode %q: %w", token, errToken)
			}
			b.WriteByte(byte(high<<4 | low))
			i += 2
		default:
			return "", fmt.Errorf("decode %q: %w", token, errToken)
		}
	}
	return b.String(), nil
}

func isPlain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}
