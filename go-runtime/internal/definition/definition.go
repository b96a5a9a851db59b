package definition

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Limits of what is kept.
const (
	// MaxTextBytes is the longest document.
	MaxTextBytes = 256 << 10
	// MaxDefinitions is how many a namespace may have.
	MaxDefinitions = 1000
	// MaxVersions is how many versions of a name are kept.
	MaxVersions = 200

	maxNameBytes        = 100
	maxRequestIDBytes   = 64
	maxDescriptionBytes = 1000
)

// Kind says what a document describes.
type Kind string

// The kinds.
const (
	Graph Kind = "graph"
	Agent Kind = "agent"
)

// Definition is a version of a document.
type Definition struct {
	// Namespace is empty for what is the runtime's own.
	Namespace string
	Kind      Kind
	Name      string
	// Version is made of the text: see VersionOf.
	Version string
	// Number counts the versions of the name from 1, in the order in which they came.
	Number int
	// Text is the document, as it came. It is shared: do not change it. Lists of versions leave it out.
	Text []byte
	// Description is for people, cut to what a list has room for.
	Description string
	// CreatedAt is when the version was first registered.
	CreatedAt time.Time
}

// VersionOf returns the version that a text is: the first 16 hex digits of its SHA-256.
func VersionOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// NotFoundError is returned for a name, or a version of it, that there is not.
type NotFoundError struct {
	Kind Kind
	Name string
	// Version is the one that was asked for; empty: the current one.
	Version string
}

func (e *NotFoundError) Error() string {
	name := violation.Clip(e.Name, maxNameBytes)
	if e.Version == "" {
		return fmt.Sprintf("no %s is called %q", e.Kind, name)
	}
	return fmt.Sprintf("no version %q is kept of a %s %q", violation.Clip(e.Version, maxNameBytes), e.Kind, name)
}

// LimitError refuses a name above MaxDefinitions.
type LimitError struct {
	Namespace string
	Limit     int
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("namespace %s has %d graphs and agents, which is the most: delete some", e.Namespace, e.Limit)
}

// check refuses what cannot be registered, and cuts the description.
func (d *Definition) check() error {
	var wrong []error
	if d.Kind != Graph && d.Kind != Agent {
		wrong = append(wrong, violation.New("kind", "must be %s or %s, is %q", Graph, Agent, d.Kind))
	}
	if !violation.IsName(d.Name) {
		wrong = append(wrong, violation.New("name", "must be letters, digits, dashes and underscores, at most %d", maxNameBytes))
	}
	switch {
	case len(d.Text) == 0:
		wrong = append(wrong, violation.New("document", "is empty"))
	case len(d.Text) > MaxTextBytes:
		return &violation.TooLargeError{Field: "document", Size: len(d.Text), Limit: MaxTextBytes}
	case !utf8.Valid(d.Text):
		wrong = append(wrong, violation.New("document", "must be UTF-8"))
	}
	d.Description = violation.Clip(strings.ToValidUTF8(d.Description, ""), maxDescriptionBytes)
	return violation.Join(wrong...)
}
