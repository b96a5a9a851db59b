package tool

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// HTTP describes a tool that an HTTP server does, as a document does. Web.Tool makes the tool.
//
// A POST sends the arguments as its body, a JSON object. A GET sends them in the
// query: a list as a parameter for each item, an object as JSON, null not at all.
type HTTP struct {
	// Name, Description, Timeout and Approval are those of Tool.
	Name        string        `yaml:"name"`
	Description string        `yaml:"description"`
	Timeout     time.Duration `yaml:"timeout"`
	Approval    bool          `yaml:"approval"`
	// Schema is the JSON Schema of the arguments; none takes any object.
	Schema map[string]any `yaml:"schema"`

	URL string `yaml:"url"`
	// Method is POST, or GET for what changes nothing; empty: POST.
	Method string `yaml:"method"`
	// Headers go with each request. A value may have ${secret:NAME} in it, for a
	// secret of WebConfig.Secrets.
	Headers map[string]string `yaml:"headers"`
}

// secretReference is how a header's value names a secret.
var secretReference = regexp.MustCompile(`\$\{secret:([A-Za-z_][A-Za-z0-9_]*)\}`)

// Check returns a *violation.Error that names everything that is wrong with the
// description, by its path from field, as far as that does not depend on the settings.
func (h HTTP) Check(field string) error {
	_, err := h.tool(field)
	return err
}

// tool is the description as a Tool that cannot be called yet.
func (h HTTP) tool(field string) (Tool, error) {
	var errURL, errMethod, errSchema error
	if _, err := parseURL(h.URL); err != nil {
		errURL = violation.New(field+".url", "%s", err)
	}
	if h.Method != "" && h.Method != http.MethodGet && h.Method != http.MethodPost {
		errMethod = violation.New(field+".method", "must be GET or POST")
	}
	t := Tool{Name: h.Name, Description: h.Description, Timeout: h.Timeout, Approval: h.Approval}
	if h.Schema != nil {
		var err error
		if t.Schema, err = json.Marshal(h.Schema); err != nil {
			errSchema = violation.New(field+".schema", "cannot be written as JSON: %s", err)
		}
	}
	errs := []error{t.checkForm(field), errSchema, errURL, errMethod}
	for _, name := range slices.Sorted(maps.Keys(h.Headers)) {
		errs = append(errs, checkHeader(fmt.Sprintf("%s.headers[%q]", field, violation.Clip(name, MaxNameBytes)), name, h.Headers[name]))
	}
	return t, violation.Join(errs...)
}

// ownHeaders are those that requests have anyway.
func ownHeaders() []string {
	return []string{
		"Connection", "Content-Length", "Content-Type", "Host", "Idempotency-Key", "Keep-Alive", "Proxy-Authorization",
		"Proxy-Connection", "Te", "Trailer", "Traceparent", "Tracestate", "Transfer-Encoding", "Upgrade",
	}
}

func checkHeader(field, name, value string) error {
	switch {
	case !httpguts.ValidHeaderFieldName(name):
		return violation.New(field, "is no name of a header")
	case slices.Contains(ownHeaders(), http.CanonicalHeaderKey(name)):
		return violation.New(field, "is set by the runtime")
	case !httpguts.ValidHeaderFieldValue(value):
		return violation.New(field, "has characters that no header may have")
	case strings.Contains(secretReference.ReplaceAllString(value, ""), "${"):
		return violation.New(field, "has a ${ that begins no ${secret:NAME}")
	}
	return nil
}

// secretsOf are the names of the secrets that headers refer to, sorted.
func secretsOf(headers map[string]string) []string {
	names := map[string]bool{}
	for _, value := range headers {
		for _, match := range secretReference.FindAllStringSubmatch(value, -1) {
			names[match[1]] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// query adds a call's arguments to those that the URL of a GET has.
func query(u *url.URL, arguments []byte) (string, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(arguments, &object); err != nil {
		return "", fmt.Errorf("read arguments: %w", err)
	}
	parameters := u.Query()
	for name, value := range object {
		var items []json.RawMessage
		if json.Unmarshal(value, &items) != nil {
			items = []json.RawMessage{value}
		}
		for _, item := range items {
			if text, given := parameterText(item); given {
				parameters.Add(name, text)
			}
		}
	}
	return parameters.Encode(), nil
}

// parameterText is a JSON value as a parameter has it, or false for null.
func parameterText(value json.RawMessage) (text string, given bool) {
	if string(value) == "null" {
		return "", false
	}
	if json.Unmarshal(value, &text) == nil {
		return text, true
	}
	return string(value), true
}
