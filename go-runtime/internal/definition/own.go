package definition

import (
	"context"
	"errors"
	"fmt"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// Provide makes documents of the runtime's own current, in place of those that the call
// before gave, beside the built-in ones. A version that is new is noted in the journal,
// for the runs that begin with it. Errors: those of Register for any of them, or that a
// name is given twice; then everything stays as it was.
func (s *Store) Provide(ctx context.Context, definitions []Definition) error {
	all := make([]Definition, 0, len(s.builtIn)+len(definitions))
	all = append(append(all, s.builtIn...), definitions...)
	own := make(map[key]Definition, len(all))
	var wrong []error
	for _, d := range all {
		k := key{kind: d.Kind, name: d.Name}
		err := d.check()
		if _, taken := own[k]; taken {
			err = errors.Join(err, errors.New("another one of the runtime's own has the name"))
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s %s: %w", d.Kind, d.Name, err))
		}
		own[k] = d
	}
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	for k, d := range own {
		noted, err := s.note(ctx, k, d)
		if err != nil {
			return fmt.Errorf("note %s %s: %w", k.kind, k.name, err)
		}
		own[k] = noted
	}
	for _, k := range s.catalog.setOwn(own) {
		s.tell(k)
	}
	return nil
}

// note returns a document with its number, which it gets when the journal has none of its version.
func (s *Store) note(ctx context.Context, k key, d Definition) (Definition, error) {
	name := VersionOf(d.Text)
	e := s.catalog.read(k)
	v := e.versions[name].version
	if v.Number == 0 {
		v = version{Number: 1, Description: d.Description, CreatedAt: s.now().UTC()}
		for _, other := range e.versions {
			v.Number = max(v.Number, other.Number+1)
		}
		v.Text = d.Text
		added, err := k.message(name, v, false)
		if err != nil {
			return Definition{}, err
		}
		added.Purpose = journal.Finish
		messages := []journal.Message{added}
		if len(e.versions) >= s.maxVersions {
			removed, err := k.message(e.oldest(name), version{Gone: true}, true)
			if err != nil {
				return Definition{}, err
			}
			messages = append(messages, removed)
		}
		switch err := s.append(ctx, messages); {
		case errors.Is(err, journal.ErrNoSpace):
			// A runtime starts on a full disk, too.
			s.log.WarnContext(ctx, "definition of the runtime's own not noted", "kind", k.kind, "name", k.name, "err", err)
		case err != nil:
			return Definition{}, err
		}
	}
	v.Text, v.Description = d.Text, d.Description
	return v.definition(k, name), nil
}

// setOwn replaces the runtime's own documents, and returns those that are others now.
func (c *catalog) setOwn(own map[key]Definition) (changed []key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, d := range own {
		if c.own[k].Version != d.Version {
			changed = append(changed, k)
		}
	}
	for k := range c.own {
		if _, stays := own[k]; !stays {
			changed = append(changed, k)
		}
	}
	c.own = own
	return changed
}
