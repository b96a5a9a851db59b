package token

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/time/rate"
)

// Set is the tokens of one file. Its methods may be called from any goroutine.
type Set struct {
	path   string
	tokens atomic.Pointer[[]*Token]
}

// Token is an entry in use.
type Token struct {
	entry   Entry
	hash    []byte
	limiter *rate.Limiter
}

// Load reads a tokens file. The error names every mistake in it, and never a secret.
func Load(path string) (*Set, error) {
	s := &Set{path: path}
	if err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Reload reads the file again. When it has a mistake, the tokens stay as they were.
func (s *Set) Reload() error {
	data, err := os.ReadFile(s.path)
	if err != nil {
		return fmt.Errorf("read tokens: %w", err)
	}
	entries, err := parse(data)
	if err != nil {
		return fmt.Errorf("read tokens from %s: %w", s.path, err)
	}
	tokens := make([]*Token, 0, len(entries))
	for _, entry := range entries {
		hash, err := hex.DecodeString(entry.Hash)
		if err != nil {
			return fmt.Errorf("read tokens from %s: %w", s.path, err)
		}
		tokens = append(tokens, &Token{entry: entry, hash: hash, limiter: newLimiter(entry)})
	}
	s.tokens.Store(&tokens)
	return nil
}

// newLimiter returns nil for an entry without a rate.
func newLimiter(e Entry) *rate.Limiter {
	if e.Rate == 0 {
		return nil
	}
	burst := e.Burst
	if burst == 0 {
		burst = max(1, int(math.Ceil(e.Rate)))
	}
	return rate.NewLimiter(rate.Limit(e.Rate), burst)
}

func parse(data []byte) ([]Entry, error) {
	var file struct {
		Tokens []Entry `yaml:"tokens"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, explain(err)
	}
	var mistakes []error
	if len(file.Tokens) == 0 {
		mistakes = append(mistakes, errors.New("there are no tokens, so nobody could call"))
	}
	names, hashes := map[string]bool{}, map[string]bool{}
	for i, entry := range file.Tokens {
		if err := entry.Validate(); err != nil {
			mistakes = append(mistakes, fmt.Errorf("token %d (%q): %w", i+1, entry.Name, err))
		}
		if names[entry.Name] {
			mistakes = append(mistakes, fmt.Errorf("token %d: the name %q is taken", i+1, entry.Name))
		}
		if entry.Hash != "" && hashes[entry.Hash] {
			mistakes = append(mistakes, fmt.Errorf("token %d (%q): another token has its hash", i+1, entry.Name))
		}
		names[entry.Name], hashes[entry.Hash] = true, true
	}
	return file.Tokens, errors.Join(mistakes...)
}

// explain puts the decoder's mistakes in the words of the file.
func explain(err error) error {
	mistaken, found := errors.AsType[*yaml.TypeError](err)
	if !found {
		return err
	}
	words := strings.NewReplacer(
		" not found in type token.Entry", " is none of a token's: name, hash, namespaces, access, rate, burst",
		" not found in type struct { Tokens []token.Entry \"yaml:\\\"tokens\\\"\" }", " is not known: there is only tokens",
		"cannot unmarshal", "cannot read",
		"into []token.Entry", "as a list of tokens",
		"into token.Entry", "as a token",
		"into []string", "as a list of texts",
		"into string", "as a text",
		"into float64", "as a number",
		"into int", "as a whole number",
	)
	errs := make([]error, len(mistaken.Errors))
	for i, mistake := range mistaken.Errors {
		errs[i] = errors.New(words.Replace(mistake))
	}
	return errors.Join(errs...)
}

// BySecret returns the token with this secret, or nil. How long it takes says
// nothing about how much of a guess was right.
func (s *Set) BySecret(secret string) *Token {
	sum := sha256.Sum256([]byte(secret))
	var match *Token
	for _, t := range *s.tokens.Load() {
		if subtle.ConstantTimeCompare(sum[:], t.hash) == 1 {
			match = t
		}
	}
	return match
}

// ByName returns the token for a client whose certificate carries name, or nil.
func (s *Set) ByName(name string) *Token {
	for _, t := range *s.tokens.Load() {
		if t.entry.Name == name {
			return t
		}
	}
	return nil
}

// Name is the token's name, which is no secret.
func (t *Token) Name() string { return t.entry.Name }

// OnlyNamespace is the namespace that the token covers, empty when it covers several.
func (t *Token) OnlyNamespace() string {
	if len(t.entry.Namespaces) != 1 || t.entry.Namespaces[0] == AnyNamespace {
		return ""
	}
	return t.entry.Namespaces[0]
}

// Allows reports whether the token covers access in namespace.
func (t *Token) Allows(namespace string, access Access) bool {
	return t.entry.allows(namespace, access)
}

// Take counts one call against the rate limit. When the limit is reached it
// counts nothing and returns how long to wait before the next try.
func (t *Token) Take(now time.Time) (wait time.Duration) {
	if t.limiter == nil {
		return 0
	}
	reservation := t.limiter.ReserveN(now, 1)
	wait = reservation.DelayFrom(now)
	if wait > 0 {
		reservation.CancelAt(now)
	}
	return wait
}
