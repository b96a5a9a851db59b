package engine

import (
	"context"
	"encoding/json"
	"errors"

	"go.opentelemetry.io/otel/attribute"

	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
)

// traced is what spans say of a run.
func traced(run *Run) *span.Run {
	return &span.Run{
		ID: run.ID, Namespace: run.Namespace, TaskType: run.TaskType, AgentID: run.AgentID,
		Agent: run.Target != TaskTarget, Attempt: run.Attempt, Metadata: run.Metadata,
	}
}

// traceOrigin is where the run stands in a trace.
func (ent *entry) traceOrigin() span.Origin {
	ent.mu.Lock()
	defer ent.mu.Unlock()
	if ent.trace == nil {
		return span.Origin{}
	}
	return *ent.trace
}

// kept is what an entry keeps of where its run stands in a trace.
func kept(origin span.Origin) *span.Origin {
	if origin == (span.Origin{}) {
		return nil
	}
	return &origin
}

// placeInTrace puts a run that is about to be accepted into the trace of its caller, or
// of the run that it is a part of, or into a new one.
func (e *Engine) placeInTrace(ctx context.Context, first *record) {
	run := &first.Run
	var above *span.Origin
	if parent := e.index.get(run.Namespace, run.options().ParentID); parent != nil {
		origin := parent.traceOrigin()
		above = &origin
	}
	first.Trace = e.cfg.Tracer.Accept(ctx, traced(run), above)
	run.TraceID, run.TraceURL = first.Trace.TraceID(), first.Trace.TraceURL
}

// tell makes the run's own span, now that it ends or waits for an answer. payload is its
// output or its question. It is in the run's turn.
func (e *Engine) tell(ctx context.Context, ent *entry, run *Run, payload []byte) {
	told := span.Told{
		Created: run.CreatedAt, Ended: e.cfg.Now(), State: string(run.State),
		Input: func() []byte {
			// Without it the span is as good.
			input, err := e.readPayload(ctx, ent.created)
			if err != nil {
				return nil
			}
			return input
		},
		Output: func() []byte { return payload },
	}
	if run.Error != nil {
		told.Reason, told.Message = string(run.Error.Reason), run.Error.Message
	}
	e.cfg.Tracer.Tell(ent.traceOrigin(), traced(run), told)
}

// endAttempt ends the span of an attempt that the runtime executed itself.
func endAttempt(attempt *span.Span, run *Run, output []byte, failure error) {
	parked, parks := errors.AsType[*ParkedError](failure)
	switch {
	case parks:
		attempt.Output(json.RawMessage(parked.Payload))
		attempt.Set(attribute.String("agentruntime.state", string(Waiting)))
	case errors.Is(failure, ErrStopped):
		attempt.Fail(reasonGivenBack, failure.Error())
	case errors.Is(failure, errRunEnded):
		attempt.Fail(string(ReasonCancelled), failure.Error())
	case failure != nil:
		_, why := outcome(run, failure)
		attempt.Fail(string(why.Reason), why.Message)
	default:
		attempt.Output(json.RawMessage(output))
	}
	attempt.End(nil)
}
