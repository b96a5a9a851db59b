package mcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
)

// stdio is a server of this test binary.
func stdio(t *testing.T, kind string) ServerConfig {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return ServerConfig{Command: binary, Env: map[string]string{kindVariable: kind}}
}

// start makes servers that are stopped with the test.
func start(t *testing.T, servers map[string]ServerConfig) *Servers {
	t.Helper()
	s := NewServers(Config{Servers: servers}, Options{
		Version: "test", Propagator: propagation.TraceContext{},
		Getenv: func(name string) string {
			return map[string]string{"PATH": os.Getenv("PATH"), "OPENAI_API_KEY": "sk-secret"}[name]
		},
	}, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// offered are a server's tools by name.
func offered(t *testing.T, s *Servers, server string) map[string]tool.Tool {
	t.Helper()
	tools, err := s.Tools(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]tool.Tool{}
	for _, each := range tools {
		byName[each.Name] = each
	}
	return byName
}

// call calls a tool as an agent does.
func call(ctx context.Context, t *testing.T, of tool.Tool, arguments string) (tool.Result, error) {
	t.Helper()
	if of.Call == nil {
		t.Fatal("there is no such tool")
	}
	runner := tool.NewRunner(tool.Config{}, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := runner.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return runner.Do(ctx, of, tool.Call{Namespace: "n", RunID: "r", ID: "call-1", Arguments: []byte(arguments)})
}

func TestToolsOfAProcess(t *testing.T) {
	t.Parallel()
	s := start(t, map[string]ServerConfig{"full": stdio(t, "full")})
	if names := s.Names(); !slices.Equal(names, []string{"full"}) {
		t.Errorf("names = %v", names)
	}
	checkFull(t, offered(t, s, "full"))
}

// checkFull calls the tools of a full server.
func checkFull(t *testing.T, tools map[string]tool.Tool) {
	t.Helper()
	want := []string{"chatter", "die", "echo", "environment", "fail", "flood", "fork", "get_prompt", "learn", "picture", "pid", "read_resource", "wait"}
	for i, name := range want {
		want[i] = "full__" + name
	}
	if got := slices.Sorted(maps.Keys(tools)); !slices.Equal(got, want) {
		t.Fatalf("tools = %v", got)
	}
	traced := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
	}))
	result, err := call(traced, t, tools["full__echo"], `{"text": "hello"}`)
	if err != nil || result.Text != "hello" || result.Failed {
		t.Errorf("echo = %+v, %v", result, err)
	}
	for _, part := range []string{`"said":"hello"`, `"traceparent":"00-01000000000000000000000000000000-0200000000000000-01"`, `"agentruntime/idempotency_key":"call-1"`} {
		if !strings.Contains(string(result.Structured), part) {
			t.Errorf("the structured result %s lacks %s", result.Structured, part)
		}
	}
	result, err = call(t.Context(), t, tools["full__fail"], `{}`)
	if err != nil || !result.Failed || result.Text != "there is no such order" {
		t.Errorf("fail = %+v, %v", result, err)
	}
	result, err = call(t.Context(), t, tools["full__picture"], `{}`)
	if err != nil || result.Text != "a dot\n[left out: 4 bytes of audio/wav]\nof a\n[resource file:///b: b]" ||
		len(result.Images) != 1 || string(result.Images[0].Data) != "dot" || result.Images[0].MediaType != "image/png" {
		t.Errorf("picture = %+v, %v", result, err)
	}
	result, err = call(t.Context(), t, tools["full__flood"], `{}`)
	if err != nil || len(result.Text) > tool.DefaultMaxTextBytes+100 || !strings.HasSuffix(result.Text, "[cut: the first 65536 bytes]") {
		t.Errorf("flood = %d bytes, %v", len(result.Text), err)
	}
	result, err = call(t.Context(), t, tools["full__chatter"], `{}`)
	if err != nil || result.Text != "said it all" {
		t.Errorf("chatter = %+v, %v", result, err)
	}
	if described := tools["full__read_resource"].Description; !strings.Contains(described, "note://one: one the first note") {
		t.Errorf("resources are described as %s", described)
	}
	result, err = call(t.Context(), t, tools["full__read_resource"], `{"uri": "note://one"}`)
	if err != nil || result.Text != "note one\n[left out: 3 bytes of application/zip, note://one]" || len(result.Images) != 1 {
		t.Errorf("resource = %+v, %v", result, err)
	}
	result, err = call(t.Context(), t, tools["full__read_resource"], `{"uri": "note://two"}`)
	if err != nil || !result.Failed {
		t.Errorf("a resource that there is not = %+v, %v", result, err)
	}
	if described := tools["full__get_prompt"].Description; !strings.Contains(described, "greet: a greeting\n  - argument who:  (required)") {
		t.Errorf("prompts are described as %s", described)
	}
	result, err = call(t.Context(), t, tools["full__get_prompt"], `{"name": "greet", "arguments": {"who": "Ada"}}`)
	if err != nil || result.Text != "user:\nGreet Ada" {
		t.Errorf("prompt = %+v, %v", result, err)
	}
}

func TestACommandIsGivenNoSecrets(t *testing.T) {
	t.Parallel()
	s := start(t, map[string]ServerConfig{"full": stdio(t, "full")})
	result, err := call(t.Context(), t, offered(t, s, "full")["full__environment"], `{}`)
	if err != nil || strings.Contains(result.Text, "sk-secret") || !strings.Contains(result.Text, "PATH=") || !strings.Contains(result.Text, kindVariable+"=full") {
		t.Errorf("environment = %s, %v", result.Text, err)
	}
}

func TestAllowedToolsAndApproval(t *testing.T) {
	t.Parallel()
	cfg := stdio(t, "full")
	cfg.Tools, cfg.Approval, cfg.Timeout = []string{"echo", "fail", "get_prompt"}, []string{"fail"}, time.Minute+time.Second
	s := start(t, map[string]ServerConfig{"full": cfg})
	tools := offered(t, s, "full")
	if got := slices.Sorted(maps.Keys(tools)); !slices.Equal(got, []string{"full__echo", "full__fail", "full__get_prompt"}) {
		t.Errorf("tools = %v", got)
	}
	if tools["full__echo"].Approval || !tools["full__fail"].Approval || tools["full__echo"].Timeout != cfg.Timeout {
		t.Errorf("tools = %+v", tools)
	}
}

func TestAServerThatDiesFailsItsCallAndComesAgain(t *testing.T) {
	t.Parallel()
	s := start(t, map[string]ServerConfig{"full": stdio(t, "full"), "other": stdio(t, "full")})
	tools, other := offered(t, s, "full"), offered(t, s, "other")
	before, err := call(t.Context(), t, tools["full__pid"], `{}`)
	if err != nil {
		t.Fatal(err)
	}
	_, err = call(t.Context(), t, tools["full__die"], `{}`)
	var failure *tool.Error
	if !errors.As(err, &failure) || failure.Reason != tool.Broken || !strings.Contains(err.Error(), "MCP server full: the server ended the connection") {
		t.Errorf("die = %v", err)
	}
	if result, err := call(t.Context(), t, other["other__echo"], `{"text": 1}`); err != nil || result.Text != "1" {
		t.Errorf("the other server says %+v, %v", result, err)
	}
	after, err := call(t.Context(), t, tools["full__pid"], `{}`)
	if err != nil || after.Text == before.Text {
		t.Errorf("process %s came after %s, %v", after.Text, before.Text, err)
	}
}

func TestACancelledCallIsCancelledAtTheServer(t *testing.T) {
	t.Parallel()
	s := start(t, map[string]ServerConfig{"full": stdio(t, "full")})
	checkCancelled(t, offered(t, s, "full")["full__wait"])
}

// checkCancelled cancels a call under way and waits until the server knows.
func checkCancelled(t *testing.T, wait tool.Tool) {
	t.Helper()
	folder := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	gone := errors.New("gone")
	go func() {
		awaitFile(t, filepath.Join(folder, "began"))
		cancel(gone)
	}()
	if _, err := call(ctx, t, wait, fmt.Sprintf(`{"folder": %q}`, folder)); !errors.Is(err, gone) {
		t.Errorf("wait = %v", err)
	}
	awaitFile(t, filepath.Join(folder, "cancelled"))
}

// awaitFile waits until another process has made a file.
func awaitFile(t *testing.T, path string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 6000 {
		if _, err := os.Stat(path); err == nil {
			return
		}
		<-tick.C
	}
	t.Errorf("%s does not come", path)
}

// awaitEnd waits until there is no process of that id any more.
func awaitEnd(t *testing.T, pid string) {
	t.Helper()
	number, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 2000 {
		status, err := os.ReadFile("/proc/" + pid + "/stat")
		if errors.Is(syscall.Kill(number, 0), syscall.ESRCH) || err == nil && strings.Contains(string(status), ") Z ") {
			return
		}
		<-tick.C
	}
	t.Errorf("process %s does not end", pid)
}

func TestStopLeavesNoProcess(t *testing.T) {
	t.Parallel()
	s := start(t, map[string]ServerConfig{"full": stdio(t, "full")})
	tools := offered(t, s, "full")
	server, errServer := call(t.Context(), t, tools["full__pid"], `{}`)
	child, errChild := call(t.Context(), t, tools["full__fork"], `{}`)
	if err := errors.Join(errServer, errChild); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, server.Text)
	awaitEnd(t, child.Text)
	if _, err := s.Tools(t.Context(), "full"); !errors.Is(err, ErrStopped) {
		t.Errorf("after Stop: %v", err)
	}
	if _, err := call(t.Context(), t, tools["full__pid"], `{}`); !errors.Is(err, ErrStopped) {
		t.Errorf("a call after Stop: %v", err)
	}
}

func TestAServerThatHangsIsReplaced(t *testing.T) {
	t.Parallel()
	cfg := stdio(t, "deaf")
	cfg.Timeout = 100 * time.Millisecond
	s := start(t, map[string]ServerConfig{"deaf": cfg})
	of := offered(t, s, "deaf")["deaf__any"]
	first := s.upstreams["deaf"].session
	// On a busy machine the time of a call may be over before the server has heard of it.
	for first.life.Err() == nil {
		_, err := call(t.Context(), t, of, `{}`)
		var failure *tool.Error
		if !errors.As(err, &failure) || failure.Reason != tool.TimedOut {
			t.Fatalf("the call fails with %v", err)
		}
		select {
		case <-first.life.Done():
		case <-time.After(2 * probeTimeout):
		}
	}
	if cause := context.Cause(first.life); !errors.Is(cause, errSilent) {
		t.Errorf("the session ends with %v", cause)
	}
	awaitEnd(t, strconv.Itoa(first.process.command.Process.Pid))
	if tools := offered(t, s, "deaf"); len(tools) != 1 {
		t.Errorf("afterwards there are %v", tools)
	}
}

func TestServersThatCannotBeConnected(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		cfg  ServerConfig
		want string
	}{
		"no command": {ServerConfig{Command: "/no/such/command"}, "no such file"},
		"ends":       {ServerConfig{Command: "true"}, ""},
		"no folder":  {ServerConfig{Command: "true", Cwd: "/no/such/folder"}, "no such file"},
		"garbage":    {stdio(t, "garbage"), ""},
		"refused":    {ServerConfig{URL: "http://127.0.0.1:1/mcp?key=sk-secret"}, "refused"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, map[string]ServerConfig{"bad": test.cfg})
			_, err := s.Tools(t.Context(), "bad")
			if err == nil || !strings.HasPrefix(err.Error(), "connect MCP server bad: ") || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "sk-secret") {
				t.Errorf("Tools fails with %v", err)
			}
			// It is left alone for a while, and says the same.
			again, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, repeated := s.Tools(again, "bad"); repeated == nil || repeated.Error() != err.Error() {
				t.Errorf("then with %v", repeated)
			}
		})
	}
	_, err := start(t, nil).Tools(t.Context(), "none")
	if _, unknown := errors.AsType[*UnknownServerError](err); !unknown {
		t.Errorf("an unknown server: %v", err)
	}
}

func TestACallerDoesNotWaitForASilentServer(t *testing.T) {
	t.Parallel()
	s := start(t, map[string]ServerConfig{"silent": stdio(t, "silent")})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Tools(ctx, "silent"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Tools fails with %v", err)
	}
	// Stop waits for no answer either.
	stopping, end := context.WithCancel(t.Context())
	end()
	if err := s.Stop(stopping); err != nil {
		t.Error(err)
	}
}

func TestListsThatLie(t *testing.T) {
	t.Parallel()
	s := start(t, map[string]ServerConfig{"liar": stdio(t, "liar"), "endless": stdio(t, "endless")})
	tools := offered(t, s, "liar")
	want := []string{"liar__fine", "liar__" + strings.Repeat("long", 30)[:49] + "_", "liar__no_such_name_"}
	got := slices.Sorted(maps.Keys(tools))
	if len(got) != len(want) {
		t.Fatalf("tools = %v", got)
	}
	for i, prefix := range want {
		if !strings.HasPrefix(got[i], prefix) || len(got[i]) > tool.MaxNameBytes {
			t.Errorf("tool %q, want %s…", got[i], prefix)
		}
	}
	if _, err := call(t.Context(), t, tools["liar__fine"], `{}`); err == nil || !strings.Contains(err.Error(), "unknown tool") {
		t.Errorf("a tool that there is not after all: %v", err)
	}
	if tools := offered(t, s, "endless"); len(tools) != maxListed {
		t.Errorf("an endless list has %d tools", len(tools))
	}
}

func TestChangedListsAreFollowed(t *testing.T) {
	t.Parallel()
	s := start(t, map[string]ServerConfig{"full": stdio(t, "full")})
	checkChanges(t, s)
}

// checkChanges has the server full learn a tool and forget another.
func checkChanges(t *testing.T, s *Servers) {
	t.Helper()
	tools := offered(t, s, "full")
	u := s.upstreams["full"]
	u.mu.Lock()
	session := u.session
	u.mu.Unlock()
	before := session.changes.Load()
	if _, err := call(t.Context(), t, tools["full__learn"], `{"name": "dance"}`); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 2000 {
		if session.changes.Load() > before {
			break
		}
		<-tick.C
	}
	tools = offered(t, s, "full")
	if result, err := call(t.Context(), t, tools["full__dance"], `{}`); err != nil || result.Text != "learnt" {
		t.Errorf("the new tool = %+v, %v", result, err)
	}
	if _, there := tools["full__fail"]; there {
		t.Error("the tool that was removed is offered")
	}
}
