package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/token"
)

// asCommand makes the test binary be agent-runtime, for tests of signals and exit codes.
const asCommand = "TEST_AS_AGENT_RUNTIME"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

// call runs a command in this process.
func call(t *testing.T, environment map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	var environ []string
	for name, value := range environment {
		environ = append(environ, name+"="+value)
	}
	code = run(t.Context(), args, func(name string) string { return environment[name] }, environ, &out, &err)
	return code, out.String(), err.String()
}

func TestHelp(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args   []string
		code   int
		stdout []string
		stderr []string
	}{
		"help":            {[]string{"help"}, exitOK, []string{"serve", "check", "token", "version"}, nil},
		"--help":          {[]string{"--help"}, exitOK, []string{"Usage"}, nil},
		"serve --help":    {[]string{"serve", "--help"}, exitOK, []string{"SIGTERM", "--listen address", "AGENT_RUNTIME_LISTEN", "OPENAI_BASE_URL"}, nil},
		"check --help":    {[]string{"check", "--help"}, exitOK, []string{"every mistake", "--data-dir"}, nil},
		"token --help":    {[]string{"token", "--help"}, exitOK, []string{"create", "hash", "--namespaces"}, nil},
		"token":           {[]string{"token"}, exitOK, []string{"create"}, nil},
		"version":         {[]string{"version"}, exitOK, []string{"agent-runtime dev (go"}, nil},
		"nothing":         {nil, exitUsage, nil, []string{"Usage"}},
		"no such command": {[]string{"fly"}, exitUsage, nil, []string{`"fly"`, "Usage"}},
		"no such flag":    {[]string{"serve", "--fly"}, exitUsage, nil, []string{"--fly", "serve --help"}},
		"an argument":     {[]string{"check", "extra"}, exitUsage, nil, []string{`"extra"`}},
		"damage":          {[]string{"damage"}, exitOK, []string{"show", "acknowledge", "--data-dir"}, nil},
		"damage of what":  {[]string{"damage", "undo"}, exitUsage, nil, []string{`"undo"`}},
		"no damage":       {[]string{"damage", "show", "--data-dir", t.TempDir()}, exitOK, nil, nil},
		"the launcher":    {[]string{"sandbox-exec"}, exitFailed, nil, []string{"own use"}},
		"token of what":   {[]string{"token", "destroy"}, exitUsage, nil, []string{`"destroy"`}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := call(t, nil, test.args...)
			if code != test.code {
				t.Errorf("exit code = %d, want %d", code, test.code)
			}
			for _, part := range test.stdout {
				if !strings.Contains(stdout, part) {
					t.Errorf("stdout lacks %q:\n%s", part, stdout)
				}
			}
			for _, part := range test.stderr {
				if !strings.Contains(stderr, part) {
					t.Errorf("stderr lacks %q:\n%s", part, stderr)
				}
			}
		})
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := call(t, map[string]string{"OPENAI_API_KEY": "sk-secret"}, "check", "--data-dir", t.TempDir())
	if code != exitOK || !strings.Contains(stdout, "listen:") || strings.Contains(stdout+stderr, "sk-secret") {
		t.Errorf("check = %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr = call(t, nil, "check", "--listen", "0.0.0.0:50051", "--http", "nowhere", "--data-dir", t.TempDir())
	if code != exitUsage || stdout != "" || !strings.Contains(stderr, "listen") || !strings.Contains(stderr, "http") {
		t.Errorf("check = %d\n%s%s", code, stdout, stderr)
	}
}

func TestTokenCreateMakesAnEntryForTheFile(t *testing.T) {
	t.Parallel()
	code, stdout, _ := call(t, nil, "token", "create", "--name", "web", "--namespaces", "default,shop", "--access", "write", "--rate", "1000")
	if code != exitOK {
		t.Fatal("exit code", code)
	}
	secret, entry, _ := strings.Cut(stdout, "\n")
	if strings.Contains(entry, secret) {
		t.Error("the entry holds the secret")
	}
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	if err := os.WriteFile(path, []byte("tokens:\n"+entry), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := token.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if found := set.BySecret(secret); found == nil || found.Name() != "web" || !found.Allows("shop", token.Write) || found.Allows("other", token.Read) {
		t.Errorf("the secret opens %v", found)
	}
	if code, _, stderr := call(t, nil, "token", "create", "--namespaces", "Bad", "--access", "all"); code != exitUsage ||
		!strings.Contains(stderr, "name") || !strings.Contains(stderr, "Bad") || !strings.Contains(stderr, "all") {
		t.Errorf("mistakes: %d %s", code, stderr)
	}
}

func TestTokenHash(t *testing.T) {
	t.Parallel()
	var out, err bytes.Buffer
	if code := hashToken(strings.NewReader("the secret\n"), streams{&out, &err}); code != exitOK || strings.TrimSpace(out.String()) != token.Hash("the secret") {
		t.Errorf("hash = %d %s%s", code, out.String(), err.String())
	}
	if code := hashToken(strings.NewReader("\n"), streams{&out, &err}); code != exitUsage {
		t.Errorf("an empty secret: %d", code)
	}
}

// process is agent-runtime serve in a process of its own.
type process struct {
	*exec.Cmd

	stderr *bufio.Scanner
	// facts are those of the log line that says it serves.
	facts map[string]any
}

func serveProcess(t *testing.T, dataDir string) *process {
	t.Helper()
	p := &process{Cmd: exec.CommandContext(t.Context(), os.Args[0],
		"serve", "--listen=127.0.0.1:0", "--http=127.0.0.1:0", "--durability=os", "--data-dir="+dataDir)}
	p.Env = append(os.Environ(), asCommand+"=1")
	pipe, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	p.stderr = bufio.NewScanner(pipe)
	for p.stderr.Scan() {
		if json.Unmarshal(p.stderr.Bytes(), &p.facts) == nil && p.facts["msg"] == "runtime serves" {
			return p
		}
	}
	t.Fatalf("the process ended: %v", p.Wait())
	return nil
}

// rest returns what the process still says, when it has ended.
func (p *process) rest() string {
	var lines []string
	for p.stderr.Scan() {
		lines = append(lines, p.stderr.Text())
	}
	return strings.Join(lines, "\n")
}

func TestServeUntilToldToStop(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	p := serveProcess(t, folder)
	client := &http.Client{Timeout: 10 * time.Second}
	response, err := client.Get(fmt.Sprintf("http://%s/readyz", p.facts["http"])) //nolint:noctx // the client has a timeout
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("/readyz = %d", response.StatusCode)
	}

	// A second one on the same folder is refused in one sentence that names the first.
	code, _, stderr := call(t, nil, "serve", "--listen=127.0.0.1:0", "--http=off", "--data-dir="+folder)
	if code != exitFailed || !strings.Contains(stderr, folder) || !strings.Contains(stderr, strconv.Itoa(p.Process.Pid)) || strings.Count(stderr, "\n") != 1 {
		t.Errorf("a second process: %d %s", code, stderr)
	}

	// SIGHUP is no reason to stop.
	for _, signal := range []os.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		if err := p.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
	}
	text := p.rest()
	if err := p.Wait(); err != nil || !strings.Contains(text, "runtime drains") {
		t.Errorf("after SIGTERM: %v\n%s", err, text)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"serve", "--listen=127.0.0.1:0", "--http=off", "--durability=os", "--data-dir=" + t.TempDir()},
			func(string) string { return "" }, nil, io.Discard, writer)
		_ = writer.Close()
	}()
	lines := bufio.NewScanner(reader)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "runtime serves") {
			cancel()
		}
	}
	cancel()
	if code := <-ended; code != exitOK {
		t.Errorf("exit code = %d", code)
	}
}

func TestServeSaysWhichAddressIsTaken(t *testing.T) {
	t.Parallel()
	p := serveProcess(t, t.TempDir())
	taken := fmt.Sprint(p.facts["listen"])
	code, _, stderr := call(t, nil, "serve", "--listen="+taken, "--http=off", "--log-level=error", "--data-dir="+t.TempDir())
	if code != exitFailed || !strings.Contains(stderr, taken+" is in use") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("taken address: %d %s", code, stderr)
	}
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	p.rest()
	if err := p.Wait(); err != nil {
		t.Errorf("after SIGINT: %v", err)
	}
}

func TestMistypedVariablesAreNamed(t *testing.T) {
	t.Parallel()
	environment := map[string]string{
		"AGENT_RUNTIME_LISTENN": "127.0.0.1:1", "AGENT_RUNTIME_DATA_DIR": t.TempDir(), "AGENT_RUNTIME_BINARY": "b",
		"AGENT_RUNTIME_SERVICE_HOST": "10.0.0.1", "AGENT_RUNTIME_PORT_50051_TCP": "tcp://10.0.0.1:50051", "OTHER": "1",
	}
	for _, args := range [][]string{{"check"}, {"check", "--durability=x"}} {
		_, _, stderr := call(t, environment, args...)
		if strings.Count(stderr, "is no setting") != 1 || !strings.Contains(stderr, "AGENT_RUNTIME_LISTENN") {
			t.Errorf("%v: %s", args, stderr)
		}
	}
}
