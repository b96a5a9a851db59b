package mcp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/goleak"
)

// kindVariable makes the test binary a server that speaks over its standard input and output.
const kindVariable = "MCP_TEST_SERVER"

func TestMain(m *testing.M) {
	if kind := os.Getenv(kindVariable); kind != "" {
		os.Exit(serveStdio(kind))
	}
	goleak.VerifyTestMain(m)
}

func serveStdio(kind string) int {
	fmt.Fprintln(os.Stderr, "a test server starts")
	switch kind {
	case "full":
		err := newFullServer().Run(context.Background(), &sdk.StdioTransport{})
		if err != nil && !errors.Is(err, context.Canceled) {
			return 1
		}
		return 0
	case "silent":
		// It is there and says nothing, not even at its end.
		signal.Ignore(syscall.SIGTERM)
		select {}
	case "garbage":
		_, _ = fmt.Fprintln(os.Stdout, "Welcome to the server!")
		select {}
	default:
		return serveRaw(kind)
	}
}

// newFullServer makes a server with one of everything.
func newFullServer() *sdk.Server {
	server := sdk.NewServer(&sdk.Implementation{Name: "full", Version: "1"}, nil)
	add := func(name string, work func(ctx context.Context, arguments map[string]any, request *sdk.CallToolRequest) *sdk.CallToolResult) {
		server.AddTool(&sdk.Tool{Name: name, Description: "does " + name, InputSchema: json.RawMessage(`{"type": "object"}`)},
			func(ctx context.Context, request *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
				var arguments map[string]any
				if err := json.Unmarshal(request.Params.Arguments, &arguments); err != nil {
					return nil, err
				}
				return work(ctx, arguments, request), nil
			})
	}
	text := func(text string) *sdk.CallToolResult {
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: text}}}
	}
	add("echo", func(_ context.Context, arguments map[string]any, request *sdk.CallToolRequest) *sdk.CallToolResult {
		result := text(fmt.Sprint(arguments["text"]))
		result.StructuredContent = map[string]any{"said": arguments["text"], "meta": request.Params.Meta}
		return result
	})
	add("fail", func(context.Context, map[string]any, *sdk.CallToolRequest) *sdk.CallToolResult {
		result := text("there is no such order")
		result.IsError = true
		return result
	})
	add("picture", func(context.Context, map[string]any, *sdk.CallToolRequest) *sdk.CallToolResult {
		return &sdk.CallToolResult{Content: []sdk.Content{
			&sdk.TextContent{Text: "a dot"}, &sdk.ImageContent{MIMEType: "image/png", Data: []byte("dot")},
			&sdk.AudioContent{MIMEType: "audio/wav", Data: []byte("beep")},
			&sdk.EmbeddedResource{Resource: &sdk.ResourceContents{URI: "file:///a", Text: "of a"}},
			&sdk.ResourceLink{URI: "file:///b", Name: "b"},
		}}
	})
	add("flood", func(context.Context, map[string]any, *sdk.CallToolRequest) *sdk.CallToolResult {
		return text(strings.Repeat("x", 10<<20))
	})
	add("chatter", func(context.Context, map[string]any, *sdk.CallToolRequest) *sdk.CallToolResult {
		if os.Getenv(kindVariable) != "" {
			fmt.Fprintln(os.Stderr, strings.Repeat("e", 5<<20))
		}
		return text("said it all")
	})
	add("environment", func(context.Context, map[string]any, *sdk.CallToolRequest) *sdk.CallToolResult {
		return text(strings.Join(os.Environ(), "\n"))
	})
	add("pid", func(context.Context, map[string]any, *sdk.CallToolRequest) *sdk.CallToolResult {
		return text(strconv.Itoa(os.Getpid()))
	})
	add("die", func(context.Context, map[string]any, *sdk.CallToolRequest) *sdk.CallToolResult {
		os.Exit(3)
		return nil
	})
	// wait tells by files that it began and that it was cancelled.
	add("wait", func(ctx context.Context, arguments map[string]any, _ *sdk.CallToolRequest) *sdk.CallToolResult {
		folder := fmt.Sprint(arguments["folder"])
		_ = os.WriteFile(folder+"/began", nil, 0o600)
		<-ctx.Done()
		_ = os.WriteFile(folder+"/cancelled", nil, 0o600)
		return text("gave up")
	})
	// fork leaves a child behind that ignores polite signals.
	add("fork", func(context.Context, map[string]any, *sdk.CallToolRequest) *sdk.CallToolResult {
		child := exec.CommandContext(context.Background(), "sh", "-c", "trap '' TERM HUP; while :; do sleep 1; done")
		if err := child.Start(); err != nil {
			return text(err.Error())
		}
		return text(strconv.Itoa(child.Process.Pid))
	})
	add("learn", func(_ context.Context, arguments map[string]any, _ *sdk.CallToolRequest) *sdk.CallToolResult {
		server.AddTool(&sdk.Tool{Name: fmt.Sprint(arguments["name"]), InputSchema: json.RawMessage(`{"type": "object"}`)},
			func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) { return text("learnt"), nil })
		server.RemoveTools("fail")
		return text("done")
	})
	server.AddResource(&sdk.Resource{URI: "note://one", Name: "one", Description: "the first note"},
		func(_ context.Context, request *sdk.ReadResourceRequest) (*sdk.ReadResourceResult, error) {
			return &sdk.ReadResourceResult{Contents: []*sdk.ResourceContents{
				{URI: request.Params.URI, Text: "note one"},
				{URI: request.Params.URI, MIMEType: "image/png", Blob: []byte("png")},
				{URI: request.Params.URI, MIMEType: "application/zip", Blob: []byte("zip")},
			}}, nil
		})
	server.AddPrompt(&sdk.Prompt{Name: "greet", Description: "a greeting", Arguments: []*sdk.PromptArgument{{Name: "who", Required: true}}},
		func(_ context.Context, request *sdk.GetPromptRequest) (*sdk.GetPromptResult, error) {
			return &sdk.GetPromptResult{Messages: []*sdk.PromptMessage{
				{Role: "user", Content: &sdk.TextContent{Text: "Greet " + request.Params.Arguments["who"]}},
			}}, nil
		})
	return server
}

// serveRaw speaks the protocol by hand, to say what the SDK would not.
func serveRaw(kind string) int {
	lines := bufio.NewScanner(os.Stdin)
	page := 0
	for lines.Scan() {
		var request struct {
			ID     json.RawMessage `json:"id"`
			Method string          `json:"method"`
		}
		if json.Unmarshal(lines.Bytes(), &request) != nil || request.ID == nil {
			continue
		}
		answer := func(text string) {
			_, _ = fmt.Fprintf(os.Stdout, `{"jsonrpc":"2.0","id":%s,%s}`+"\n", request.ID, text)
		}
		switch request.Method {
		case "initialize":
			answer(`"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"raw","version":"1"}}`)
		case "ping":
			answer(`"result":{}`)
		case "tools/list":
			page++
			answer(`"result":` + strings.ReplaceAll(strings.ReplaceAll(rawTools(kind, page), "\n", ""), "\t", ""))
		case "tools/call":
			if kind == "deaf" {
				signal.Ignore(syscall.SIGTERM)
				select {}
			}
			answer(`"error":{"code":-32602,"message":"unknown tool"}`)
		default:
			answer(`"error":{"code":-32601,"message":"no such method"}`)
		}
	}
	return 0
}

func rawTools(kind string, page int) string {
	switch kind {
	case "endless":
		return fmt.Sprintf(`{"tools":[{"name":"t%d","inputSchema":{"type":"object"}}],"nextCursor":"%d"}`, page, page)
	case "liar":
		return `{"tools":[
			{"name":"fine","inputSchema":{"type":"object"}},
			{"name":"fine","inputSchema":{"type":"object"}},
			{"name":"no/such.name","inputSchema":{"type":"object"}},
			{"name":"` + strings.Repeat("long", 30) + `","inputSchema":{"type":"object"}},
			{"name":"nothing"},
			{"name":"null","inputSchema":null},
			{"name":"list","inputSchema":[1]},
			{"name":"text","inputSchema":"object"},
			{"name":"kind","inputSchema":{"type":"thing"}},
			{"name":"file","inputSchema":{"$ref":"file:///etc/passwd"}},
			{"name":"pattern","inputSchema":{"type":"object","properties":{"a":{"pattern":"("}}}},
			{"name":"","inputSchema":{"type":"object"}}
		]}`
	default:
		return `{"tools":[{"name":"any","inputSchema":{"type":"object"}}]}`
	}
}
