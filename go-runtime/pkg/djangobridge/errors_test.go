package djangobridge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/agent"
	"github.com/djangobridge/djangobridge/go-runtime/internal/definition"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/schedule"
	"github.com/djangobridge/djangobridge/go-runtime/internal/state"
	"github.com/djangobridge/djangobridge/go-runtime/internal/token"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
	"github.com/djangobridge/djangobridge/go-runtime/internal/workspace"
)

// firstRunReason is where the reasons begin that no status carries.
const firstRunReason = agentruntimev1.ErrorReason_ERROR_REASON_AGENT_FAILED

func TestDescribeKnowsEveryReason(t *testing.T) {
	t.Parallel()
	tests := []struct {
		err      error
		code     codes.Code
		reason   string
		metadata map[string]string
		retry    bool
	}{
		{err: errors.New("secret detail"), code: codes.Internal, reason: "INTERNAL"},
		{err: &panicError{Value: "secret detail"}, code: codes.Internal, reason: "INTERNAL"},
		{
			err: violation.New("input.label", "is required"), code: codes.InvalidArgument, reason: "INVALID_ARGUMENT",
			metadata: map[string]string{"field": "input.label"},
		},
		{
			err: &violation.TooLargeError{Field: "value", Size: 11, Limit: 10}, code: codes.ResourceExhausted, reason: "TOO_LARGE",
			metadata: map[string]string{"field": "value", "size": "11", "limit": "10"},
		},
		{err: journal.ErrTooLarge, code: codes.ResourceExhausted, reason: "TOO_LARGE"},
		{err: errUnauthenticated, code: codes.Unauthenticated, reason: "UNAUTHENTICATED"},
		{
			err: &permissionError{Namespace: "shop", Access: token.Write}, code: codes.PermissionDenied, reason: "PERMISSION_DENIED",
			metadata: map[string]string{"namespace": "shop", "access": "write"},
		},
		{err: &rateError{Wait: time.Second}, code: codes.ResourceExhausted, reason: "RATE_LIMITED", retry: true},
		{err: errSlowReader, code: codes.ResourceExhausted, reason: "SLOW_READER"},
		{err: &engine.QueueFullError{Limit: 1, RetryAfter: time.Second}, code: codes.ResourceExhausted, reason: "QUEUE_FULL", retry: true},
		{err: journal.ErrNoSpace, code: codes.ResourceExhausted, reason: "STORAGE_FULL", retry: true},
		{err: journal.ErrUnavailable, code: codes.Unavailable, reason: "UNAVAILABLE", retry: true},
		{err: engine.ErrStopped, code: codes.Unavailable, reason: "UNAVAILABLE", retry: true},
		{err: errDraining, code: codes.Unavailable, reason: "UNAVAILABLE", retry: true},
		{
			err: &state.RevisionError{Key: "k", Revision: 7}, code: codes.Aborted, reason: "REVISION_MISMATCH",
			metadata: map[string]string{"key": "k", "revision": "7"},
		},
		{
			err: &state.RevisionError{Key: "k", Revision: 7, CreateOnly: true}, code: codes.AlreadyExists, reason: "KEY_EXISTS",
			metadata: map[string]string{"key": "k", "revision": "7"},
		},
		{
			err: &engine.ConflictError{RunID: "r"}, code: codes.AlreadyExists, reason: "IDEMPOTENCY_CONFLICT",
			metadata: map[string]string{"run_id": "r"},
		},
		{
			err: &engine.RunNotFoundError{RunID: "r"}, code: codes.NotFound, reason: "RUN_NOT_FOUND",
			metadata: map[string]string{"run_id": "r"},
		},
		{
			err:  &engine.RequestError{Place: 7, Err: &engine.ConflictError{RunID: "r"}},
			code: codes.AlreadyExists, reason: "IDEMPOTENCY_CONFLICT",
			metadata: map[string]string{"run_id": "r", "request": "7"},
		},
		{
			err: &agent.UnknownAgentError{AgentID: "x", Known: []string{"a", "b"}}, code: codes.NotFound, reason: "AGENT_NOT_FOUND",
			metadata: map[string]string{"agent_id": "x", "known": "a,b"},
		},
		{
			err: &agent.UnknownGraphError{GraphID: "x", Known: []string{"a", "b"}}, code: codes.NotFound, reason: "GRAPH_NOT_FOUND",
			metadata: map[string]string{"graph_id": "x", "known": "a,b"},
		},
		{
			err: &definition.NotFoundError{Kind: definition.Graph, Name: "x", Version: "v"}, code: codes.NotFound, reason: "GRAPH_NOT_FOUND",
			metadata: map[string]string{"graph_id": "x", "version": "v"},
		},
		{
			err: &definition.NotFoundError{Kind: definition.Agent, Name: "x", Version: "v"}, code: codes.NotFound, reason: "AGENT_NOT_FOUND",
			metadata: map[string]string{"agent_id": "x", "version": "v"},
		},
		{
			err: &workspace.NotFoundError{RunID: "r", Path: "a/b"}, code: codes.NotFound, reason: "FILE_NOT_FOUND",
			metadata: map[string]string{"run_id": "r", "path": "a/b"},
		},
		{err: fmt.Errorf("read: %w", workspace.ErrDamaged), code: codes.DataLoss, reason: "FILES_DAMAGED"},
		{
			err: &definition.LimitError{Namespace: "x", Limit: 7}, code: codes.ResourceExhausted, reason: "DEFINITIONS_FULL",
			metadata: map[string]string{"limit": "7"},
		},
		{
			err: &agent.UnknownTaskTypeError{TaskType: "x", Known: []string{"a", "b"}}, code: codes.NotFound, reason: "TASK_TYPE_NOT_FOUND",
			metadata: map[string]string{"task_type": "x", "known": "a,b"},
		},
		{
			err: &journal.TruncatedError{Oldest: 42}, code: codes.OutOfRange, reason: "EVENTS_TRUNCATED",
			metadata: map[string]string{"oldest_sequence": "42"},
		},
		{
			err: &engine.EndedError{RunID: "r", State: engine.Failed}, code: codes.FailedPrecondition, reason: "RUN_ENDED",
			metadata: map[string]string{"run_id": "r", "state": "failed"},
		},
		{
			err: &engine.ConcurrencyLimitError{Key: "k", Limit: 1}, code: codes.ResourceExhausted, reason: "CONCURRENCY_LIMIT",
			metadata: map[string]string{"concurrency_key": "k"}, retry: true,
		},
		{
			err: &engine.NotWaitingError{RunID: "r", State: engine.Running}, code: codes.FailedPrecondition, reason: "RUN_NOT_WAITING",
			metadata: map[string]string{"run_id": "r", "state": "running"},
		},
		{
			err: &engine.NotEndedError{RunID: "r", State: engine.Running}, code: codes.FailedPrecondition, reason: "RUN_NOT_ENDED",
			metadata: map[string]string{"run_id": "r", "state": "running"},
		},
		{err: engine.ErrLeaseLost, code: codes.Aborted, reason: "LEASE_LOST"},
		{err: engine.ErrReplaced, code: codes.Aborted, reason: "LEASE_LOST"},
		{
			err: &schedule.NotFoundError{ID: "s"}, code: codes.NotFound, reason: "SCHEDULE_NOT_FOUND",
			metadata: map[string]string{"schedule_id": "s"},
		},
		{
			err: &schedule.ExistsError{ID: "s"}, code: codes.AlreadyExists, reason: "SCHEDULE_EXISTS",
			metadata: map[string]string{"schedule_id": "s"},
		},
		{
			err: &agent.UnknownThreadError{ThreadID: "t"}, code: codes.NotFound, reason: "THREAD_NOT_FOUND",
			metadata: map[string]string{"thread_id": "t"},
		},
		{
			err: &agent.ThreadBusyError{ThreadID: "t"}, code: codes.Aborted, reason: "THREAD_BUSY",
			metadata: map[string]string{"thread_id": "t"},
		},
		{
			err: &definition.LimitError{Limit: 7}, code: codes.ResourceExhausted, reason: "DEFINITIONS_FULL",
			metadata: map[string]string{"limit": "7"},
		},
	}
	seen := map[string]bool{}
	for _, test := range tests {
		seen[test.reason] = true
		t.Run(fmt.Sprintf("%T %s", test.err, test.reason), func(t *testing.T) {
			t.Parallel()
			s := describe(fmt.Errorf("while at work: %w", test.err)).status()
			if s.Code() != test.code {
				t.Errorf("code = %s, want %s", s.Code(), test.code)
			}
			if strings.Contains(s.Message(), "secret detail") || s.Message() == "" {
				t.Errorf("message = %q", s.Message())
			}
			var retry bool
			for _, detail := range s.Details() {
				switch d := detail.(type) {
				case *errdetails.ErrorInfo:
					if d.GetReason() != test.reason || d.GetDomain() != "agentruntime" || !maps.Equal(d.GetMetadata(), test.metadata) {
						t.Errorf("info = %v, want %s %v", d, test.reason, test.metadata)
					}
				case *errdetails.RetryInfo:
					retry = d.GetRetryDelay().AsDuration() > 0
				case *errdetails.BadRequest:
					if v := d.GetFieldViolations(); len(v) != 1 || v[0].GetField() != "input.label" || v[0].GetDescription() == "" {
						t.Errorf("violations = %v", v)
					}
				}
			}
			if retry != test.retry {
				t.Errorf("retry info = %t, want %t", retry, test.retry)
			}
		})
	}
	for number := range agentruntimev1.ErrorReason_name {
		reason := agentruntimev1.ErrorReason(number)
		if reason == agentruntimev1.ErrorReason_ERROR_REASON_UNSPECIFIED || reason >= firstRunReason {
			continue
		}
		if !seen[reasonOf(reason)] {
			t.Errorf("no error is described as %s", reason)
		}
	}
}

func TestDescribeTheEndOfACall(t *testing.T) {
	t.Parallel()
	for cause, want := range map[error]codes.Code{
		context.DeadlineExceeded: codes.DeadlineExceeded,
		context.Canceled:         codes.Canceled,
	} {
		if s := describe(fmt.Errorf("read: %w", cause)).status(); s.Code() != want || len(s.Details()) != 0 {
			t.Errorf("%v = %v, want %s without a reason", cause, s, want)
		}
	}
}

func TestStatusListsEveryViolation(t *testing.T) {
	t.Parallel()
	err := &violation.Error{Violations: []violation.Violation{{Field: "a", Description: "is one"}, {Field: "b", Description: "is two"}}}
	for _, detail := range describe(err).status().Details() {
		if bad, found := detail.(*errdetails.BadRequest); found && len(bad.GetFieldViolations()) == 2 {
			return
		}
	}
	t.Error("the status does not list both violations")
}

// TestStatusFitsIntoHeaders has errors that quote more than a client takes.
func TestStatusFitsIntoHeaders(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 100_000)
	bad := &violation.Error{}
	for range 1000 {
		bad.Violations = append(bad.Violations, violation.Violation{Field: long, Description: long})
	}
	for _, err := range []error{bad, &engine.RunNotFoundError{RunID: long}} {
		sent := describe(err).status()
		bytes, marshalErr := proto.Marshal(sent.Proto())
		// The text goes percent-encoded, all of it in base64.
		if size := 3*len(sent.Message()) + len(bytes)*4/3; marshalErr != nil || size > 8000 {
			t.Errorf("%T takes %d bytes of headers (%v)", err, size, marshalErr)
		}
		if !utf8.ValidString(sent.Message()) {
			t.Errorf("%T is cut within a character", err)
		}
	}
}
