package djangobridge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/pkg/djangobridge"
)

// withToken adds headers to each request.
type withToken struct{ headers map[string]string }

func (t withToken) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	for name, value := range t.headers {
		request.Header.Set(name, value)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	return transport.RoundTrip(request)
}

// mcpClient is a session of the official client with a runtime; told gets its progress.
func mcpClient(t *testing.T, rt *djangobridge.Integration, protocol string, headers map[string]string, told func(*sdk.ProgressNotificationParams)) *sdk.ClientSession {
	t.Helper()
	options := &sdk.ClientOptions{}
	if told != nil {
		options.ProgressNotificationHandler = func(_ context.Context, request *sdk.ProgressNotificationClientRequest) { told(request.Params) }
	}
	client := sdk.NewClient(&sdk.Implementation{Name: "test", Version: "1"}, options)
	session, err := client.Connect(testContext(t), &sdk.StreamableClientTransport{
		Endpoint: "http://" + rt.HTTPAddr() + "/mcp", HTTPClient: &http.Client{Transport: withToken{headers}}, MaxRetries: -1,
	}, &sdk.ClientSessionOptions{ProtocolVersion: protocol})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	return session
}

func textOf(result *sdk.CallToolResult) string {
	var texts []string
	for _, content := range result.Content {
		texts = append(texts, content.(*sdk.TextContent).Text)
	}
	return strings.Join(texts, "\n")
}

func TestAgentsAreToolsOfMCPClients(t *testing.T) {
	t.Parallel()
	sys := start(t)
	for _, protocol := range []string{"2026-07-28", "2025-11-25", "2025-06-18"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			session := mcpClient(t, sys.Integration, protocol, nil, nil)
			if got := session.InitializeResult().ProtocolVersion; got != protocol {
				t.Errorf("the protocol is %s", got)
			}
			listed, err := session.ListTools(testContext(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, each := range listed.Tools {
				names = append(names, each.Name)
			}
			for _, name := range []string{"codegen_agent__generate_code", "frontend_agent__agent_run"} {
				if !slices.Contains(names, name) {
					t.Errorf("there is no tool %s among %v", name, names)
				}
			}
			result, err := session.CallTool(testContext(t), &sdk.CallToolParams{
				Name: "codegen_agent__explain_code", Arguments: map[string]any{"code": "a = 1"},
			})
			if err != nil || result.IsError {
				t.Fatalf("the call gives %+v, %v", result, err)
			}
			output, _ := result.StructuredContent.(map[string]any)
			var told map[string]any
			if err := json.Unmarshal([]byte(textOf(result)), &told); err != nil || output["agent_id"] != "codegen_agent" || told["agent_id"] != "codegen_agent" {
				t.Errorf("the output is %v, as text %s", output, textOf(result))
			}
			id, _ := result.Meta["agentruntime/run_id"].(string)
			run, err := sys.agents.GetRun(testContext(t), &agentruntimev1.GetRunRequest{RunId: id})
			if err != nil || run.GetRun().GetState() != agentruntimev1.RunState_RUN_STATE_SUCCEEDED || run.GetRun().GetTaskType() != "explain_code" {
				t.Errorf("the run %q is %v, %v", id, run, err)
			}
			read, err := session.ReadResource(testContext(t), &sdk.ReadResourceParams{URI: "run://" + id})
			if err != nil || !strings.Contains(read.Contents[0].Text, `"state":"succeeded"`) || !strings.Contains(read.Contents[0].Text, `"agent_id":"codegen_agent"`) {
				t.Errorf("the resource is %+v, %v", read, err)
			}
			if _, err := session.ReadResource(testContext(t), &sdk.ReadResourceParams{URI: "run://none"}); err == nil {
				t.Error("a run that there is not is read")
			}
		})
	}
}

func TestWhatMCPClientsAskForWrongly(t *testing.T) {
	t.Parallel()
	session := mcpClient(t, start(t).Integration, "", nil, nil)
	result, err := session.CallTool(testContext(t), &sdk.CallToolParams{Name: "codegen_agent__explain_code", Arguments: map[string]any{"code": 7}})
	if err != nil || !result.IsError || textOf(result) != "input.code: must be a string, is a number" {
		t.Errorf("an input that does not fit gives %+v, %v", result, err)
	}
	if result, err := session.CallTool(testContext(t), &sdk.CallToolParams{Name: "nobody"}); err == nil {
		t.Errorf("an unknown tool gives %+v", result)
	}
}

// endpoint starts a server that executes the agent remote, and a runtime that knows it.
func endpoint(t *testing.T, answer http.HandlerFunc) *system {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	return start(t, "--http-agents=remote="+server.URL+";max-attempts=1")
}

func TestMCPClientsAreToldOfFailures(t *testing.T) {
	t.Parallel()
	sys := endpoint(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	session := mcpClient(t, sys.Integration, "", nil, nil)
	result, err := session.CallTool(testContext(t), &sdk.CallToolParams{
		Name: "remote", Arguments: map[string]any{"task_type": "brew", "input": map[string]any{}},
	})
	if err != nil || !result.IsError || !strings.Contains(textOf(result), "the run failed: the server of agent remote answered 418") ||
		!strings.Contains(textOf(result), "(AGENT_FAILED) [run://") {
		t.Errorf("the call gives %+v, %v", result, err)
	}
}

func TestMCPClientsFollowTheirRuns(t *testing.T) {
	t.Parallel()
	sys := endpoint(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"done": true}`) })
	messages := make(chan string, 100)
	session := mcpClient(t, sys.Integration, "", nil, func(told *sdk.ProgressNotificationParams) {
		if told.ProgressToken == "p" {
			messages <- told.Message
		}
	})
	params := &sdk.CallToolParams{Meta: sdk.Meta{}, Name: "remote", Arguments: map[string]any{"input": map[string]any{}}}
	params.SetProgressToken("p")
	if _, err := session.CallTool(testContext(t), params); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"run.started", "run.succeeded"} {
		for got := ""; got != want; {
			select {
			case got = <-messages:
			case <-testContext(t).Done():
				t.Fatalf("there is no progress %s", want)
			}
		}
	}
}

func TestARepeatedKeyJoinsTheRun(t *testing.T) {
	t.Parallel()
	session := mcpClient(t, start(t).Integration, "", nil, nil)
	call := func() any {
		result, err := session.CallTool(testContext(t), &sdk.CallToolParams{
			Name: "codegen_agent__explain_code", Arguments: map[string]any{"code": "a"}, Meta: sdk.Meta{"agentruntime/idempotency_key": "k"},
		})
		if err != nil || result.IsError {
			t.Fatalf("the call gives %+v, %v", result, err)
		}
		return result.Meta["agentruntime/run_id"]
	}
	if first, second := call(), call(); first != second || first == nil {
		t.Errorf("the runs are %v and %v", first, second)
	}
}

// slow starts a runtime whose agent remote answers when the test ends; begun says that it was asked.
func slow(t *testing.T) (sys *system, begun <-chan struct{}) {
	t.Helper()
	asked, release := make(chan struct{}, 1), make(chan struct{})
	sys = endpoint(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		asked <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(release) })
	return sys, asked
}

// onlyRun is the run that there is.
func onlyRun(t *testing.T, sys *system) string {
	t.Helper()
	listed, err := sys.agents.ListRuns(testContext(t), &agentruntimev1.ListRunsRequest{})
	if err != nil || len(listed.GetRuns()) != 1 {
		t.Fatalf("the runs are %v, %v", listed, err)
	}
	return listed.GetRuns()[0].GetRunId()
}

func expectCancelled(t *testing.T, sys *system) {
	t.Helper()
	ended, err := sys.agents.WaitRun(testContext(t), &agentruntimev1.WaitRunRequest{RunId: onlyRun(t, sys)})
	if err != nil || ended.GetRun().GetState() != agentruntimev1.RunState_RUN_STATE_CANCELLED {
		t.Errorf("the run is %v, %v", ended, err)
	}
}

func TestACancelledCallCancelsItsRun(t *testing.T) {
	t.Parallel()
	sys, begun := slow(t)
	session := mcpClient(t, sys.Integration, "", nil, nil)
	ctx, cancel := context.WithCancel(testContext(t))
	go func() {
		<-begun
		cancel()
	}()
	if result, err := session.CallTool(ctx, &sdk.CallToolParams{Name: "remote", Arguments: map[string]any{"input": map[string]any{}}}); err == nil {
		t.Errorf("the call gives %+v", result)
	}
	expectCancelled(t, sys)
}

func TestAClientThatGoesAwayCancelsItsRun(t *testing.T) {
	t.Parallel()
	sys, begun := slow(t)
	ctx, cancel := context.WithCancel(testContext(t))
	go func() {
		<-begun
		cancel()
	}()
	response, err := post(ctx, sys.Integration, `{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "remote", "arguments": {"input": {}}}}`, nil)
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	}
	if err == nil {
		t.Error("the call was answered")
	}
	expectCancelled(t, sys)
}

// post sends a message as a client of an older protocol does.
func post(ctx context.Context, rt *djangobridge.Integration, message string, headers map[string]string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+rt.HTTPAddr()+"/mcp", bytes.NewReader([]byte(message)))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json, text/event-stream")
	request.Header.Set("Mcp-Protocol-Version", "2025-06-18")
	request.Host = headers["Host"]
	return (&http.Client{Transport: withToken{headers}}).Do(request)
}

func TestAStopEndsCallsAndNotTheirRuns(t *testing.T) {
	t.Parallel()
	sys, begun := slow(t)
	session := mcpClient(t, sys.Integration, "", nil, nil)
	results := make(chan *sdk.CallToolResult, 1)
	go func() {
		result, err := session.CallTool(testContext(t), &sdk.CallToolParams{Name: "remote", Arguments: map[string]any{"input": map[string]any{}}})
		if err != nil {
			t.Error(err)
		}
		results <- result
	}()
	<-begun
	go func() { _ = sys.Stop(testContext(t)) }()
	if result := <-results; result == nil || !result.IsError || !strings.Contains(textOf(result), "the run goes on when it runs again [run://") {
		t.Errorf("the call gives %+v", result)
	}
}

func TestWhoMayUseTheMCPServer(t *testing.T) {
	t.Parallel()
	sys := start(t, "--tokens-file="+writeTokens(t))
	list := `{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}`
	for name, test := range map[string]struct {
		headers map[string]string
		want    int
	}{
		"nobody":          {nil, http.StatusUnauthorized},
		"an unknown one":  {map[string]string{"Authorization": "Bearer nonsense"}, http.StatusUnauthorized},
		"no bearer":       {map[string]string{"Authorization": "writer-secret"}, http.StatusUnauthorized},
		"a writer":        {map[string]string{"Authorization": "Bearer writer-secret"}, http.StatusOK},
		"a reader":        {map[string]string{"Authorization": "Bearer reader-secret"}, http.StatusOK},
		"elsewhere":       {map[string]string{"Authorization": "Bearer writer-secret", "Agent-Runtime-Namespace": "other"}, http.StatusForbidden},
		"nowhere":         {map[string]string{"Authorization": "Bearer writer-secret", "Agent-Runtime-Namespace": "Other"}, http.StatusBadRequest},
		"another's page":  {map[string]string{"Authorization": "Bearer writer-secret", "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, http.StatusForbidden},
		"a rebound name":  {map[string]string{"Authorization": "Bearer writer-secret", "Host": "evil.example"}, http.StatusForbidden},
		"too much at all": {map[string]string{"Authorization": "Bearer slow-secret"}, http.StatusOK},
	} {
		response, err := post(testContext(t), sys.Integration, list, test.headers)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != test.want {
			t.Errorf("%s gets %s, want %d", name, response.Status, test.want)
		}
	}
	response, err := post(testContext(t), sys.Integration, list, map[string]string{"Authorization": "Bearer slow-secret"})
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusTooManyRequests || response.Header.Get("Retry-After") == "" {
		t.Errorf("a token beyond its rate gets %s", response.Status)
	}

	reader := mcpClient(t, sys.Integration, "", map[string]string{"Authorization": "Bearer reader-secret"}, nil)
	params := &sdk.CallToolParams{Name: "codegen_agent__explain_code", Arguments: map[string]any{"code": "a"}}
	result, err := reader.CallTool(testContext(t), params)
	if err != nil || !result.IsError || textOf(result) != "the token does not allow to write in namespace default" {
		t.Errorf("a reader's call gives %+v, %v", result, err)
	}
	shop := mcpClient(t, sys.Integration, "", map[string]string{"Authorization": "Bearer writer-secret", "Agent-Runtime-Namespace": "shop"}, nil)
	result, err = shop.CallTool(testContext(t), params)
	if err != nil || result.IsError {
		t.Fatalf("a writer's call gives %+v, %v", result, err)
	}
	uri := "run://" + result.Meta["agentruntime/run_id"].(string)
	if _, err := shop.ReadResource(testContext(t), &sdk.ReadResourceParams{URI: uri}); err != nil {
		t.Error(err)
	}
	if read, err := reader.ReadResource(testContext(t), &sdk.ReadResourceParams{URI: uri}); err == nil {
		t.Errorf("another namespace reads %+v", read)
	}
}

func TestTheMCPServerIsOffOnRequestAndBounded(t *testing.T) {
	t.Parallel()
	closed := start(t, "--mcp=off")
	response, err := post(testContext(t), closed.Integration, `{}`, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusNotFound {
		t.Errorf("a server that is off answers %s", response.Status)
	}
	open := start(t)
	for message, want := range map[string]int{
		`{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "` + strings.Repeat("x", 4<<20) + `"}}`: http.StatusRequestEntityTooLarge,
		`{`: http.StatusBadRequest,
	} {
		response, err := post(testContext(t), open.Integration, message, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%.20s… is answered %s, want %d", message, response.Status, want)
		}
	}
}
