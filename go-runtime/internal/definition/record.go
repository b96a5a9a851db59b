package definition

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// A name has a record for each version, which says what it is, and a head, which says
// which one is current. Every change of a name replaces its head, if that is still the
// one that was read. Where several records change, they do at once.
const (
	streamName    = "DEFINITIONS"
	subjectPrefix = "definition."
	headLeaf      = "head"
	// goneTTL is how long the mark of a removed record is kept.
	goneTTL = 24 * time.Hour
	// keptRequests is how many calls a name remembers for those who repeat them.
	keptRequests = 20
)

// key is whose documents, of what kind and name.
type key struct {
	namespace string
	kind      Kind
	name      string
}

// subject is where the key's head is, or a version by its name.
func (k key) subject(leaf string) string {
	return subjectPrefix + journal.EncodeToken(k.namespace) + "." + string(k.kind) + "." + journal.EncodeToken(k.name) + "." + leaf
}

func parseSubject(subject string) (k key, leaf string, err error) {
	parts := strings.Split(strings.TrimPrefix(subject, subjectPrefix), ".")
	const members = 4
	if len(parts) != members {
		return key{}, "", fmt.Errorf("subject %q is that of no definition", subject)
	}
	k.kind = Kind(parts[1])
	if k.namespace, err = journal.DecodeToken(parts[0]); err == nil {
		k.name, err = journal.DecodeToken(parts[2])
	}
	if err != nil {
		return key{}, "", fmt.Errorf("subject %q: %w", subject, err)
	}
	return k, parts[3], nil
}

// version is the record of a version, without the names that its subject has.
type version struct {
	Number      int       `json:"number,omitempty"`
	Description string    `json:"description,omitempty"`
	CreatedAt   time.Time `json:"created_at,omitzero"`
	Text        []byte    `json:"text,omitempty"`
	// Gone marks what was removed.
	Gone bool `json:"gone,omitempty"`
}

// head is the record of what is current, with all of it, so that a reader of heads alone
// knows what new runs use.
type head struct {
	Version string  `json:"version,omitempty"`
	Current version `json:"current,omitzero"`
	// Last is the number of the newest version that there ever was.
	Last int `json:"last,omitempty"`
	// DeletedAt is when the name was deleted; zero: it was not.
	DeletedAt time.Time `json:"deleted_at,omitzero"`
	Requests  []request `json:"requests,omitempty"`
	Gone      bool      `json:"gone,omitempty"`
}

// request is a call that changed the name, and what came of it.
type request struct {
	ID string `json:"id"`
	// Version is what was registered; empty: the name was deleted.
	Version string `json:"version,omitempty"`
	// Created is whether the version was new.
	Created bool `json:"created,omitempty"`
}

func (v *version) definition(k key, name string) Definition {
	return Definition{
		Namespace: k.namespace, Kind: k.kind, Name: k.name, Version: name,
		Number: v.Number, Text: v.Text, Description: v.Description, CreatedAt: v.CreatedAt,
	}
}

// find returns what an earlier call with a request id did about a version.
func (h *head) find(requestID, version string) (request, bool) {
	if requestID == "" {
		return request{}, false
	}
	for _, r := range h.Requests {
		if r.ID == requestID && r.Version == version {
			return r, true
		}
	}
	return request{}, false
}

// remember returns the calls that are remembered with one more.
func (h *head) remember(r request) []request {
	if r.ID == "" {
		return h.Requests
	}
	kept := append(append([]request(nil), h.Requests...), r)
	return kept[max(0, len(kept)-keptRequests):]
}

// message is the record at a leaf of a key. What is gone is kept for a while only.
func (k key) message(leaf string, content any, gone bool) (journal.Message, error) {
	data, err := json.Marshal(content)
	if err != nil {
		return journal.Message{}, fmt.Errorf("encode %s of %s %s: %w", leaf, k.kind, k.name, err)
	}
	m := journal.Message{Subject: k.subject(leaf), Data: data, Purpose: journal.Accept}
	if gone {
		m.TTL, m.Purpose = goneTTL, journal.Release
	}
	return m, nil
}
