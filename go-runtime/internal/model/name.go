package model

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// UnknownModelError is a name that belongs to no provider that is configured.
type UnknownModelError struct {
	// Model is the name, as it was given.
	Model string
	// Configured are the providers that are configured.
	Configured []string
}

func (e *UnknownModelError) Error() string {
	return fmt.Sprintf("model %q belongs to no provider that is configured (%s); name it as provider/model",
		e.Model, strings.Join(e.Configured, ", "))
}

// reference is a model of a provider.
type reference struct{ provider, model string }

func (r reference) String() string { return r.provider + "/" + r.model }

// directory finds the provider of a model by its name.
type directory []kind

// chain reads model names with commas between.
func (d directory) chain(names []string) ([]reference, error) {
	var chain []reference
	var errs []error
	for _, name := range names {
		found, err := d.find(strings.TrimSpace(name))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !slices.Contains(chain, found) {
			chain = append(chain, found)
		}
	}
	return chain, errors.Join(errs...)
}

// find returns the provider's model that a name means. A name that begins with a
// provider is its; one alone is the only provider's there is, or that which
// models of such a name come from. An endpoint of any models takes what is left.
func (d directory) find(name string) (reference, error) {
	unknown := &UnknownModelError{Model: name, Configured: d.names()}
	before, model, named := strings.Cut(name, "/")
	switch {
	case named && model != "" && slices.Contains([]string{openAIName, anthropicName, geminiName}, before):
		if !slices.Contains(unknown.Configured, before) {
			return reference{}, unknown
		}
		return reference{before, model}, nil
	case name == "" || (named && (before == "" || model == "")):
		return reference{}, unknown
	case !named && len(d) == 1:
		return reference{d[0].name, name}, nil
	}
	for _, k := range d {
		if !named && slices.ContainsFunc(k.prefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			return reference{k.name, name}, nil
		}
	}
	for _, k := range d {
		if k.open {
			return reference{k.name, name}, nil
		}
	}
	return reference{}, unknown
}

func (d directory) names() []string {
	names := make([]string, len(d))
	for i, k := range d {
		names[i] = k.name
	}
	return names
}
