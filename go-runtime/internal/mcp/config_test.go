package mcp

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// environment is what the files of these tests may refer to.
func environment(name string) string { return map[string]string{"KEY": "sk-secret"}[name] }

func TestAFileOfServers(t *testing.T) {
	t.Parallel()
	tests := map[string]string{"YAML": `
mcpServers:
  files:
    command: mcp-files
    args: [--root, /data]
    env: {TOKEN: "Bearer ${KEY}", PLAIN: "a $ {b}"}
    cwd: /tmp
    tools: [read, write]
    approval: [write]
    timeout: 90s
  web_search:
    type: http
    url: https://mcp.example/mcp
    headers: {Authorization: "Bearer ${KEY}"}
  gone: {command: x, disabled: true}
`, "JSON": `{"mcpServers": {
	"files": {"command": "mcp-files", "args": ["--root", "/data"], "env": {"TOKEN": "Bearer ${KEY}", "PLAIN": "a $ {b}"}, "cwd": "/tmp",
		"tools": ["read", "write"], "approval": ["write"], "timeout": "90s"},
	"web_search": {"type": "http", "url": "https://mcp.example/mcp", "headers": {"Authorization": "Bearer ${KEY}"}},
	"gone": {"command": "x", "disabled": true}
}}`}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "servers")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, err := Load(path, environment)
			if err != nil {
				t.Fatal(err)
			}
			files, search := cfg.Servers["files"], cfg.Servers["web_search"]
			if len(cfg.Servers) != 2 || files.Command != "mcp-files" || !slices.Equal(files.Args, []string{"--root", "/data"}) ||
				files.Env["TOKEN"] != "Bearer sk-secret" || files.Env["PLAIN"] != "a $ {b}" || files.Cwd != "/tmp" || files.Timeout != 90*time.Second {
				t.Errorf("servers = %+v", cfg.Servers)
			}
			if !files.allows("read") || files.allows("delete") || !files.needsApproval("write") || files.needsApproval("read") ||
				!search.allows("any") || search.needsApproval("any") || search.Headers["Authorization"] != "Bearer sk-secret" {
				t.Errorf("servers = %+v", cfg.Servers)
			}
		})
	}
}

func TestMistakesInAFileOfServers(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text string
		want []string
	}{
		"nothing":       {"", nil},
		"no servers":    {"mcpServers: {}", nil},
		"no way":        {"mcpServers: {a: {}}", []string{`mcpServers["a"]`}},
		"two ways":      {"mcpServers: {a: {command: b, url: https://c}}", []string{`mcpServers["a"]`}},
		"mixed":         {"mcpServers: {a: {url: https://c, args: [b]}, b: {command: c, headers: {d: e}}}", []string{`mcpServers["a"]`, `mcpServers["b"].headers`}},
		"names":         {"mcpServers: {a__b: {command: c}, _a: {command: c}, a.b: {command: c}, '': {command: c}}", []string{`mcpServers[""]`, `mcpServers["_a"]`, `mcpServers["a.b"]`, `mcpServers["a__b"]`}},
		"type":          {"mcpServers: {a: {type: sse, url: https://c}, b: {type: stdio, url: https://c}, c: {type: http, command: d}}", []string{`mcpServers["a"].type`, `mcpServers["b"].type`, `mcpServers["c"].type`}},
		"url":           {"mcpServers: {a: {url: 'ftp://c'}, b: {url: 'https://u:sk-secret@c'}}", []string{`mcpServers["a"].url`, `mcpServers["b"].url`}},
		"timeout":       {"mcpServers: {a: {command: b, timeout: -1s}}", []string{`mcpServers["a"].timeout`}},
		"approval":      {"mcpServers: {a: {command: b, tools: [c], approval: [d, '*']}}", []string{`mcpServers["a"].approval`}},
		"not set":       {"mcpServers: {a: {command: b, env: {C: '${NONE}'}}}", []string{`mcpServers["a"].env["C"]`}},
		"header value":  {`mcpServers: {a: {url: https://c, headers: {D: "sk-secret\r\nE: f"}}}`, []string{`mcpServers["a"].headers["D"]`}},
		"variable name": {`mcpServers: {a: {command: b, env: {"C=D": e}}}`, []string{`mcpServers["a"].env["C=D"]`}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parse([]byte(test.text), environment)
			var fields []string
			if unfit, found := errors.AsType[*violation.Error](err); found {
				for _, v := range unfit.Violations {
					fields = append(fields, v.Field)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(fields, test.want) {
				t.Errorf("mistakes %v, want %v", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "sk-secret") {
				t.Errorf("the mistake shows a secret: %v", err)
			}
		})
	}
	for _, text := range []string{"mcpServers: [", "mcpServers: {a: {command: [sk-secret]}}", "mcpServers: {a: {sk-secret: 1}}", "servers: {}", "mcpServers: {a: {timeout: sk-secret}}"} {
		if _, err := parse([]byte(text), environment); err == nil {
			t.Errorf("%s is taken", text)
		} else if strings.Contains(err.Error(), "`") {
			t.Errorf("the mistake quotes the file: %v", err)
		}
	}
	if _, err := Load("/no/such/file", environment); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that there is not: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("mcpServers: {a: {command: b, env: {C: '${KEY}'}}}"))
	f.Add([]byte(`{"mcpServers": {"a": {"url": "https://b", "timeout": "1s"}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, err := parse(text, environment)
		if err != nil {
			return
		}
		for name, server := range cfg.Servers {
			if err := server.check("a", name); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
}
