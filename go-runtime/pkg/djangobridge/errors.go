package djangobridge

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

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

// errorDomain is the ErrorInfo domain of every reason of this API.
const errorDomain = "agentruntime"

var (
	// errUnauthenticated: the call carries no token, or one that is not known.
	errUnauthenticated = errors.New("a valid token is required")
	// errDraining ends streams and calls when the runtime stops.
	errDraining = errors.New("the runtime is stopping")
	// errSlowReader ends a stream whose reader took nothing for the send timeout.
	errSlowReader = errors.New("the reader did not keep up; resume after the last sequence received")
	// errTooManyWatches refuses a watch of a WatchRuns stream.
	errTooManyWatches = fmt.Errorf("a stream has at most %d watches", maxWatches)
)

// permissionError refuses what the caller's token does not cover.
type permissionError struct {
	Namespace string
	Access    token.Access
}

func (e *permissionError) Error() string {
	return fmt.Sprintf("the token does not allow to %s in namespace %s", e.Access, e.Namespace)
}

// rateError refuses a call above the token's rate.
type rateError struct{ Wait time.Duration }

func (e *rateError) Error() string { return "the token's rate limit is reached" }

// panicError is what a handler's panic becomes.
type panicError struct {
	Value any
	Stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.Value, e.Stack) }

// refusal is an error as callers see it.
type refusal struct {
	code codes.Code
	// reason is the name of an ErrorReason without its prefix; empty for what
	// ends a call without a refusal: its deadline or its caller.
	reason     string
	message    string
	metadata   map[string]string
	violations []violation.Violation
	retryAfter time.Duration
}

// codeOK is the code of a call that was answered.
const codeOK = "OK"

// unforeseen reports whether the error is one that describe does not know.
func (r refusal) unforeseen() bool { return r.code == codes.Internal }

// level is that of the refusal's log line: errors for somebody to look at,
// warnings where access was refused, and the everyday only on request.
func (r refusal) level() slog.Level {
	switch r.code {
	case codes.Internal:
		return slog.LevelError
	case codes.Unauthenticated, codes.PermissionDenied:
		return slog.LevelWarn
	case codes.ResourceExhausted:
		return slog.LevelInfo
	default:
		return slog.LevelDebug
	}
}

// reasonOf returns the name of an ErrorReason without its prefix.
func reasonOf(r agentruntimev1.ErrorReason) string {
	return strings.TrimPrefix(r.String(), "ERROR_REASON_")
}

// unavailableRetry is how long to wait before calling a runtime again that stops or has lost its journal.
const unavailableRetry = time.Second

// concurrencyRetry is how long to wait before asking again for a concurrency key that is taken.
const concurrencyRetry = time.Second

// fullRetry is how long to wait before writing again to a store that is full: somebody has to make room.
const fullRetry = 5 * time.Second

// describe says how an error looks from outside. What it does not know becomes
// INTERNAL with a fixed text: the cause is for the log.
func describe(err error) refusal {
	for _, known := range []func(error) (refusal, bool){
		describeRequest, describeAccess, describeRun, describeDefinition, describeThread, describeState, describeFiles,
		describeJournal, describeEnd,
	} {
		if r, found := known(err); found {
			return r.inBatch(err)
		}
	}
	return refusal{
		code:    codes.Internal,
		reason:  reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_INTERNAL),
		message: "internal error; the runtime's log has the cause under the request id",
	}
}

// inBatch says which request of a batch the refusal is about, if it is about one.
func (r refusal) inBatch(err error) refusal {
	if e, found := errors.AsType[*engine.RequestError](err); found {
		r.message = fmt.Sprintf("requests[%d]: %s", e.Place, r.message)
		r.metadata = maps.Clone(r.metadata)
		if r.metadata == nil {
			r.metadata = map[string]string{}
		}
		r.metadata["request"] = strconv.Itoa(e.Place)
	}
	return r
}

// maxViolations is how many mistakes a refusal names: it travels in headers, which are small.
const maxViolations = 20

func describeRequest(err error) (refusal, bool) {
	if e, found := errors.AsType[*violation.Error](err); found {
		named, more := e, ""
		if left := len(e.Violations) - maxViolations; left > 0 {
			named, more = &violation.Error{Violations: e.Violations[:maxViolations]}, fmt.Sprintf("; and %d more", left)
		}
		r := refusal{
			code:       codes.InvalidArgument,
			reason:     reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_INVALID_ARGUMENT),
			message:    named.Error() + more,
			violations: named.Violations,
		}
		if len(named.Violations) > 0 {
			r.metadata = map[string]string{"field": named.Violations[0].Field}
		}
		return r, true
	}
	if e, found := errors.AsType[*violation.TooLargeError](err); found {
		return refusal{
			code:    codes.ResourceExhausted,
			reason:  reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_TOO_LARGE),
			message: e.Error(),
			metadata: map[string]string{
				"field": e.Field, "size": strconv.Itoa(e.Size), "limit": strconv.Itoa(e.Limit),
			},
		}, true
	}
	return refusal{}, false
}

func describeAccess(err error) (refusal, bool) {
	if errors.Is(err, errUnauthenticated) {
		return refusal{
			code:    codes.Unauthenticated,
			reason:  reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_UNAUTHENTICATED),
			message: errUnauthenticated.Error(),
		}, true
	}
	if e, found := errors.AsType[*permissionError](err); found {
		return refusal{
			code:     codes.PermissionDenied,
			reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_PERMISSION_DENIED),
			message:  e.Error(),
			metadata: map[string]string{"namespace": e.Namespace, "access": string(e.Access)},
		}, true
	}
	if e, found := errors.AsType[*rateError](err); found {
		return refusal{
			code:       codes.ResourceExhausted,
			reason:     reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_RATE_LIMITED),
			message:    e.Error(),
			retryAfter: e.Wait,
		}, true
	}
	return refusal{}, false
}

func describeRun(err error) (refusal, bool) {
	if e, found := errors.AsType[*engine.ConflictError](err); found {
		return refusal{
			code:     codes.AlreadyExists,
			reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_IDEMPOTENCY_CONFLICT),
			message:  e.Error(),
			metadata: map[string]string{"run_id": e.RunID},
		}, true
	}
	if e, found := errors.AsType[*engine.EndedError](err); found {
		return refusal{
			code:     codes.FailedPrecondition,
			reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_RUN_ENDED),
			message:  e.Error(),
			metadata: map[string]string{"run_id": e.RunID, "state": string(e.State)},
		}, true
	}
	if e, found := errors.AsType[*engine.QueueFullError](err); found {
		return refusal{
			code:       codes.ResourceExhausted,
			reason:     reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_QUEUE_FULL),
			message:    e.Error(),
			retryAfter: e.RetryAfter,
		}, true
	}
	if errors.Is(err, errTooManyWatches) {
		return refusal{
			code:       codes.ResourceExhausted,
			reason:     reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_QUEUE_FULL),
			message:    errTooManyWatches.Error(),
			retryAfter: unavailableRetry,
		}, true
	}
	if r, found := describeRunState(err); found {
		return r, true
	}
	if e, found := errors.AsType[*agent.UnknownAgentError](err); found {
		return refusal{
			code:     codes.NotFound,
			reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_AGENT_NOT_FOUND),
			message:  e.Error(),
			metadata: map[string]string{"agent_id": e.AgentID, "known": strings.Join(e.Known, ",")},
		}, true
	}
	if e, found := errors.AsType[*agent.UnknownTaskTypeError](err); found {
		return refusal{
			code:     codes.NotFound,
			reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_TASK_TYPE_NOT_FOUND),
			message:  e.Error(),
			metadata: map[string]string{"task_type": e.TaskType, "known": strings.Join(e.Known, ",")},
		}, true
	}
	if e, found := errors.AsType[*agent.UnknownGraphError](err); found {
		return refusal{
			code:     codes.NotFound,
			reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_GRAPH_NOT_FOUND),
			message:  e.Error(),
			metadata: map[string]string{"graph_id": e.GraphID, "known": strings.Join(e.Known, ",")},
		}, true
	}
	if e, found := errors.AsType[*engine.RunNotFoundError](err); found {
		return refusal{
			code:     codes.NotFound,
			reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_RUN_NOT_FOUND),
			message:  e.Error(),
			metadata: map[string]string{"run_id": e.RunID},
		}, true
	}
	return refusal{}, false
}

// describeRunState says what does not fit the state a run is in.
func describeRunState(err error) (refusal, bool) {
	if e, found := errors.AsType[*engine.ConcurrencyLimitError](err); found {
		return refusal{
			code:       codes.ResourceExhausted,
			reason:     reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_CONCURRENCY_LIMIT),
			message:    e.Error(),
			metadata:   map[string]string{"concurrency_key": e.Key},
			retryAfter: concurrencyRetry,
		}, true
	}
	if e, found := errors.AsType[*engine.NotWaitingError](err); found {
		return refusal{
			code:     codes.FailedPrecondition,
			reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_RUN_NOT_WAITING),
			message:  e.Error(),
			metadata: map[string]string{"run_id": e.RunID, "state": string(e.State)},
		}, true
	}
	if e, found := errors.AsType[*engine.NotEndedError](err); found {
		return refusal{
			code:     codes.FailedPrecondition,
			reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_RUN_NOT_ENDED),
			message:  e.Error(),
			metadata: map[string]string{"run_id": e.RunID, "state": string(e.State)},
		}, true
	}
	if e, found := errors.AsType[*schedule.NotFoundError](err); found {
		return refusal{
			code:     codes.NotFound,
			reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_SCHEDULE_NOT_FOUND),
			message:  e.Error(),
			metadata: map[string]string{"schedule_id": e.ID},
		}, true
	}
	if e, found := errors.AsType[*schedule.ExistsError](err); found {
		return refusal{
			code:     codes.AlreadyExists,
			reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_SCHEDULE_EXISTS),
			message:  e.Error(),
			metadata: map[string]string{"schedule_id": e.ID},
		}, true
	}
	if errors.Is(err, engine.ErrLeaseLost) {
		return refusal{
			code:    codes.Aborted,
			reason:  reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_LEASE_LOST),
			message: engine.ErrLeaseLost.Error(),
		}, true
	}
	if errors.Is(err, engine.ErrReplaced) {
		return refusal{
			code:    codes.Aborted,
			reason:  reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_LEASE_LOST),
			message: engine.ErrReplaced.Error(),
		}, true
	}
	return refusal{}, false
}

func describeDefinition(err error) (refusal, bool) {
	if e, found := errors.AsType[*definition.NotFoundError](err); found {
		r := refusal{
			code:     codes.NotFound,
			reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_GRAPH_NOT_FOUND),
			message:  e.Error(),
			metadata: map[string]string{"graph_id": e.Name, "version": e.Version},
		}
		if e.Kind == definition.Agent {
			r.reason = reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_AGENT_NOT_FOUND)
			r.metadata = map[string]string{"agent_id": e.Name, "version": e.Version}
		}
		return r, true
	}
	if e, found := errors.AsType[*definition.LimitError](err); found {
		return refusal{
			code:     codes.ResourceExhausted,
			reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_DEFINITIONS_FULL),
			message:  e.Error(),
			metadata: map[string]string{"limit": strconv.Itoa(e.Limit)},
		}, true
	}
	return refusal{}, false
}

func describeThread(err error) (refusal, bool) {
	if e, found := errors.AsType[*agent.UnknownThreadError](err); found {
		return refusal{
			code:     codes.NotFound,
			reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_THREAD_NOT_FOUND),
			message:  e.Error(),
			metadata: map[string]string{"thread_id": e.ThreadID},
		}, true
	}
	if e, found := errors.AsType[*agent.ThreadBusyError](err); found {
		return refusal{
			code:     codes.Aborted,
			reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_THREAD_BUSY),
			message:  e.Error(),
			metadata: map[string]string{"thread_id": e.ThreadID},
		}, true
	}
	return refusal{}, false
}

func describeState(err error) (refusal, bool) {
	e, found := errors.AsType[*state.RevisionError](err)
	if !found {
		return refusal{}, false
	}
	r := refusal{
		code:     codes.Aborted,
		reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_REVISION_MISMATCH),
		message:  e.Error(),
		metadata: map[string]string{"key": e.Key, "revision": strconv.FormatUint(e.Revision, 10)},
	}
	if e.CreateOnly {
		r.code = codes.AlreadyExists
		r.reason = reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_KEY_EXISTS)
	}
	return r, true
}

func describeFiles(err error) (refusal, bool) {
	if e, found := errors.AsType[*workspace.NotFoundError](err); found {
		return refusal{
			code:     codes.NotFound,
			reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_FILE_NOT_FOUND),
			message:  e.Error(),
			metadata: map[string]string{"run_id": e.RunID, "path": e.Path},
		}, true
	}
	if errors.Is(err, workspace.ErrDamaged) {
		return refusal{
			code:    codes.DataLoss,
			reason:  reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_FILES_DAMAGED),
			message: "files of the run were lost with a damaged disk",
		}, true
	}
	return refusal{}, false
}

func describeJournal(err error) (refusal, bool) {
	if e, found := errors.AsType[*journal.TruncatedError](err); found {
		return refusal{
			code:     codes.OutOfRange,
			reason:   reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_EVENTS_TRUNCATED),
			message:  fmt.Sprintf("what was asked for is gone; the oldest that is kept is %d", e.Oldest),
			metadata: map[string]string{"oldest_sequence": strconv.FormatUint(e.Oldest, 10)},
		}, true
	}
	switch {
	case errors.Is(err, journal.ErrNoSpace):
		return refusal{
			code:       codes.ResourceExhausted,
			reason:     reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_STORAGE_FULL),
			message:    "there is no room for new writes; reads and deletions go on",
			retryAfter: fullRetry,
		}, true
	case errors.Is(err, journal.ErrTooLarge):
		return refusal{
			code:    codes.ResourceExhausted,
			reason:  reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_TOO_LARGE),
			message: "the record is larger than the journal takes",
		}, true
	case errors.Is(err, journal.ErrUnavailable):
		return refusal{
			code:       codes.Unavailable,
			reason:     reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_UNAVAILABLE),
			message:    "the journal does not answer",
			retryAfter: unavailableRetry,
		}, true
	}
	return refusal{}, false
}

// describeEnd knows what ends a call from outside. It is asked last: an error
// that says more may wrap the end of a context.
func describeEnd(err error) (refusal, bool) {
	switch {
	case errors.Is(err, errDraining), errors.Is(err, engine.ErrStopped):
		return refusal{
			code:       codes.Unavailable,
			reason:     reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_UNAVAILABLE),
			message:    errDraining.Error(),
			retryAfter: unavailableRetry,
		}, true
	case errors.Is(err, errSlowReader):
		return refusal{
			code:    codes.ResourceExhausted,
			reason:  reasonOf(agentruntimev1.ErrorReason_ERROR_REASON_SLOW_READER),
			message: errSlowReader.Error(),
		}, true
	case errors.Is(err, context.DeadlineExceeded):
		return refusal{code: codes.DeadlineExceeded, message: "the call's deadline passed"}, true
	case errors.Is(err, context.Canceled):
		return refusal{code: codes.Canceled, message: "the caller went away"}, true
	}
	return refusal{}, false
}

// sendError returns what a failed send on a stream means: as a rule that the
// caller is gone.
func sendError(err error) error {
	switch status.Code(err) {
	case codes.Canceled, codes.Unavailable, codes.DeadlineExceeded:
		return context.Canceled
	default:
		return err
	}
}

// fromGRPC reports whether an error is one of gRPC's own.
func fromGRPC(err error) bool {
	_, own := status.FromError(err)
	return own
}

// maxStatusBytes is what a refusal may take as headers, of which clients take 8 KiB.
const maxStatusBytes = 7000

// status puts the refusal on the wire. Texts may quote what was asked for, whatever
// its length: they are cut until a client takes them.
func (r refusal) status() *status.Status {
	const longest = 2000
	for most := longest; ; most /= 2 {
		s := r.shortStatus(most)
		// The text is sent percent-encoded, and once more in the details, as base64.
		size := len(url.PathEscape(s.Message())) + base64.StdEncoding.EncodedLen(proto.Size(s.Proto()))
		if size <= maxStatusBytes || most == 0 {
			return s
		}
	}
}

// shortStatus is the status with texts of so many bytes. One whose details cannot be
// packed is sent without them.
func (r refusal) shortStatus(most int) *status.Status {
	plain := status.New(r.code, violation.Clip(r.message, most))
	var details []protoadapt.MessageV1
	if r.reason != "" {
		info := &errdetails.ErrorInfo{Reason: r.reason, Domain: errorDomain, Metadata: map[string]string{}}
		for name, value := range r.metadata {
			info.Metadata[name] = violation.Clip(value, most)
		}
		details = append(details, info)
	}
	if len(r.violations) > 0 {
		bad := &errdetails.BadRequest{}
		for _, v := range r.violations {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: violation.Clip(v.Field, most), Description: violation.Clip(v.Description, most),
			})
		}
		details = append(details, bad)
	}
	if r.retryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(r.retryAfter)})
	}
	detailed, err := plain.WithDetails(details...)
	if err != nil {
		return plain
	}
	return detailed
}

// passes reports whether what an error says is likely to be over after a while.
func passes(err error) bool {
	if err == nil {
		return false
	}
	switch describe(err).code {
	case codes.Internal, codes.Unavailable, codes.DeadlineExceeded:
		return true
	default:
		return errors.As(err, new(*rateError))
	}
}
