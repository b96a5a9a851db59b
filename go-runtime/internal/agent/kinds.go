package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/document"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonschema"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// kinds are those of the nodes of graphs, by their names:
//
//	transform  sets channels only
//	human      asks a person: ask, choices
//	llm        asks a model: instructions, prompt, model, schema, stream, sample
//	agent      has an agent do a task: agent, and prompt or task_type and input
//	graph      runs another graph as a part of this one: graph, input
//	python     calls a function of a Python worker: function, arguments
//	http       calls an HTTP server: url, method, headers, arguments
//	tool       calls a tool of an MCP server: server, tool, arguments; or, without a server,
//	           one of the long-term store
//
// What stands in prompts between {{ and }}, and the values of input and arguments, are
// expressions.
func (r *Registry) kinds() map[string]document.Kind {
	return map[string]document.Kind{
		"transform": document.Transform, "human": document.Human, "llm": llmKind(r.provider),
		"agent": agentKind, "graph": r.graphKind, "python": pythonKind, "http": r.httpKind, "tool": r.toolKind,
	}
}

// llmKind makes nodes that ask a model. `out` has the answer's text and, with a schema,
// its object.
func llmKind(provider model.Provider) document.Kind {
	return func(with document.With) (document.Work, error) {
		instructions, named := with.String("instructions"), with.String("model")
		if err := checkModel(provider, named); err != nil {
			with.Refusef("model", "%s", err)
		}
		prompt := with.Text("prompt")
		stream := with.Bool("stream")
		var sample func(context.Context, graph.State) (string, error)
		if with.Has("sample") {
			sample = with.Text("sample")
		}
		schema := schemaIn(with, "schema")
		work := func(ctx context.Context, node *graph.Call, state graph.State) (any, error) {
			asked, err := prompt(ctx, state)
			if err != nil {
				return nil, fmt.Errorf("prompt: %w", err)
			}
			request := model.Request{
				Model: named, Instructions: instructions, Messages: []model.Message{{Role: model.User, Text: asked}},
			}
			if sample != nil {
				request.Sample = func(string) (string, error) { return sample(ctx, state) }
			}
			if schema != nil {
				request.Schema = &model.Schema{Name: node.Task.Node, JSON: schema.Raw()}
			}
			said, err := tellPieces(ctx, node, stream, &request)
			if err != nil {
				return nil, err
			}
			response, err := ask(ctx, provider, request)
			if err = errors.Join(err, said()); err != nil {
				return nil, err
			}
			out := map[string]any{"text": response.Text, "model": response.Model, "offline": response.Offline}
			if schema != nil {
				out["object"], err = objectOf(schema, response.Text)
			}
			return out, err
		}
		return work, with.Check()
	}
}

// schemaIn is a JSON Schema of a node, or nil where there is none.
func schemaIn(with document.With, name string) *jsonschema.Schema {
	object := with.Object(name)
	if object == nil {
		return nil
	}
	schema, err := jsonschema.Of(name, object)
	if wrong, named := errors.AsType[*violation.Error](err); named {
		for _, v := range wrong.Violations {
			with.Refusef(v.Field, "%s", v.Description)
		}
	}
	return schema
}

// objectOf reads an answer that must fit a schema.
func objectOf(schema *jsonschema.Schema, text string) (map[string]any, error) {
	if err := schema.Check("answer", []byte(text)); err != nil {
		return nil, err
	}
	return result{text: text}.object()
}

// agentKind makes nodes that have an agent do something, as a sub-run. `out` is its output.
func agentKind(with document.With) (document.Work, error) {
	with.RefuseRepeats("is not for nodes that wait for an agent: it is the agent that has a run_timeout, and a retry")
	id := with.Required("agent")
	taskType := with.String("task_type")
	var prompt func(context.Context, graph.State) (string, error)
	if with.Has("prompt") || taskType == "" {
		prompt = with.Text("prompt")
	}
	input := with.Values("input")
	if taskType != "" && with.Has("prompt") {
		with.Refusef("prompt", "stands beside task_type, which takes an input")
	}
	work := func(ctx context.Context, node *graph.Call, state graph.State) (any, error) {
		request, err := agentRequest(ctx, state, id, taskType, prompt, input)
		if err != nil {
			return nil, err
		}
		run, err := delegate(ctx, node, 0, request)
		if err != nil {
			return nil, err
		}
		output, err := outputOf(run)
		return jsonvalue.Doubles(output), err
	}
	return work, with.Check()
}

// graphKind makes nodes that run another graph, in a thread of its own. `out` is its result.
func (r *Registry) graphKind(with document.With) (document.Work, error) {
	name := with.Required("graph")
	input := with.Values("input")
	work := func(ctx context.Context, node *graph.Call, state graph.State) (any, error) {
		found, err := r.graphs.pin(ctx, pinsOf(ctx), name)
		if err != nil {
			return nil, err
		}
		given := map[string]any{}
		if input != nil {
			if given, err = input(ctx, state); err != nil {
				return nil, err
			}
		}
		if err := found.CheckInput(given); err != nil {
			return nil, fmt.Errorf("graph %s: %w", name, err)
		}
		below, err := node.Run(ctx, found.Graph, given)
		if err != nil {
			return nil, err
		}
		return found.Result(ctx, below)
	}
	return work, with.Check()
}

// pythonKind makes nodes that call a function of a Python worker, as a sub-run. `out` is
// what it returns.
func pythonKind(with document.With) (document.Work, error) {
	with.RefuseRepeats("is not for nodes that wait for a function: give it to its decorator, " +
		"@function(max_attempts=…, run_timeout=…)")
	name := with.Required("function")
	arguments := with.Values("arguments")
	work := func(ctx context.Context, node *graph.Call, state graph.State) (any, error) {
		text, err := argumentsOf(ctx, state, arguments)
		if err != nil {
			return nil, err
		}
		request, err := functionRequest(name, text)
		if err != nil {
			return nil, err
		}
		run, err := delegate(ctx, node, 0, request)
		if err != nil {
			return nil, err
		}
		output, err := outputOf(run)
		return jsonvalue.Doubles(output[functionResult]), err
	}
	return work, with.Check()
}

func argumentsOf(
	ctx context.Context, state graph.State, arguments func(context.Context, graph.State) (map[string]any, error),
) ([]byte, error) {
	if arguments == nil {
		return []byte("{}"), nil
	}
	values, err := arguments(ctx, state)
	if err != nil {
		return nil, err
	}
	return encode(values)
}

// httpKind makes nodes that call an HTTP server. `out` has the text of the answer and,
// where that is JSON, its value.
func (r *Registry) httpKind(with document.With) (document.Work, error) {
	described := tool.HTTP{Name: "http", URL: with.Required("url"), Method: with.String("method"), Headers: with.Strings("headers")}
	arguments := with.Values("arguments")
	if err := with.Check(); err != nil {
		return nil, err
	}
	made, err := r.tooling.Web.Tool("http", described)
	if wrong, named := errors.AsType[*violation.Error](err); named {
		for _, v := range wrong.Violations {
			with.Refusef(strings.TrimPrefix(v.Field, "http."), "%s", v.Description)
		}
		return nil, with.Check()
	}
	if err != nil {
		return nil, err
	}
	set, err := tool.NewSet(made)
	if err != nil {
		return nil, err
	}
	return r.callNode(func(context.Context) (*tool.Set, string, error) { return set, made.Name, nil }, arguments), nil
}

// toolKind makes nodes that call a tool of an MCP server, or of the long-term store. `out` is
// as that of http.
func (r *Registry) toolKind(with document.With) (document.Work, error) {
	server, name := with.String("server"), with.Required("tool")
	arguments := with.Values("arguments")
	if server == "" {
		return r.storeNode(with, name, arguments)
	}
	if known := r.tooling.MCP.Names(); !slices.Contains(known, server) {
		with.Refusef("server", "there is no MCP server %q; there are: %s", server, strings.Join(known, ", "))
	}
	find := func(ctx context.Context) (*tool.Set, string, error) {
		offered, err := r.tooling.MCP.Tools(ctx, server)
		if err != nil {
			return nil, "", err
		}
		for _, t := range offered {
			if t.Name == name || t.Name == server+"__"+name {
				set, err := tool.NewSet(t)
				return set, t.Name, err
			}
		}
		return nil, "", violation.New("tool", "MCP server %s has no tool %q that is allowed", server, name)
	}
	return r.callNode(find, arguments), with.Check()
}

// storeNode is the work of a node that calls a tool of the long-term store, in the namespace
// that its arguments name.
func (r *Registry) storeNode(
	with document.With, name string, arguments func(context.Context, graph.State) (map[string]any, error),
) (document.Work, error) {
	known := storeToolNames()
	switch {
	case !slices.Contains(known, name):
		with.Refusef("server", "is required, but for the tools of the store: %s", strings.Join(known, ", "))
	case r.tooling.Store == nil:
		with.Refusef("tool", "cannot be used: this runtime has no store")
	}
	if err := with.Check(); err != nil {
		return nil, err
	}
	set, err := tool.NewSet(storeTools(r.tooling.Store, nil)...)
	if err != nil {
		return nil, err
	}
	return r.callNode(func(context.Context) (*tool.Set, string, error) { return set, name, nil }, arguments), nil
}

// callNode is the work of a node that calls a tool, whose refusal fails the node, as that of
// a person does whom the tool needs. find returns a set that has the tool, and its name there.
func (r *Registry) callNode(
	find func(ctx context.Context) (*tool.Set, string, error),
	arguments func(context.Context, graph.State) (map[string]any, error),
) document.Work {
	return func(ctx context.Context, node *graph.Call, state graph.State) (any, error) {
		text, err := argumentsOf(ctx, state, arguments)
		if err != nil {
			return nil, err
		}
		set, name, err := find(ctx)
		if err != nil {
			return nil, err
		}
		found, text, refused, err := permit(set, node, model.ToolCall{Name: name, Arguments: string(text)})
		switch {
		case err != nil:
			return nil, err
		case refused != "":
			return nil, fmt.Errorf("tool %s: %s", name, refused)
		}
		if err := ledgerOf(ctx).called(ctx); err != nil {
			return nil, err
		}
		call := callOf(ctx)
		done, err := spanTool(ctx, found.Name, "", string(text), func(ctx context.Context) (tool.Result, error) {
			return r.tooling.Runner.Do(ctx, found, tool.Call{
				Namespace: call.Namespace, RunID: call.RunID, ID: call.RunID + "." + node.Task.ID, Arguments: text,
			})
		})
		if err != nil {
			return nil, err
		}
		if done.Failed {
			return nil, fmt.Errorf("tool %s: %s", found.Name, done.Text)
		}
		out := map[string]any{"text": done.Text}
		var value any
		if len(done.Structured) > 0 && jsonvalue.Decode(done.Structured, &value) == nil {
			out["json"] = jsonvalue.Doubles(value)
		}
		return out, nil
	}
}
