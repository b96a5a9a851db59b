package definition

import (
	"context"
	"errors"
	"fmt"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// maxTries bounds how often a change is tried again because another runtime was faster.
// Each failed try means that somebody succeeded.
const maxTries = 100

// Register makes a text current under its name, and returns it once it is durable;
// created is whether it is a new version. The text that is current already changes
// nothing. With a requestID, of at most 64 bytes, a repeat of one of the last calls that
// changed the name has no second effect, and gets what that call came to.
//
// Errors: *violation.Error, also for a name of the runtime's own, *violation.TooLargeError,
// *LimitError.
func (s *Store) Register(ctx context.Context, namespace string, d Definition, requestID string) (Definition, bool, error) {
	if err := violation.Join(d.check(), checkRequestID(requestID)); err != nil {
		return Definition{}, false, err
	}
	var (
		k, name    = key{namespace, d.Kind, d.Name}, VersionOf(d.Text)
		registered version
		created    bool
	)
	err := s.change(ctx, k, func(e *entry) (*change, error) {
		known, old := e.versions[name]
		registered, created = known.version, !old
		registered.Text = d.Text
		if done, repeated := e.head.find(requestID, name); repeated && old {
			created = done.Created
			return nil, nil
		}
		if e.live() && e.head.Version == name {
			return nil, nil
		}
		if err := s.MayRegister(namespace, d.Kind, d.Name); err != nil {
			return nil, err
		}
		next := head{Version: name, Last: e.head.Last}
		if created {
			next.Last++
			registered = version{Number: next.Last, Description: d.Description, CreatedAt: s.now().UTC(), Text: d.Text}
		}
		next.Current = registered
		next.Requests = e.head.remember(request{ID: requestID, Version: name, Created: created})
		return &change{head: next, added: created}, nil
	})
	if err != nil {
		return Definition{}, false, err
	}
	return registered.definition(k, name), created, nil
}

// MayRegister refuses a name that a namespace cannot have, or one too many.
// Errors: *violation.Error, *LimitError.
func (s *Store) MayRegister(namespace string, kind Kind, name string) error {
	k := key{namespace, kind, name}
	if e := s.catalog.read(k); e.live() {
		return nil
	}
	if s.catalog.isOwn(k) {
		return violation.New("name", "%s is the name of a %s of the runtime's own", name, kind)
	}
	if live, _, _ := s.catalog.count(namespace); live >= s.maxDefinitions {
		return &LimitError{Namespace: namespace, Limit: s.maxDefinitions}
	}
	return nil
}

// Delete takes a name out of what is current. Its versions stay for the runs that began
// with them. With a requestID a repeat has no second effect, as with Register.
// Errors: *NotFoundError, *violation.Error.
func (s *Store) Delete(ctx context.Context, namespace string, kind Kind, name, requestID string) error {
	if err := checkRequestID(requestID); err != nil {
		return err
	}
	k := key{namespace, kind, name}
	err := s.change(ctx, k, func(e *entry) (*change, error) {
		if _, repeated := e.head.find(requestID, ""); repeated {
			return nil, nil
		}
		switch {
		case e.live():
		case s.catalog.isOwn(k):
			return nil, violation.New("name", "%s is a %s of the runtime's own, which cannot be deleted", name, kind)
		default:
			return nil, &NotFoundError{Kind: kind, Name: name}
		}
		return &change{head: head{
			Last: e.head.Last, DeletedAt: s.now().UTC(), Requests: e.head.remember(request{ID: requestID}),
		}}, nil
	})
	if err != nil {
		return err
	}
	return s.forget(ctx, namespace)
}

// forget removes the names that were deleted first, where there are too many.
func (s *Store) forget(ctx context.Context, namespace string) error {
	for {
		_, deleted, first := s.catalog.count(namespace)
		if deleted <= s.maxDefinitions {
			return nil
		}
		err := s.change(ctx, first, func(e *entry) (*change, error) {
			if e.live() || e.head.Gone {
				return nil, nil
			}
			return &change{head: head{Gone: true}}, nil
		})
		if err != nil {
			return err
		}
	}
}

func checkRequestID(requestID string) error {
	if len(requestID) > maxRequestIDBytes {
		return violation.New("request_id", "must be at most %d bytes long", maxRequestIDBytes)
	}
	return nil
}

// change is what a name gets: another head, and where that is new the version that it has.
type change struct {
	head  head
	added bool
}

// change replaces a name's head by what decide makes of it, at once with what that
// removes and adds, and again while another runtime is faster. decide returns nil where
// there is nothing to do.
func (s *Store) change(ctx context.Context, k key, decide func(e *entry) (*change, error)) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	e := s.catalog.read(k)
	for range maxTries {
		next, err := decide(&e)
		if err != nil || next == nil {
			return err
		}
		err = s.write(ctx, k, &e, next)
		if !errors.Is(err, journal.ErrConflict) {
			return err
		}
		if e, err = s.readAgain(ctx, k); err != nil {
			return err
		}
	}
	return fmt.Errorf("change %s %s: other runtimes were faster %d times: %w", k.kind, k.name, maxTries, journal.ErrUnavailable)
}

// readAgain reads a name from the journal. The head comes first: a version that is added
// later comes with another head.
func (s *Store) readAgain(ctx context.Context, k key) (entry, error) {
	rec, err := s.stream.Last(ctx, k.subject(headLeaf))
	switch {
	case err == nil:
		s.take(ctx, rec)
	case !errors.Is(err, journal.ErrNotFound):
		return entry{}, fmt.Errorf("read %s %s: %w", k.kind, k.name, err)
	}
	if _, err := s.scan(ctx, k.subject("*")); err != nil {
		return entry{}, err
	}
	e := s.catalog.read(k)
	// The catalog has no sequence of a head that marks the name as gone.
	e.sequence = max(e.sequence, rec.Sequence)
	return e, nil
}

// write appends what a change comes to, and takes it in once it is durable.
func (s *Store) write(ctx context.Context, k key, e *entry, c *change) error {
	type record struct {
		leaf    string
		content any
		gone    bool
	}
	var records []record
	switch {
	case c.head.Gone:
		for name := range e.versions {
			records = append(records, record{name, version{Gone: true}, true})
		}
	case c.added:
		records = append(records, record{c.head.Version, c.head.Current, false})
		if len(e.versions) >= s.maxVersions {
			records = append(records, record{e.oldest(c.head.Version), version{Gone: true}, true})
		}
	}
	records = append(records, record{headLeaf, c.head, c.head.Gone})
	messages := make([]journal.Message, len(records))
	for i, r := range records {
		var err error
		if messages[i], err = k.message(r.leaf, r.content, r.gone); err != nil {
			return err
		}
		if c.head.Version == "" {
			messages[i].Purpose = journal.Release
		}
	}
	messages[len(messages)-1].Expect = &e.sequence
	return s.append(ctx, messages)
}

// append makes records durable, all or none, and takes them in.
func (s *Store) append(ctx context.Context, messages []journal.Message) error {
	var (
		sequences = make([]uint64, 1)
		err       error
	)
	if len(messages) == 1 {
		sequences[0], err = s.stream.Append(ctx, messages[0])
	} else {
		sequences, err = s.stream.AppendAtomic(ctx, messages)
	}
	if err == nil {
		err = s.stream.Commit(ctx, sequences[len(sequences)-1])
	}
	if err != nil {
		return fmt.Errorf("keep definition: %w", err)
	}
	for i, m := range messages {
		s.take(ctx, journal.Record{Subject: m.Subject, Data: m.Data, Sequence: sequences[i]})
	}
	return nil
}
