package model

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// each runs a test for every provider.
func each(t *testing.T, test func(t *testing.T, d dialect)) {
	t.Helper()
	for name, d := range dialects() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, d)
		})
	}
}

func collect(pieces *[]string) func(string) error {
	return func(text string) error {
		*pieces = append(*pieces, text)
		return nil
	}
}

func TestAnswersAndTheirUsage(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d dialect) {
		server := newWire(t, says(http.StatusOK, jsonType, d.text), says(http.StatusOK, eventsType, d.stream))
		router := d.router(t, server.URL, quiet)
		want := Response{
			Text: "Forty-two.", Provider: d.provider, Model: "answering-model", Usage: d.usage, FinishReason: d.finishReason,
		}
		response, err := router.Complete(t.Context(), ask(nil))
		if err != nil || !reflect.DeepEqual(response, want) {
			t.Errorf("Complete = %+v, %v; want %+v", response, err, want)
		}
		var pieces []string
		request := ask(nil)
		request.Pieces = collect(&pieces)
		response, err = router.Complete(t.Context(), request)
		if err != nil || !reflect.DeepEqual(response, want) || !slices.Equal(pieces, []string{"Forty", "-two."}) {
			t.Errorf("Complete = %+v, %v in pieces %q; want %+v", response, err, pieces, want)
		}
		sent := server.sent()
		if sent[0].path != d.path || sent[1].path != d.streamPath {
			t.Errorf("asked for %s and %s", sent[0].path, sent[1].path)
		}
		var found bool
		for _, values := range sent[0].header {
			found = found || slices.Contains(values, d.key)
		}
		if !found || strings.Contains(sent[0].path, testKey) {
			t.Errorf("the key is not in a header: %v", sent[0].header)
		}
	})
}

func TestToolCallsWholeAndStreamed(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d dialect) {
		server := newWire(t, says(http.StatusOK, jsonType, d.calls), says(http.StatusOK, eventsType, d.callStream))
		router := d.router(t, server.URL, quiet)
		for _, pieces := range []func(string) error{nil, func(text string) error { return fmt.Errorf("was given %q", text) }} {
			request := ask(nil)
			request.Tools = []Tool{{Name: "look"}, {Name: "wait", Schema: []byte(`{"type":"object"}`)}}
			request.Pieces = pieces
			response, err := router.Complete(t.Context(), request)
			if err != nil || len(response.ToolCalls) != 2 || response.Text != "" || response.Usage != d.usage {
				t.Fatalf("Complete = %+v, %v; want two calls", response, err)
			}
			look, wait := response.ToolCalls[0], response.ToolCalls[1]
			var arguments map[string]string
			if json.Unmarshal([]byte(look.Arguments), &arguments) != nil || look.ID != "call-1" || look.Name != "look" || arguments["at"] != "sky" {
				t.Errorf("first call %+v", look)
			}
			if len(wait.ID) < 10 || len(wait.ID) > 40 || wait.Name != "wait" || wait.Arguments != "{}" {
				t.Errorf("second call %+v", wait)
			}
		}
	})
}

func TestMalformedArgumentsArePassedOn(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d dialect) {
		if d.badCallStream == "" {
			t.Skip("the provider has arguments only as an object")
		}
		server := newWire(t, says(http.StatusOK, eventsType, d.badCallStream), says(http.StatusOK, jsonType, d.text))
		router := d.router(t, server.URL, quiet)
		request := ask(nil)
		request.Pieces = func(string) error { return nil }
		response, err := router.Complete(t.Context(), request)
		if err != nil || len(response.ToolCalls) != 1 || response.ToolCalls[0].Arguments != `{"at": sky` {
			t.Fatalf("Complete = %+v, %v; want the arguments as they are", response, err)
		}
		// The provider takes them back.
		request = ask(nil)
		request.Messages = append(request.Messages, Message{Role: Assistant, ToolCalls: response.ToolCalls},
			Message{Role: ToolResult, ToolCallID: "call-1", Text: "not JSON", Failed: true})
		if response, err := router.Complete(t.Context(), request); err != nil || response.Text != "Forty-two." {
			t.Errorf("Complete = %+v, %v", response, err)
		}
		if sent, _ := json.Marshal(server.sent()[1].body); !strings.Contains(string(sent), `sky`) {
			t.Errorf("the arguments are not in %s", sent)
		}
	})
}

// A conversation is kept as JSON between the calls of a model.
func TestConversationsComeBackToTheirProvider(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		openAIName: `[
			{"role":"system","content":"Count."},
			{"role":"user","content":[{"type":"text","text":"What is it?"},
				{"type":"image_url","image_url":{"url":"data:image/png;base64,aW1n"}},{"type":"image_url","image_url":{"url":"https://e.example/i.png"}}]},
			{"role":"assistant","tool_calls":[{"id":"call-1","type":"function","function":{"name":"look","arguments":"{\"at\":\"sky\"}"}},
				{"id":"MADE","type":"function","function":{"name":"wait","arguments":"{}"}}]},
			{"role":"tool","tool_call_id":"call-1","content":"blue"},
			{"role":"tool","tool_call_id":"MADE","content":"Error: no time"},
			{"role":"user","content":"Well?"}]`,
		anthropicName: `[
			{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"aW1n"}},
				{"type":"image","source":{"type":"url","url":"https://e.example/i.png"}},{"type":"text","text":"What is it?"}]},
			{"role":"assistant","content":[{"type":"thinking","thinking":"Hm.","signature":"c2ln"},
				{"type":"tool_use","id":"call-1","name":"look","input":{"at":"sky"}},{"type":"tool_use","id":"MADE","name":"wait","input":{}}]},
			{"role":"user","content":[{"type":"tool_result","tool_use_id":"call-1","content":[{"type":"text","text":"blue"}]},
				{"type":"tool_result","tool_use_id":"MADE","is_error":true,"content":[{"type":"text","text":"no time"}]},
				{"type":"text","text":"Well?"}]}]`,
		geminiName: `[
			{"role":"user","parts":[{"text":"What is it?"},{"inlineData":{"data":"aW1n","mimeType":"image/png"}},
				{"fileData":{"fileUri":"https://e.example/i.png","mimeType":"image/png"}}]},
			{"role":"model","parts":[{"functionCall":{"id":"call-1","name":"look","args":{"at":"sky"}},"thoughtSignature":"c2ln"},
				{"functionCall":{"id":"MADE","name":"wait"}}]},
			{"role":"user","parts":[{"functionResponse":{"id":"call-1","name":"look","response":{"output":"blue"}}},
				{"functionResponse":{"id":"MADE","name":"wait","response":{"error":"no time"}}},{"text":"Well?"}]}]`,
	}
	each(t, func(t *testing.T, d dialect) {
		server := newWire(t, says(http.StatusOK, jsonType, strings.ReplaceAll(d.calls, `{"at": "sky"}`, `{"at":"sky"}`)),
			says(http.StatusOK, eventsType, d.callStream), says(http.StatusOK, jsonType, d.text))
		router := d.router(t, server.URL, quiet)
		for _, pieces := range []func(string) error{nil, func(string) error { return nil }} {
			request := ask(nil)
			request.Pieces = pieces
			first, err := router.Complete(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			first.ToolCalls[0].Arguments = strings.ReplaceAll(first.ToolCalls[0].Arguments, " ", "")
			conversation := []Message{
				{Role: User, Text: "What is it?", Images: []Image{
					{MediaType: "image/png", Data: []byte("img")}, {URL: "https://e.example/i.png", MediaType: "image/png"},
				}},
				{Role: Assistant, ToolCalls: first.ToolCalls},
				{Role: ToolResult, ToolCallID: first.ToolCalls[0].ID, Text: "blue"},
				{Role: ToolResult, ToolCallID: first.ToolCalls[1].ID, Text: "no time", Failed: true},
				{Role: User, Text: "Well?"},
			}
			kept, err := json.Marshal(conversation)
			if err != nil {
				t.Fatal(err)
			}
			var read []Message
			if err := json.Unmarshal(kept, &read); err != nil {
				t.Fatal(err)
			}
			server.mu.Lock()
			before := len(server.requests)
			server.mu.Unlock()
			// The wire's answers are in the order of the requests, so this one is asked of a wire of its own.
			last := newWire(t, says(http.StatusOK, jsonType, d.text))
			if _, err := d.router(t, last.URL, quiet).Complete(t.Context(), Request{Instructions: "Count.", Messages: read}); err != nil {
				t.Fatalf("after %d requests: %v", before, err)
			}
			body := last.sent()[0].body
			got, ok := body["messages"]
			if !ok {
				got = body["contents"]
			}
			var expected any
			text := strings.ReplaceAll(want[d.name()], "MADE", first.ToolCalls[1].ID)
			if err := json.Unmarshal([]byte(text), &expected); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, expected) {
				shown, _ := json.Marshal(got)
				t.Errorf("sent %s", shown)
			}
		}
	})
}

func TestWhatOneProviderWantsBackIsNotSentToAnother(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d dialect) {
		server := newWire(t, says(http.StatusOK, jsonType, d.text))
		request := ask(nil)
		for name := range dialects() {
			if name == d.name() {
				continue
			}
			id := "functions.look:" + name
			request.Messages = append(request.Messages,
				Message{Role: Assistant, Text: "Let me see.", ToolCalls: []ToolCall{{ID: id, Name: "look", Arguments: "{}", Opaque: name + ":c2VjcmV0"}}},
				Message{Role: ToolResult, ToolCallID: id, Text: "blue"})
		}
		if _, err := d.router(t, server.URL, quiet).Complete(t.Context(), request); err != nil {
			t.Fatal(err)
		}
		sent, _ := json.Marshal(server.sent()[0].body)
		if strings.Contains(string(sent), "c2VjcmV0") {
			t.Errorf("sent %s", sent)
		}
		if d.name() == anthropicName && strings.Contains(string(sent), "functions.look") {
			t.Errorf("ids are not what Anthropic takes: %s", sent)
		}
	})
}

func TestToolsAreDescribed(t *testing.T) {
	t.Parallel()
	schema := `{"type":"object","properties":{"at":{"type":"integer","maximum":9007199254740993}},"required":["at"]}`
	none := `{"type":"object","properties":{}}`
	each(t, func(t *testing.T, d dialect) {
		server := newWire(t, says(http.StatusOK, jsonType, d.text))
		request := ask(nil)
		request.MaxTokens = 100
		request.Tools = []Tool{{Name: "look", Description: "Looks.", Schema: []byte(schema)}, {Name: "wait"}}
		if _, err := d.router(t, server.URL, quiet).Complete(t.Context(), request); err != nil {
			t.Fatal(err)
		}
		shapes := map[string]string{
			openAIName: `{"max_tokens":100,"tools":[{"type":"function","function":{"name":"look","description":"Looks.","parameters":` + schema +
				`}},{"type":"function","function":{"name":"wait","parameters":` + none + `}}]}`,
			anthropicName: `{"max_tokens":100,"tools":[{"name":"look","description":"Looks.","input_schema":` + schema +
				`},{"name":"wait","input_schema":` + none + `}]}`,
			geminiName: `{"generationConfig":{"maxOutputTokens":100},"tools":[{"functionDeclarations":[{"name":"look","description":"Looks.","parametersJsonSchema":` +
				schema + `},{"name":"wait","parametersJsonSchema":` + none + `}]}]}`,
		}
		var want map[string]any
		if err := json.Unmarshal([]byte(shapes[d.name()]), &want); err != nil {
			t.Fatal(err)
		}
		for member, value := range want {
			if got := server.sent()[0].body[member]; !reflect.DeepEqual(got, value) {
				shown, _ := json.Marshal(got)
				t.Errorf("sent %s %s", member, shown)
			}
		}
	})
}

func TestStructuredOutput(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d dialect) {
		// It is refused first with tools, and not without.
		refused := says(http.StatusBadRequest, jsonType, d.failure("INVALID_ARGUMENT", "unsupported together with tools"))
		object := says(http.StatusOK, jsonType, d.object)
		server := newWire(t, refused, object, object, object)
		router := d.router(t, server.URL, quiet)
		for _, withTools := range []bool{true, true, false} {
			request := ask(answer)
			if withTools {
				request.Tools = []Tool{{Name: "look"}}
			}
			response, err := router.Complete(t.Context(), request)
			if err != nil || response.Text != `{"n": 1}` {
				t.Fatalf("Complete = %q, %v; want the object alone", response.Text, err)
			}
		}
		var schema any
		if err := json.Unmarshal(answer.JSON, &schema); err != nil {
			t.Fatal(err)
		}
		var got []bool
		for _, request := range server.sent() {
			constraint := d.constraint(request.body)
			got = append(got, constraint != nil)
			if constraint != nil && !reflect.DeepEqual(constraint, schema) {
				t.Errorf("schema sent: %v", constraint)
			}
			if text, _ := json.Marshal(request.body); !strings.Contains(string(text), `must fit this JSON Schema`) {
				t.Errorf("the instructions lack the schema: %s", text)
			}
		}
		if !slices.Equal(got, []bool{true, false, false, true}) {
			t.Errorf("constraints sent: %v; want it left out with tools once refused, and kept without", got)
		}
	})
}

func (d dialect) name() string { return strings.Split(d.model, "/")[0] }

// checkFailure asks, and looks at what the failure says and keeps to itself.
// The SDKs would take keys, addresses and headers from these.
func TestNothingIsTakenFromTheEnvironment(t *testing.T) {
	elsewhere := newWire(t, says(http.StatusTeapot, jsonType, "{}"))
	for _, name := range []string{
		"OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "GOOGLE_CLOUD_PROJECT",
		"GEMINI_API_KEY", "GOOGLE_CLOUD_LOCATION",
	} {
		t.Setenv(name, "from-the-environment")
	}
	t.Setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Custom: from-the-environment")
	t.Setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
	for _, name := range []string{"OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL", "GOOGLE_VERTEX_BASE_URL"} {
		t.Setenv(name, elsewhere.URL)
	}
	for name, d := range dialects() {
		server := newWire(t, says(http.StatusOK, jsonType, d.text))
		if _, err := d.router(t, server.URL, quiet).Complete(t.Context(), ask(nil)); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text := fmt.Sprint(server.sent()); strings.Contains(text, "from-the-environment") {
			t.Errorf("%s sent %s", name, text)
		}
	}
	if got := elsewhere.sent(); len(got) != 0 {
		t.Errorf("asked elsewhere: %v", got)
	}
}
