package mcp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/net/http/httpguts"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Config names the MCP servers that agents may use, as a file that Load reads does.
type Config struct {
	// Servers are by name: letters, digits and dashes, and single underscores between them.
	Servers map[string]ServerConfig `yaml:"mcpServers"` //nolint:tagliatelle // as other assistants write it
}

// ServerConfig says how one server is reached: a command that speaks over its
// standard input and output, or a URL that speaks streamable HTTP.
type ServerConfig struct {
	// Type may say which of both, `stdio` or `http`.
	Type string `yaml:"type"`

	Command string   `yaml:"command"`
	Args    []string `yaml:"args"`
	// Env is added to the few variables that a command is given; see keptVariables.
	// A value may have ${NAME} in it, for a variable of the runtime's own environment.
	Env map[string]string `yaml:"env"`
	Cwd string            `yaml:"cwd"`

	URL string `yaml:"url"`
	// Headers go with each request; ${NAME} is as in Env.
	Headers map[string]string `yaml:"headers"`

	// Tools are those that agents may use, by the server's own names, and read_resource
	// and get_prompt; none given: all.
	Tools []string `yaml:"tools"`
	// Approval are those that a person must agree to before each call; "*": all.
	Approval []string `yaml:"approval"`
	// Timeout is the longest one call may take; 0: tool.DefaultTimeout.
	Timeout time.Duration `yaml:"timeout"`
	// Disabled servers are as if they were not there.
	Disabled bool `yaml:"disabled"`
}

// maxNameBytes leaves room for the names of tools behind that of their server.
const maxNameBytes = 32

var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9-]+(_[A-Za-z0-9-]+)*$`)
	variable    = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)
)

// Load reads a YAML or JSON file of servers and puts the values of variables into
// it; getenv is os.Getenv. The error names every mistake, and quotes no value.
func Load(path string, getenv func(string) string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read MCP servers: %w", err)
	}
	cfg, err := parse(data, getenv)
	if err != nil {
		return Config{}, fmt.Errorf("read MCP servers from %s: %w", path, err)
	}
	return cfg, nil
}

func parse(data []byte, getenv func(string) string) (Config, error) {
	var cfg Config
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&cfg); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, unquoted(err)
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(cfg.Servers)) {
		server := cfg.Servers[name]
		if server.Disabled {
			delete(cfg.Servers, name)
			continue
		}
		field := fmt.Sprintf("mcpServers[%q]", violation.Clip(name, maxNameBytes))
		errs = append(errs, server.check(field, name), expand(field+".env", server.Env, getenv),
			expand(field+".headers", server.Headers, getenv))
	}
	return cfg, violation.Join(errs...)
}

// unquoted leaves out the values that errors of the YAML decoder quote: they may be secrets.
func unquoted(err error) error {
	mistaken, found := errors.AsType[*yaml.TypeError](err)
	if !found {
		return errors.New("it is neither YAML nor JSON")
	}
	quoted := regexp.MustCompile("`[^`]*`")
	errs := make([]error, len(mistaken.Errors))
	for i, mistake := range mistaken.Errors {
		errs[i] = errors.New(quoted.ReplaceAllString(mistake, "the value"))
	}
	return errors.Join(errs...)
}

// check returns a *violation.Error for everything that is wrong with a server.
func (c ServerConfig) check(field, name string) error {
	var errs []error
	mistake := func(wrong bool, of, format string, args ...any) {
		if wrong {
			errs = append(errs, violation.New(field+of, format, args...))
		}
	}
	mistake(len(name) > maxNameBytes || !namePattern.MatchString(name), "",
		"must be 1 to %d letters, digits and dashes, and single underscores between them", maxNameBytes)
	mistake(c.Command == "" && c.URL == "", "", "needs a command or a url")
	mistake(c.Command != "" && c.URL != "", "", "has a command and a url: only one of them is possible")
	mistake(c.Command == "" && (len(c.Args) > 0 || len(c.Env) > 0 || c.Cwd != ""), "", "has args, env or cwd, which go with a command")
	mistake(c.URL == "" && len(c.Headers) > 0, ".headers", "go with a url")
	switch c.Type {
	case "":
	case "stdio":
		mistake(c.Command == "", ".type", "stdio needs a command")
	case "http", "streamable-http", "streamableHttp":
		mistake(c.URL == "", ".type", "http needs a url")
	default:
		mistake(true, ".type", "must be stdio or http")
	}
	mistake(c.URL != "" && !webURL(c.URL), ".url", "must be an http:// or https:// URL without user and password")
	mistake(c.Timeout < 0, ".timeout", "must not be negative")
	for _, approved := range c.Approval {
		mistake(approved != anyTool && !c.allows(approved), ".approval",
			"names %q, which is none of its tools", violation.Clip(approved, 100))
	}
	return violation.Join(errs...)
}

func webURL(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") && u.User == nil
}

// anyTool stands for all tools in ServerConfig.Approval.
const anyTool = "*"

// allows reports whether agents may use a tool, by its server's own name for it.
func (c ServerConfig) allows(name string) bool {
	return c.Tools == nil || slices.Contains(c.Tools, name)
}

func (c ServerConfig) needsApproval(name string) bool {
	return slices.Contains(c.Approval, anyTool) || slices.Contains(c.Approval, name)
}

// expand puts the values of variables into values, in place.
func expand(field string, values map[string]string, getenv func(string) string) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(values)) {
		at := fmt.Sprintf("%s[%q]", field, violation.Clip(name, 100))
		values[name] = variable.ReplaceAllStringFunc(values[name], func(reference string) string {
			of := variable.FindStringSubmatch(reference)[1]
			value := getenv(of)
			if value == "" {
				errs = append(errs, violation.New(at, "refers to the environment variable %s, which is not set", of))
			}
			return value
		})
		if strings.ContainsAny(name, "=\x00") || name == "" || !httpguts.ValidHeaderFieldValue(values[name]) {
			errs = append(errs, violation.New(at, "has characters that cannot be passed on"))
		}
	}
	return violation.Join(errs...)
}
