package mcp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"go.opentelemetry.io/otel/propagation"

	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const (
	// listingAge is how long a list is used of a server that does not tell of changes.
	listingAge = time.Minute
	// maxListed is how many tools, resources, templates and prompts of a server are
	// looked at, each.
	maxListed = 512
	// maxDescriptionBytes is how long the description of a tool may be.
	maxDescriptionBytes = 8 << 10
)

// What a server's resources and prompts are as tools.
const (
	readResource = "read_resource"
	getPrompt    = "get_prompt"
)

// idempotencyKey is where servers find Call.ID, in the metadata of a call.
const idempotencyKey = "agentruntime/idempotency_key"

// listing is what a server offered.
type listing struct {
	tools []tool.Tool
	// changes is session.changes as it was before the server was asked.
	changes int64
	read    time.Time
}

// tools returns what agents may use of the server.
func (u *upstream) tools(ctx context.Context) ([]tool.Tool, error) {
	s, err := u.connected(ctx)
	if err != nil {
		return nil, err
	}
	changes := s.changes.Load()
	s.mu.Lock()
	known := s.listing
	s.mu.Unlock()
	if known != nil && known.changes == changes && time.Since(known.read) < listingAge {
		return slices.Clone(known.tools), nil
	}
	offered, err := do(ctx, u, u.list)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.listing = &listing{tools: offered, changes: changes, read: time.Now()}
	s.mu.Unlock()
	return slices.Clone(offered), nil
}

// list asks the server for everything it offers.
func (u *upstream) list(ctx context.Context, client *sdk.ClientSession) ([]tool.Tool, error) {
	var offered []tool.Tool
	names := map[string]bool{}
	add := func(own string, t tool.Tool) {
		t.Name, t.Timeout, t.Approval = qualified(u.name, own), u.cfg.Timeout, u.cfg.needsApproval(own)
		t.Description = violation.Clip(t.Description, maxDescriptionBytes)
		if _, err := tool.NewSet(t); err != nil || names[t.Name] {
			u.log.Warn("mcp tool left out", "tool", own, "err", err, "taken", names[t.Name])
			return
		}
		names[t.Name] = true
		offered = append(offered, t)
	}
	capabilities := client.InitializeResult().Capabilities
	if capabilities == nil {
		capabilities = &sdk.ServerCapabilities{}
	}
	if capabilities.Tools != nil {
		for t, err := range client.Tools(ctx, nil) {
			if err != nil {
				return nil, err
			}
			if len(offered) == maxListed {
				u.log.Warn("mcp tools left out", "most", maxListed)
				break
			}
			if t.Name != "" && u.cfg.allows(t.Name) {
				add(t.Name, u.toolOf(t))
			}
		}
	}
	if capabilities.Resources != nil && u.cfg.allows(readResource) {
		t, err := u.resourceTool(ctx, client)
		if err != nil {
			return nil, err
		}
		add(readResource, t)
	}
	if capabilities.Prompts != nil && u.cfg.allows(getPrompt) {
		t, err := u.promptTool(ctx, client)
		if err != nil {
			return nil, err
		}
		add(getPrompt, t)
	}
	slices.SortFunc(offered, func(a, b tool.Tool) int { return strings.Compare(a.Name, b.Name) })
	return offered, nil
}

// toolOf makes a tool of a server's, but for what list adds.
func (u *upstream) toolOf(offered *sdk.Tool) tool.Tool {
	// What cannot be written is refused as no schema.
	schema, err := json.Marshal(offered.InputSchema)
	if err != nil || offered.InputSchema == nil {
		schema = []byte("false")
	}
	description := offered.Description
	if description == "" {
		description = offered.Title
	}
	return tool.Tool{
		Description: description, Schema: schema,
		Call: func(ctx context.Context, c tool.Call) (tool.Result, error) {
			result, err := do(ctx, u, func(ctx context.Context, client *sdk.ClientSession) (*sdk.CallToolResult, error) {
				return client.CallTool(ctx, &sdk.CallToolParams{
					Name: offered.Name, Arguments: json.RawMessage(c.Arguments), Meta: u.metaOf(ctx, c),
				})
			})
			if err != nil {
				return tool.Result{}, err
			}
			return resultOf(result), nil
		},
	}
}

// metaOf is what goes with each request for a call: whose span it is part of, and the
// key by which the server can tell a repeat.
func (u *upstream) metaOf(ctx context.Context, c tool.Call) sdk.Meta {
	carrier := propagation.MapCarrier{}
	u.options.Propagator.Inject(ctx, carrier)
	meta := sdk.Meta{idempotencyKey: c.ID}
	for name, value := range carrier {
		meta[name] = value
	}
	return meta
}

// qualified is the name of a tool for models. One that has characters that models'
// providers do not take, or is too long for them, ends in a hash that keeps it apart.
func qualified(server, own string) string {
	name := server + "__" + unfitRune.ReplaceAllString(own, "_")
	if len(name) <= tool.MaxNameBytes && name == server+"__"+own {
		return name
	}
	return hashed(name, own)
}

// hashed ends a name in a hash of what it stands for.
func hashed(name, of string) string {
	sum := sha256.Sum256([]byte(of))
	suffix := "_" + hex.EncodeToString(sum[:4])
	return name[:min(len(name), tool.MaxNameBytes-len(suffix))] + suffix
}

// resourceTool reads the server's resources, and says which there are.
func (u *upstream) resourceTool(ctx context.Context, client *sdk.ClientSession) (tool.Tool, error) {
	var known strings.Builder
	fmt.Fprintf(&known, "Reads a resource of the server %s by its URI.", u.name)
	count := 0
	for r, err := range client.Resources(ctx, nil) {
		if err != nil {
			return tool.Tool{}, err
		}
		if count++; count > maxListed {
			break
		}
		fmt.Fprintf(&known, "\n- %s: %s %s", r.URI, r.Name, r.Description)
	}
	count = 0
	for r, err := range client.ResourceTemplates(ctx, nil) {
		if err != nil {
			// Servers without templates may refuse to list them.
			break
		}
		if count++; count > maxListed {
			break
		}
		fmt.Fprintf(&known, "\n- like %s: %s %s", r.URITemplate, r.Name, r.Description)
	}
	return tool.Tool{
		Description: known.String(),
		Schema: []byte(`{
			"type": "object", "required": ["uri"], "additionalProperties": false,
			"properties": {"uri": {"type": "string"}}
		}`),
		Call: func(ctx context.Context, c tool.Call) (tool.Result, error) {
			var arguments struct {
				URI string `json:"uri"`
			}
			if err := json.Unmarshal(c.Arguments, &arguments); err != nil {
				return tool.Result{}, fmt.Errorf("read arguments: %w", err)
			}
			result, err := do(ctx, u, func(ctx context.Context, client *sdk.ClientSession) (*sdk.ReadResourceResult, error) {
				return client.ReadResource(ctx, &sdk.ReadResourceParams{URI: arguments.URI, Meta: u.metaOf(ctx, c)})
			})
			if err != nil {
				return refusalOr(err)
			}
			var all collected
			for _, contents := range result.Contents {
				all.addContents(contents)
			}
			return all.result(), nil
		},
	}, nil
}

// promptTool gets the server's prompts, and says which there are.
func (u *upstream) promptTool(ctx context.Context, client *sdk.ClientSession) (tool.Tool, error) {
	var known strings.Builder
	fmt.Fprintf(&known, "Gets a prompt of the server %s by its name.", u.name)
	count := 0
	for p, err := range client.Prompts(ctx, nil) {
		if err != nil {
			return tool.Tool{}, err
		}
		if count++; count > maxListed {
			break
		}
		fmt.Fprintf(&known, "\n- %s: %s", p.Name, p.Description)
		for _, argument := range p.Arguments {
			fmt.Fprintf(&known, "\n  - argument %s: %s", argument.Name, argument.Description)
			if argument.Required {
				known.WriteString(" (required)")
			}
		}
	}
	return tool.Tool{
		Description: known.String(),
		Schema: []byte(`{
			"type": "object", "required": ["name"], "additionalProperties": false,
			"properties": {"name": {"type": "string"}, "arguments": {"type": "object", "additionalProperties": {"type": "string"}}}
		}`),
		Call: func(ctx context.Context, c tool.Call) (tool.Result, error) {
			var arguments struct {
				Name      string            `json:"name"`
				Arguments map[string]string `json:"arguments"`
			}
			if err := json.Unmarshal(c.Arguments, &arguments); err != nil {
				return tool.Result{}, fmt.Errorf("read arguments: %w", err)
			}
			result, err := do(ctx, u, func(ctx context.Context, client *sdk.ClientSession) (*sdk.GetPromptResult, error) {
				return client.GetPrompt(ctx, &sdk.GetPromptParams{
					Name: arguments.Name, Arguments: arguments.Arguments, Meta: u.metaOf(ctx, c),
				})
			})
			if err != nil {
				return refusalOr(err)
			}
			var all collected
			for _, message := range result.Messages {
				all.addText(string(message.Role) + ":")
				all.addContent(message.Content)
			}
			return all.result(), nil
		},
	}, nil
}
