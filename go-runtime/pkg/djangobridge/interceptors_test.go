package djangobridge

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
)

// fakeCall is where an interceptor puts the trailer of a unary call.
type fakeCall struct {
	grpc.ServerTransportStream

	trailer metadata.MD
}

func (c *fakeCall) SetTrailer(md metadata.MD) error {
	c.trailer = md
	return nil
}

func newEdge(t *testing.T, log *slog.Logger) *edge {
	t.Helper()
	return &edge{metrics: newMetrics("test", "os"), log: log, timeout: time.Minute, waitTimeout: time.Hour, observers: t.Context()}
}

// invoke calls a handler through the edge.
func invoke(ctx context.Context, e *edge, method string, handle grpc.UnaryHandler) (requestID string, err error) {
	c := &fakeCall{}
	_, err = e.unary(grpc.NewContextWithServerTransportStream(ctx, c), nil, &grpc.UnaryServerInfo{FullMethod: method}, handle)
	return strings.Join(c.trailer.Get(requestIDKey), ","), err
}

func TestAPanicFailsItsCallAlone(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	e := newEdge(t, slog.New(slog.NewJSONHandler(&log, nil)))
	id, err := invoke(t.Context(), e, agentruntimev1.StateService_GetState_FullMethodName, func(context.Context, any) (any, error) {
		panic("a secret detail")
	})
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret") {
		t.Errorf("err = %v", err)
	}
	if text := log.String(); id == "" || !strings.Contains(text, id) || !strings.Contains(text, "a secret detail") || !strings.Contains(text, "interceptors_test.go") {
		t.Errorf("the log lacks the request id, the cause or the stack: %s", text)
	}
}

// A caller may go between its call's arrival and the first thing said to it.
func TestACallerThatHasGoneIsNoFault(t *testing.T) {
	t.Parallel()
	e := &edge{metrics: newMetrics("test", "fsync"), log: slog.New(slog.DiscardHandler)}
	ctx, leave := context.WithCancel(t.Context())
	leave()
	gone := status.Error(codes.Internal, "transport: SendHeader called multiple times")
	if err := e.end(ctx, &call{}, gone); status.Code(err) != codes.Canceled {
		t.Errorf("err = %v, want Canceled", err)
	}
	if err := e.end(ctx, &call{}, errors.New("a fault")); status.Code(err) != codes.Internal {
		t.Errorf("err = %v, want Internal", err)
	}
}

func TestCallsWithoutADeadlineGetOne(t *testing.T) {
	t.Parallel()
	e := newEdge(t, slog.New(slog.DiscardHandler))
	own, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
	t.Cleanup(cancel)
	tests := map[string]struct {
		ctx    context.Context //nolint:containedctx // what the call comes with
		method string
		want   time.Duration
	}{
		"default":        {t.Context(), agentruntimev1.StateService_GetState_FullMethodName, e.timeout},
		"waiting":        {t.Context(), agentruntimev1.AgentService_WaitRun_FullMethodName, e.waitTimeout},
		"creating":       {t.Context(), agentruntimev1.AgentService_CreateRun_FullMethodName, e.waitTimeout},
		"the client's":   {own, agentruntimev1.StateService_GetState_FullMethodName, 10 * time.Hour},
		"health as well": {t.Context(), "/grpc.health.v1.Health/Check", e.timeout},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := invoke(test.ctx, e, test.method, func(ctx context.Context, _ any) (any, error) {
				deadline, bounded := ctx.Deadline()
				if left := time.Until(deadline); !bounded || left > test.want || left < test.want/2 {
					t.Errorf("the call has %s left, want %s", left, test.want)
				}
				return struct{}{}, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRequestIDsThatCouldForgeALogLineAreReplaced(t *testing.T) {
	t.Parallel()
	e := newEdge(t, slog.New(slog.DiscardHandler))
	for given, kept := range map[string]bool{
		"abc-123": true, strings.Repeat("x", 64): true,
		"": false, "two words": false, "line\nbreak": false, "é": false, strings.Repeat("x", 65): false,
	} {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(requestIDKey, given))
		used := ""
		told, err := invoke(ctx, e, agentruntimev1.StateService_GetState_FullMethodName, func(ctx context.Context, _ any) (any, error) {
			used = callOf(ctx).requestID
			return nil, nil
		})
		if err != nil || used == "" || (used == given) != kept {
			t.Errorf("request id %q became %q, %v", given, used, err)
		}
		if want := map[bool]string{false: used}[kept]; told != want {
			t.Errorf("for the request id %q the caller is told %q, want %q", given, told, want)
		}
	}
}

func TestMethodsThatAreNotListedNeedWriteAccess(t *testing.T) {
	t.Parallel()
	writes := map[string]bool{
		"CreateRun": true, "BatchCreateRuns": true, "CancelRun": true, "ResumeRun": true, "RetryRun": true, "Work": true,
		"CreateSchedule": true, "PauseSchedule": true, "DeleteSchedule": true, "TriggerSchedule": true,
		"SetState": true, "DeleteState": true, "TransactState": true, "PublishEvents": true,
	}
	for _, service := range []grpc.ServiceDesc{
		agentruntimev1.AgentService_ServiceDesc, agentruntimev1.StateService_ServiceDesc, agentruntimev1.EventService_ServiceDesc,
		agentruntimev1.WorkerService_ServiceDesc,
	} {
		names := []string{}
		for _, method := range service.Methods {
			names = append(names, method.MethodName)
		}
		for _, stream := range service.Streams {
			names = append(names, stream.StreamName)
		}
		for _, name := range names {
			if got := accessOf("/" + service.ServiceName + "/" + name); (got == "write") != writes[name] {
				t.Errorf("%s needs %s access", name, got)
			}
		}
	}
	if got := accessOf("/agentruntime.v1.StateService/Unheard"); got != "write" {
		t.Errorf("an unknown method needs %s access", got)
	}
}
