package model

import (
	"fmt"
	"slices"
	"strings"
)

// UnknownModelError is names that belong to no provider that is configured.
type UnknownModelError struct {
	// Models are the names, as they were given.
	Models []string
	// Configured are the providers that are configured.
	Configured []string
}

func (e *UnknownModelError) Error() string {
	return fmt.Sprintf("%s: no provider that is configured (%s) has models of such a name; write provider/model",
		strings.Join(e.Models, ", "), strings.Join(e.Configured, ", "))
}

// reference is a model of a provider.
type reference struct{ provider, model string }

func (r reference) String() string { return r.provider + "/" + r.model }

// directory finds the provider of a model by its name.
type directory []kind

// chain finds models by their names. It fails with *UnknownModelError.
func (d directory) chain(names []string) ([]reference, error) {
	var chain []reference
	var unknown []string
	for _, name := range names {
		found, known := d.find(strings.TrimSpace(name))
		switch {
		case !known:
			unknown = append(unknown, name)
		case !slices.Contains(chain, found):
			chain = append(chain, found)
		}
	}
	if len(unknown) > 0 {
		return nil, &UnknownModelError{Models: unknown, Configured: d.names()}
	}
	return chain, nil
}

// find returns the provider's model that a name means. A name that begins with a
// provider is its; one alone is the only provider's there is, or that which
// models of such a name come from. An endpoint of any models takes what is left.
func (d directory) find(name string) (_ reference, known bool) {
	before, model, named := strings.Cut(name, "/")
	switch {
	case name == "" || (named && (before == "" || model == "")):
		return reference{}, false
	case named && slices.Contains([]string{openAIName, anthropicName, geminiName}, before):
		return reference{before, model}, slices.Contains(d.names(), before)
	case !named && len(d) == 1:
		return reference{d[0].name, name}, true
	}
	for _, k := range d {
		if !named && slices.ContainsFunc(k.prefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			return reference{k.name, name}, true
		}
	}
	for _, k := range d {
		if k.open {
			return reference{k.name, name}, true
		}
	}
	return reference{}, false
}

func (d directory) names() []string {
	names := make([]string, len(d))
	for i, k := range d {
		names[i] = k.name
	}
	return names
}
