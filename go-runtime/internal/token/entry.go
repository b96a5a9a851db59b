package token

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
)

// Access is what a token may do.
type Access string

// Write includes Read.
const (
	Read  Access = "read"
	Write Access = "write"
)

// AnyNamespace among an entry's namespaces stands for all of them.
const AnyNamespace = "*"

// MaxNamespaceBytes is the longest namespace.
const MaxNamespaceBytes = 63

// maxRate is more calls per second than any runtime answers.
const maxRate = 1_000_000_000

// secretPrefix lets secret scanners recognise a token.
const secretPrefix = "art_"

var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	hashPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Entry is one token as the tokens file has it.
type Entry struct {
	Name string `yaml:"name"`
	// Hash is the SHA-256 of the secret in lower-case hexadecimal, or empty: see the package.
	Hash       string   `yaml:"hash,omitempty"`
	Namespaces []string `yaml:"namespaces,flow"`
	Access     Access   `yaml:"access"`
	// Rate is calls per second; 0: not limited.
	Rate float64 `yaml:"rate,omitempty"`
	// Burst is how many calls may come at once; 0: as many as one second's.
	Burst int `yaml:"burst,omitempty"`
}

// Validate returns every mistake in the entry.
func (e Entry) Validate() error {
	var mistakes []error
	if !namePattern.MatchString(e.Name) {
		mistakes = append(mistakes, errors.New("name: want 1 to 64 letters, digits, dots, dashes or underscores"))
	}
	if e.Hash != "" && !hashPattern.MatchString(e.Hash) {
		mistakes = append(mistakes, errors.New("hash: want 64 lower-case hexadecimal digits"))
	}
	if len(e.Namespaces) == 0 {
		mistakes = append(mistakes, errors.New(`namespaces: want at least one, or "*"`))
	}
	for _, namespace := range e.Namespaces {
		if namespace != AnyNamespace && !ValidNamespace(namespace) {
			mistakes = append(mistakes, fmt.Errorf("namespaces: %q is not 1 to 63 of a-z, 0-9 and dashes", namespace))
		}
	}
	if e.Access != Read && e.Access != Write {
		mistakes = append(mistakes, fmt.Errorf("access: %q is not read or write", e.Access))
	}
	if math.IsNaN(e.Rate) || e.Rate < 0 || e.Rate > maxRate || e.Burst < 0 {
		mistakes = append(mistakes, fmt.Errorf("rate and burst: want 0 or more, rate at most %d", maxRate))
	}
	if e.Burst > 0 && e.Rate == 0 {
		mistakes = append(mistakes, errors.New("burst: needs a rate"))
	}
	return errors.Join(mistakes...)
}

// allows reports whether the entry covers access in namespace.
func (e Entry) allows(namespace string, access Access) bool {
	if access == Write && e.Access != Write {
		return false
	}
	return slices.Contains(e.Namespaces, AnyNamespace) || slices.Contains(e.Namespaces, namespace)
}

// ValidNamespace reports whether s is 1 to 63 of a-z, 0-9 and dashes.
func ValidNamespace(s string) bool {
	if s == "" || len(s) > MaxNamespaceBytes {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// NewSecret returns a new secret of 256 random bits.
func NewSecret() string {
	var random [32]byte
	// crypto/rand.Read never fails: the process ends when the system has no randomness.
	_, _ = rand.Read(random[:])
	return secretPrefix + base64.RawURLEncoding.EncodeToString(random[:])
}

// Hash returns what the tokens file holds in place of a secret.
func Hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
