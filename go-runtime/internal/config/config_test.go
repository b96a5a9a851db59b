package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/config"
	"github.com/djangobridge/djangobridge/go-runtime/internal/token"
)

// load reads a configuration from flags and an environment.
func load(t *testing.T, environment map[string]string, args ...string) (config.Config, error) {
	t.Helper()
	flags := config.Flags("test")
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return config.Load(flags, func(name string) string { return environment[name] })
}

// mistakes returns the names of the settings that an error complains of.
func mistakes(t *testing.T, err error) []string {
	t.Helper()
	found, ok := errors.AsType[*config.Error](err)
	if !ok {
		t.Fatalf("err = %v, want mistakes", err)
	}
	var names []string
	for _, m := range found.Mistakes {
		if m.Problem == "" || m.Origin == "" {
			t.Errorf("mistake lacks something: %+v", m)
		}
		names = append(names, m.Setting)
	}
	return names
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runtime.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// writeCertificate makes a self-signed certificate and its key, as PEM files.
func writeCertificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	public, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := func(kind string, content []byte) string {
		return writeFile(t, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})))
	}
	return file("CERTIFICATE", public), file("PRIVATE KEY", secret)
}

func TestDefaultsFitTogether(t *testing.T) {
	t.Parallel()
	c, err := load(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:50051" || c.HTTP != "127.0.0.1:8090" || c.Socket != "" || c.Durability != "fsync" ||
		c.MaxValueBytes != 1<<20 || c.MaxMessageBytes != 16<<20 || c.RunTimeout != 900*time.Second {
		t.Errorf("defaults = %+v", c)
	}
}

func TestFlagsGoBeforeEnvironmentBeforeFileBeforeDefault(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "durability: os\nmax-attempts: 7\nrun-timeout: 10s\nlisten: 127.0.0.1:1\n")
	environment := map[string]string{
		"AGENT_RUNTIME_CONFIG": file, "AGENT_RUNTIME_MAX_ATTEMPTS": "8", "AGENT_RUNTIME_LISTEN": "127.0.0.1:2",
		"AGENT_RUNTIME_HTTP": "", "OPENAI_API_KEY": "key",
	}
	c, err := load(t, environment, "--listen=127.0.0.1:3")
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:3" || c.MaxAttempts != 8 || c.RunTimeout != 10*time.Second || c.Durability != "os" ||
		c.HTTP != "127.0.0.1:8090" || c.OpenAIAPIKey != "key" {
		t.Errorf("config = %+v", c)
	}
	var text strings.Builder
	if _, err := c.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`listen: "127.0.0.1:3" # flag --listen`,
		`max-attempts: "8" # environment AGENT_RUNTIME_MAX_ATTEMPTS`,
		`durability: "os" # file ` + file,
		`http: "127.0.0.1:8090" # default`,
		`# openai-api-key is set (environment OPENAI_API_KEY)`,
	} {
		if !strings.Contains(text.String(), line+"\n") {
			t.Errorf("settings in effect lack %s:\n%s", line, text.String())
		}
	}
	if strings.Contains(text.String(), `"key"`) {
		t.Error("the settings in effect show a secret")
	}
}

func TestWhatCheckShowsIsAConfigurationFile(t *testing.T) {
	t.Parallel()
	before, err := load(t, nil, "--socket=/run/x.sock", "--http=off", "--max-value-bytes=2MiB", "--event-max-age=36h", "--log-level=debug")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if _, err := before.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	after, err := load(t, nil, "--config="+writeFile(t, text.String()))
	if err != nil {
		t.Fatal(err)
	}
	if after.Socket != before.Socket || after.HTTP != "" || after.MaxValueBytes != 2<<20 || after.EventMaxAge != 36*time.Hour || after.LogLevel != before.LogLevel {
		t.Errorf("read back: %+v, want %+v", after, before)
	}
}

func TestTheSettingsOwnVariableGoesBeforeTheAlias(t *testing.T) {
	t.Parallel()
	c, err := load(t, map[string]string{
		"OPENAI_BASE_URL": "http://127.0.0.1:1/v1", "AGENT_RUNTIME_OPENAI_BASE_URL": "http://127.0.0.1:2/v1", "AGENT_RUNTIME_MODEL": "m",
	})
	if err != nil || c.OpenAIBaseURL != "http://127.0.0.1:2/v1" {
		t.Errorf("base url = %q, %v", c.OpenAIBaseURL, err)
	}
}

func TestModels(t *testing.T) {
	t.Parallel()
	c, err := load(t, nil, "--model= openai/gpt-5-mini, anthropic/claude-opus-5,")
	if err != nil || !slices.Equal(c.Models, []string{"openai/gpt-5-mini", "anthropic/claude-opus-5"}) {
		t.Errorf("models = %q, %v", c.Models, err)
	}
	if c, err := load(t, nil); err != nil || len(c.Models) != 0 || c.ModelConcurrency != 64 {
		t.Errorf("defaults = %+v, %v", c, err)
	}
}

func TestKeysOfProviders(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "\n  secret-of-file\r\n")
	keys := func(c config.Config) []string { return []string{c.OpenAIAPIKey, c.AnthropicAPIKey, c.GeminiAPIKey} }
	for name, test := range map[string]struct {
		environment map[string]string
		args        []string
		want        []string
	}{
		"the vendors' variables": {
			map[string]string{"OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b", "GEMINI_API_KEY": "c"}, nil, []string{"a", "b", "c"},
		},
		"files in variables": {
			map[string]string{"OPENAI_API_KEY_FILE": file, "AGENT_RUNTIME_GEMINI_API_KEY_FILE": file},
			nil,
			[]string{"secret-of-file", "", "secret-of-file"},
		},
		"files in flags": {nil, []string{"--anthropic-api-key-file=" + file}, []string{"", "secret-of-file", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := load(t, test.environment, test.args...)
			if err != nil || !slices.Equal(keys(c), test.want) {
				t.Fatalf("keys = %q, %v; want %q", keys(c), err, test.want)
			}
			var text strings.Builder
			if _, err := c.WriteTo(&text); err != nil || strings.Contains(text.String(), "secret-of-file") {
				t.Errorf("%v, settings in effect:\n%s", err, text.String())
			}
			again, err := load(t, test.environment, "--config="+writeFile(t, text.String()))
			if err != nil || !slices.Equal(keys(again), test.want) {
				t.Errorf("read back: %q, %v", keys(again), err)
			}
		})
	}
}

func TestFilesOfKeysThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		path, key, want string
	}{
		"absent":            {filepath.Join(t.TempDir(), "absent"), "", "no such file"},
		"a folder":          {t.TempDir(), "", "is a directory"},
		"empty":             {writeFile(t, " \n"), "", "the file is empty"},
		"beside the secret": {writeFile(t, "of-the-file"), "of-the-environment", "give one of them"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, map[string]string{"GEMINI_API_KEY": test.key}, "--gemini-api-key-file="+test.path)
			if got := mistakes(t, err); !slices.Equal(got, []string{"gemini-api-key-file"}) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("mistakes = %v, want %s", err, test.want)
			}
			if strings.Contains(err.Error(), "of-the-") {
				t.Errorf("a secret got into %v", err)
			}
		})
	}
}

func TestStreamOrigins(t *testing.T) {
	t.Parallel()
	c, err := load(t, map[string]string{"AGENT_RUNTIME_STREAM_ORIGINS": "https://a.example, http://localhost:3000,"})
	if err != nil || !slices.Equal(c.StreamOrigins, []string{"https://a.example", "http://localhost:3000"}) {
		t.Errorf("origins = %q, %v", c.StreamOrigins, err)
	}
	if c, err := load(t, nil); err != nil || len(c.StreamOrigins) != 0 || c.StreamLimit != 20_000 || c.StreamLimitPerUser != 20 {
		t.Errorf("defaults = %+v, %v", c, err)
	}
	for _, bad := range []string{
		"*", "a.example", "https://*.example", "https://A.example", "https://a.example/", "https://a.example/page",
		"https://a.example:443", "http://a.example:80", "ftp://a.example", "https://", "https://u@a.example", "https://a.example?x",
	} {
		_, err := load(t, nil, "--stream-origins=https://b.example,"+bad)
		if got := mistakes(t, err); !slices.Equal(got, []string{"stream-origins"}) {
			t.Errorf("%s: mistakes %v", bad, got)
		}
	}
}

func TestWhatToolsMayUse(t *testing.T) {
	t.Parallel()
	file := writeFile(t, `{"mcpServers": {"notes": {"command": "notes", "env": {"KEY": "${NOTES_KEY}"}}}}`)
	c, err := load(t, map[string]string{"AGENT_RUNTIME_TOOL_SECRETS": "TOKEN, OTHER=/run/secrets/other,", "NOTES_KEY": "k"},
		"--http-tools=https://a.example/v1, http://127.0.0.1:8080", "--mcp-servers="+file, "--mcp=off")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.HTTPTools, []string{"https://a.example/v1", "http://127.0.0.1:8080"}) || c.MCPServers != file || c.MCP ||
		!maps.Equal(c.ToolSecrets, map[string]string{"TOKEN": "", "OTHER": "/run/secrets/other"}) {
		t.Errorf("config = %+v", c)
	}
	var text strings.Builder
	if _, err := c.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`http-tools: "https://a.example/v1,http://127.0.0.1:8080"`, `tool-secrets: "OTHER=/run/secrets/other,TOKEN"`, `mcp: "off"`} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("settings in effect lack %s:\n%s", line, text.String())
		}
	}
	_, err = load(t, nil, "--http-tools=https://u:p@a.example", "--tool-secrets=A-B", "--mcp-servers="+file, "--mcp=yes")
	if got := mistakes(t, err); !slices.Equal(got, []string{"http-tools", "tool-secrets", "mcp", "mcp-servers"}) {
		t.Errorf("mistakes %v", got)
	}
	if strings.Contains(err.Error(), "u:p") {
		t.Errorf("the mistake shows a password: %v", err)
	}
	_, err = load(t, nil, "--tool-secrets=A,A=/b")
	if got := mistakes(t, err); !slices.Equal(got, []string{"tool-secrets"}) {
		t.Errorf("mistakes %v", got)
	}
}

func TestHTTPAgents(t *testing.T) {
	t.Parallel()
	raw := "a=http://127.0.0.1:1/x?y=z, b=https://b.example;run-timeout=30s; max-attempts=5," +
		"c=http://c.example;initial-backoff=1s;max-backoff=1m;multiplier=1.5;"
	want := map[string]config.HTTPAgent{
		"a": {URL: "http://127.0.0.1:1/x?y=z"},
		"b": {URL: "https://b.example", MaxAttempts: 5, RunTimeout: 30 * time.Second},
		"c": {URL: "http://c.example", InitialBackoff: time.Second, MaxBackoff: time.Minute, Multiplier: 1.5},
	}
	c, err := load(t, nil, "--http-agents="+raw)
	if err != nil || !maps.Equal(c.HTTPAgents, want) {
		t.Fatalf("agents = %+v, %v", c.HTTPAgents, err)
	}
	var text strings.Builder
	if _, err := c.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	if again, err := load(t, nil, "--config="+writeFile(t, text.String())); err != nil || !maps.Equal(again.HTTPAgents, want) {
		t.Errorf("read back: %+v, %v", again.HTTPAgents, err)
	}
	for bad, want := range map[string]string{
		"a":                                  `"a": want name=http`,
		"=http://h":                          "want name=http",
		"a=ftp://h":                          "want name=http",
		"a=http://h,a=http://g":              `"a" is there twice`,
		"a=http://h;max-attempts":            "a: max-attempts: want a whole number from 1 to 100",
		"a=http://h;max-attempts=101":        "a: max-attempts: want a whole number from 1 to 100",
		"a=http://h;run-timeout=9":           "a: run-timeout: want a duration from 1s",
		"a=http://h;max-backoff=0s":          "a: max-backoff: want a duration from 1ms",
		"a=http://h;multiplier=NaN":          "a: multiplier: want a number from 1 to 1000",
		"a=http://h;multiplier=0.5":          "a: multiplier: want a number from 1 to 1000",
		"a=http://h;timeout=3s":              `"timeout" is none of its options: max-attempts, initial-backoff, max-backoff, multiplier, run-timeout`,
		"a=http://h/x;v=1;run-timeout=3s":    `"v" is none of its options`,
		"a=http://h;run-timeout=3s,b=gopher": `"b=gopher": want name=http`,
	} {
		_, err := load(t, nil, "--http-agents="+bad)
		if got := mistakes(t, err); !slices.Equal(got, []string{"http-agents"}) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", bad, err, want)
		}
	}
}

func TestEveryMistakeIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "no-such-setting: 1\nmax-queued-runs: [1]\nreplicas: many\n")
	_, err := load(t, map[string]string{"AGENT_RUNTIME_RUN_TIMEOUT": "fast", "OPENAI_BASE_URL": "http://user:hunter2@host"},
		"--config="+file, "--listen=nowhere", "--durability=maybe", "--max-value-bytes=-1", "--log-level=loud",
		"--socket="+strings.Repeat("s", 108), "--tls-cert=only.pem", "--nats-url=http://x")
	got := mistakes(t, err)
	for _, want := range []string{
		"no-such-setting", "max-queued-runs", "replicas", "run-timeout", "openai-base-url", "listen", "durability",
		"max-value-bytes", "log-level", "socket", "tls-cert", "nats-url",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not among the mistakes %v", want, got)
		}
	}
	if text := err.Error(); strings.Contains(text, "hunter2") || !strings.Contains(text, `listen = "nowhere" (flag --listen)`) ||
		!strings.Contains(text, "environment AGENT_RUNTIME_RUN_TIMEOUT") || !strings.Contains(text, "file "+file) {
		t.Errorf("mistakes = %s", text)
	}
}

func TestContradictions(t *testing.T) {
	t.Parallel()
	cert, key := writeCertificate(t)
	tokens := "--tokens-file=" + writeFile(t, "tokens: [{name: web, hash: "+token.Hash("secret")+", namespaces: ['*'], access: read}]")
	withTLS := []string{"--listen=:1", "--tls-cert=" + cert, "--tls-key=" + key}
	tests := map[string]struct {
		args []string
		want string // the setting at fault, or "" for none
	}{
		"loopback":                   {[]string{"--listen=127.0.0.1:1"}, ""},
		"loopback of IPv6":           {[]string{"--listen=[::1]:1"}, ""},
		"localhost":                  {[]string{"--listen=localhost:1"}, ""},
		"every address":              {[]string{"--listen=:1"}, "listen"},
		"0.0.0.0":                    {[]string{"--listen=0.0.0.0:1"}, "listen"},
		"another name":               {[]string{"--listen=example.com:1"}, "listen"},
		"http for others":            {[]string{"--http=0.0.0.0:1"}, "http"},
		"TLS alone is no guard":      {withTLS, "listen"},
		"tokens alone are no guard":  {[]string{"--listen=:1", tokens}, "listen"},
		"TLS and tokens":             {slices.Concat(withTLS, []string{tokens, "--http=:2"}), ""},
		"mutual TLS":                 {slices.Concat(withTLS, []string{"--client-ca=" + cert}), ""},
		"client authority, no TLS":   {[]string{"--client-ca=a"}, "client-ca"},
		"key without certificate":    {[]string{"--tls-key=k"}, "tls-cert"},
		"nobody could call":          {[]string{"--listen=off"}, "listen"},
		"socket alone":               {[]string{"--listen=off", "--socket=s"}, ""},
		"one replica that is synced": {[]string{"--nats-url=nats://h:1", "--replicas=1"}, "replicas"},
		"one replica that is not":    {[]string{"--nats-url=nats://h:1", "--replicas=1", "--durability=os"}, ""},
		"an even number of replicas": {[]string{"--replicas=2"}, "replicas"},
		"value above message":        {[]string{"--max-value-bytes=16MiB"}, "max-message-bytes"},
		"endpoint without a model":   {[]string{"--openai-base-url=http://h/v1"}, "model"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, nil, test.args...)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if got := mistakes(t, err); len(got) != 1 || got[0] != test.want {
				t.Errorf("mistakes = %v, want %s", got, test.want)
			}
		})
	}
}

func TestFilesThatCannotBeReadAreMistakes(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"no such file": {"--config=" + filepath.Join(t.TempDir(), "absent.yaml")},
		"no YAML":      {"--config=" + writeFile(t, "\t{")},
		"a list":       {"--config=" + writeFile(t, "- listen")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, nil, args...)
			if got := mistakes(t, err); !slices.Equal(got, []string{"config"}) {
				t.Errorf("mistakes = %v", got)
			}
		})
	}
}

func TestAMistakeInAFileIsToldWithItsPlace(t *testing.T) {
	t.Parallel()
	path := writeFile(t, "http: off\ndurability: [os]")
	_, err := load(t, nil, "--config="+path, "--data-dir=/proc/here")
	for _, want := range []string{"durability (file " + path + " line 2): want one value", "/proc cannot be written"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %s", err, want)
		}
	}
}

func TestAMistakeIsNotTakenForAnother(t *testing.T) {
	t.Parallel()
	_, err := load(t, nil, "--listen=127.0.0.1:99999")
	if got := mistakes(t, err); !slices.Equal(got, []string{"listen"}) {
		t.Errorf("mistakes = %v", err)
	}
}

func TestLoadLooksAtFiles(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := writeFile(t, "tokens: []")
	_, err := load(t, nil, "--durability=none", "--tls-cert="+file, "--tls-key="+file, "--tokens-file="+file,
		"--data-dir="+file, "--socket=/proc/none/s")
	got := mistakes(t, err)
	if want := []string{"durability", "tls-cert", "tokens-file", "data-dir", "socket"}; !slices.Equal(got, want) {
		t.Errorf("mistakes = %v, want %v", got, want)
	}

	_, err = load(t, nil, "--data-dir="+filepath.Join(folder, "not", "there", "yet"), "--socket="+filepath.Join(folder, "s"))
	if err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(folder)
	if err != nil || len(left) != 0 {
		t.Errorf("the check left %v, %v", left, err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("1MiB", "127.0.0.1:1", "15m")
	f.Add("9223372036854775807TiB", "[::1]:99999", "-1ns")
	f.Fuzz(func(t *testing.T, size, address, duration string) {
		c, err := load(t, map[string]string{
			"AGENT_RUNTIME_MAX_VALUE_BYTES": size, "AGENT_RUNTIME_LISTEN": address, "AGENT_RUNTIME_RUN_TIMEOUT": duration,
		})
		if err != nil {
			mistakes(t, err)
			return
		}
		if c.MaxValueBytes < 1<<10 || c.MaxMessageBytes < c.MaxValueBytes || c.RunTimeout < time.Second {
			t.Errorf("%q, %q, %q gave %+v", size, address, duration, c)
		}
	})
}
