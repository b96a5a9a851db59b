package agent

import (
	"context"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
)

// maxRepairs is how often an agent may mend what its checks found.
const maxRepairs = 3

type builder struct{}

func (t *turnOfLoop) buildAnswer(context.Context, *graph.Call, graph.State) (graph.Command, error) {
	return graph.Command{}, nil
}
