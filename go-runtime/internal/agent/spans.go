package agent

import (
	"context"
	"encoding/json"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
)

// spanTool makes a span of a tool's call. callID is the model's, or empty.
func spanTool(
	ctx context.Context, name, callID, arguments string, call func(ctx context.Context) (tool.Result, error),
) (tool.Result, error) {
	ctx, s := span.StartTool(ctx, name, callID)
	if json.Valid([]byte(arguments)) {
		s.Input(json.RawMessage(arguments))
	} else {
		s.Input(arguments)
	}
	done, err := call(ctx)
	switch {
	case graph.Waits(err):
		s.End(nil)
	case err != nil:
		s.End(err)
	case done.Failed:
		s.Fail("tool_failed", done.Text)
		s.End(nil)
	default:
		if len(done.Structured) > 0 {
			s.Output(json.RawMessage(done.Structured))
		} else {
			s.Output(done.Text)
		}
		s.End(nil)
	}
	return done, err
}
