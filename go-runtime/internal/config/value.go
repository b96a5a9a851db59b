package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
)

// value is the field a setting fills. Set's error says what would be right, in
// words for the person who set it.
type value interface {
	Set(raw string) error
	String() string
}

type textValue string

func (v *textValue) Set(raw string) error { *v = textValue(raw); return nil }
func (v *textValue) String() string       { return string(*v) }

// addressValue is a TCP address; "off" gives the empty one.
type addressValue string

func (v *addressValue) Set(raw string) error {
	if raw == off {
		*v = ""
		return nil
	}
	_, port, err := net.SplitHostPort(raw)
	if err != nil {
		return errors.New("want host:port, such as 127.0.0.1:50051")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %q is not a number from 0 to 65535", port)
	}
	*v = addressValue(raw)
	return nil
}

func (v *addressValue) String() string { return cmp.Or(string(*v), off) }

// maxSocketPath is how many bytes the kernel's address of a Unix socket holds.
const maxSocketPath = 107

// socketValue is the path of a Unix socket; "off" gives the empty one.
type socketValue string

func (v *socketValue) Set(raw string) error {
	if raw == off {
		*v = ""
		return nil
	}
	if raw == "" {
		return errors.New("want a path, or off")
	}
	if len(raw) > maxSocketPath {
		return fmt.Errorf("the path of a Unix socket has at most %d bytes, this one has %d", maxSocketPath, len(raw))
	}
	*v = socketValue(raw)
	return nil
}

func (v *socketValue) String() string { return cmp.Or(string(*v), off) }

// httpAgentsValue is agents that HTTP servers execute, by id: id=url, and options
// of the agent, each behind a semicolon.
type httpAgentsValue map[string]HTTPAgent

func (v *httpAgentsValue) Set(raw string) error {
	agents := map[string]HTTPAgent{}
	for part := range strings.SplitSeq(raw, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		described, options, _ := strings.Cut(part, ";")
		id, address, _ := strings.Cut(described, "=")
		u, err := url.Parse(address)
		if id == "" || err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("%q: want name=http://host:port/path, several with commas between", described)
		}
		if _, twice := agents[id]; twice {
			return fmt.Errorf("%q is there twice", id)
		}
		agent := HTTPAgent{URL: address}
		if err := agent.setOptions(options); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
		agents[id] = agent
	}
	*v = agents
	return nil
}

func (v *httpAgentsValue) String() string {
	parts := make([]string, 0, len(*v))
	unset := (&HTTPAgent{}).options()
	for _, id := range slices.Sorted(maps.Keys(*v)) {
		agent := (*v)[id]
		part := []string{id + "=" + agent.URL}
		for i, o := range agent.options() {
			if text := o.value.String(); text != unset[i].value.String() {
				part = append(part, o.name+"="+text)
			}
		}
		parts = append(parts, strings.Join(part, ";"))
	}
	return strings.Join(parts, ",")
}

// options is a table like settings, bound to a.
func (a *HTTPAgent) options() []setting {
	return []setting{
		{name: "max-attempts", value: &intValue{&a.MaxAttempts, 1, 100}},
		{name: "initial-backoff", value: &durationValue{&a.InitialBackoff, time.Millisecond, day}},
		{name: "max-backoff", value: &durationValue{&a.MaxBackoff, time.Millisecond, day}},
		{name: "multiplier", value: &floatValue{&a.Multiplier, 1, 1000}},
		{name: "run-timeout", value: &durationValue{&a.RunTimeout, time.Second, 30 * day}},
	}
}

// setOptions reads name=value pairs with semicolons between.
func (a *HTTPAgent) setOptions(raw string) error {
	table := a.options()
	for text := range strings.SplitSeq(raw, ";") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		name, value, _ := strings.Cut(text, "=")
		i := slices.IndexFunc(table, func(o setting) bool { return o.name == name })
		if i < 0 {
			names := make([]string, len(table))
			for i, o := range table {
				names[i] = o.name
			}
			return fmt.Errorf("%q is none of its options: %s; in the URL, a semicolon is %%3B", name, strings.Join(names, ", "))
		}
		if err := table[i].value.Set(value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// originsValue is web origins with commas between: scheme, host and, where it is
// not the scheme's own, port, as browsers send them.
type originsValue []string

func (v *originsValue) Set(raw string) error {
	var origins []string
	for part := range strings.SplitSeq(raw, ",") {
		origin := strings.TrimSpace(part)
		if origin == "" {
			continue
		}
		u, err := url.Parse(origin)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.Port() == usualPort(u.Scheme) ||
			strings.Contains(u.Host, "*") || origin != u.Scheme+"://"+strings.ToLower(u.Host) {
			return errors.New("want https://host or https://host:port in lower case, without path or usual port, " +
				"several with commas between")
		}
		origins = append(origins, origin)
	}
	*v = origins
	return nil
}

func (v *originsValue) String() string { return strings.Join(*v, ",") }

// usualPort is the port that an origin of this scheme leaves out.
func usualPort(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}

type natsURLValue string

func (v *natsURLValue) Set(raw string) error {
	for part := range strings.SplitSeq(raw, ",") {
		u, err := url.Parse(strings.TrimSpace(part))
		if raw != "" && (err != nil || u.Host == "" || (u.Scheme != "nats" && u.Scheme != "tls")) {
			return errors.New("want nats://host:port or tls://host:port, several with commas between")
		}
	}
	*v = natsURLValue(raw)
	return nil
}

// String leaves out a password in the URL.
func (v *natsURLValue) String() string {
	parts := strings.Split(string(*v), ",")
	for i, part := range parts {
		if u, err := url.Parse(strings.TrimSpace(part)); err == nil {
			parts[i] = u.Redacted()
		}
	}
	return strings.Join(parts, ",")
}

type webURLValue string

func (v *webURLValue) Set(raw string) error {
	u, err := url.Parse(raw)
	if raw != "" && (err != nil || u.Host == "" || u.User != nil || (u.Scheme != "http" && u.Scheme != "https")) {
		return errors.New("want an http:// or https:// URL without user and password")
	}
	*v = webURLValue(raw)
	return nil
}

func (v *webURLValue) String() string { return string(*v) }

// namesValue is names with commas between.
type namesValue []string

func (v *namesValue) Set(raw string) error {
	var names []string
	for part := range strings.SplitSeq(raw, ",") {
		if name := strings.TrimSpace(part); name != "" {
			names = append(names, name)
		}
	}
	*v = names
	return nil
}

func (v *namesValue) String() string { return strings.Join(*v, ",") }

// maxSecretBytes is far above any key, and keeps a mistaken path from filling memory.
const maxSecretBytes = 64 << 10

// secretFileValue is the path of a file that holds a secret, as container
// platforms mount them. White space around the secret is not part of it.
type secretFileValue struct{ path, secret *string }

func (v *secretFileValue) Set(raw string) error {
	*v.path = raw
	if raw == "" {
		return nil
	}
	if *v.secret != "" {
		return errors.New("the secret itself is set too: give one of them")
	}
	file, err := os.Open(raw)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(file, maxSecretBytes))
	if err != nil {
		return err
	}
	if *v.secret = strings.TrimSpace(string(text)); *v.secret == "" {
		return errors.New("the file is empty")
	}
	return nil
}

func (v *secretFileValue) String() string { return *v.path }

// redactValue is names of JSON members.
type redactValue []string

func (v *redactValue) Set(raw string) error {
	var names namesValue
	if err := names.Set(raw); err != nil {
		return err
	}
	for _, name := range names {
		if err := span.CheckRedact(name); err != nil {
			return err
		}
	}
	*v = redactValue(names)
	return nil
}

func (v *redactValue) String() string { return strings.Join(*v, ",") }

// traceURLValue is a web URL with a place for a trace's id.
type traceURLValue string

const maxTraceURL = 500

func (v *traceURLValue) Set(raw string) error {
	u, err := url.Parse(strings.NewReplacer("{trace_id}", "0", "{run_id}", "0").Replace(raw))
	if raw != "" && (err != nil || u.Host == "" || u.User != nil || (u.Scheme != "http" && u.Scheme != "https") ||
		!strings.Contains(raw, "{trace_id}") || len(raw) > maxTraceURL) {
		return fmt.Errorf("want an http:// or https:// URL without user and password, with {trace_id} in it, of at most %d bytes",
			maxTraceURL)
	}
	*v = traceURLValue(raw)
	return nil
}

func (v *traceURLValue) String() string { return string(*v) }

// prefixesValue is web URLs with commas between, without user, query and fragment.
type prefixesValue []string

func (v *prefixesValue) Set(raw string) error {
	var prefixes []string
	for part := range strings.SplitSeq(raw, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		u, err := url.Parse(part)
		if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
			(u.Scheme != "http" && u.Scheme != "https") {
			return errors.New("want https://host/path, several with commas between, without user, password and query")
		}
		prefixes = append(prefixes, part)
	}
	*v = prefixes
	return nil
}

func (v *prefixesValue) String() string { return strings.Join(*v, ",") }

// secretsValue is names of environment variables, or name=path of a file each.
type secretsValue map[string]string

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (v *secretsValue) Set(raw string) error {
	secrets := map[string]string{}
	for part := range strings.SplitSeq(raw, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, path, _ := strings.Cut(part, "=")
		if !variableName.MatchString(name) {
			return errors.New("want names of environment variables, or name=path of a file, with commas between")
		}
		if _, twice := secrets[name]; twice {
			return fmt.Errorf("%q is there twice", name)
		}
		secrets[name] = path
	}
	*v = secrets
	return nil
}

func (v *secretsValue) String() string {
	parts := make([]string, 0, len(*v))
	for _, name := range slices.Sorted(maps.Keys(*v)) {
		part := name
		if path := (*v)[name]; path != "" {
			part += "=" + path
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ",")
}

// switchValue is on or off.
type switchValue bool

func (v *switchValue) Set(raw string) error {
	if raw != "on" && raw != off {
		return errors.New("want on or off")
	}
	*v = raw == "on"
	return nil
}

func (v *switchValue) String() string {
	if *v {
		return "on"
	}
	return off
}

type choiceValue struct {
	field   *string
	choices []string
}

func (v *choiceValue) Set(raw string) error {
	if !slices.Contains(v.choices, raw) {
		return fmt.Errorf("want one of %s", strings.Join(v.choices, ", "))
	}
	*v.field = raw
	return nil
}

func (v *choiceValue) String() string { return *v.field }

type intValue struct {
	field    *int
	min, max int
}

func (v *intValue) Set(raw string) error {
	n, err := strconv.Atoi(raw)
	if err != nil || n < v.min || n > v.max {
		return fmt.Errorf("want a whole number from %d to %d", v.min, v.max)
	}
	*v.field = n
	return nil
}

func (v *intValue) String() string { return strconv.Itoa(*v.field) }

type floatValue struct {
	field    *float64
	min, max float64
}

func (v *floatValue) Set(raw string) error {
	n, err := strconv.ParseFloat(raw, 64)
	if err != nil || math.IsNaN(n) || n < v.min || n > v.max {
		return fmt.Errorf("want a number from %g to %g", v.min, v.max)
	}
	*v.field = n
	return nil
}

func (v *floatValue) String() string { return strconv.FormatFloat(*v.field, 'g', -1, 64) }

// sizeUnits are in falling order, so that String finds the largest that divides.
func sizeUnits() []sizeUnit {
	return []sizeUnit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}
}

type sizeUnit struct {
	name  string
	bytes int64
}

type bytesValue[T int | int64] struct {
	field    *T
	min, max int64
}

func (v *bytesValue[T]) Set(raw string) error {
	digits, unit := raw, int64(1)
	for _, u := range sizeUnits() {
		if head, found := strings.CutSuffix(raw, u.name); found {
			digits, unit = strings.TrimSpace(head), u.bytes
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > v.max/unit || n*unit < v.min {
		return fmt.Errorf("want bytes from %s to %s, such as 1048576 or 1MiB", sizeText(v.min), sizeText(v.max))
	}
	*v.field = T(n * unit)
	return nil
}

func (v *bytesValue[T]) String() string { return sizeText(int64(*v.field)) }

func sizeText(n int64) string {
	for _, u := range sizeUnits() {
		if n > 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

type durationValue struct {
	field    *time.Duration
	min, max time.Duration
}

func (v *durationValue) Set(raw string) error {
	d, err := time.ParseDuration(raw)
	if err != nil || d < v.min || d > v.max {
		return fmt.Errorf("want a duration from %s to %s, such as 90s, 15m or 1h30m", v.min, v.max)
	}
	*v.field = d
	return nil
}

func (v *durationValue) String() string { return v.field.String() }

type levelValue slog.Level

func (v *levelValue) Set(raw string) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(raw)); err != nil {
		return errors.New("want debug, info, warn or error")
	}
	*v = levelValue(level)
	return nil
}

func (v *levelValue) String() string { return strings.ToLower(slog.Level(*v).String()) }
