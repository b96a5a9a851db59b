package djangobridge_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/config"
	"github.com/djangobridge/djangobridge/go-runtime/pkg/djangobridge"
)

// unaryMethod is a method with its message types.
type unaryMethod struct {
	path              string
	request, response protoreflect.MessageType
}

func unaryMethods(tb testing.TB) []unaryMethod {
	tb.Helper()
	var methods []unaryMethod
	for _, file := range []protoreflect.FileDescriptor{
		agentruntimev1.File_agentruntime_v1_agent_service_proto,
		agentruntimev1.File_agentruntime_v1_state_service_proto,
		agentruntimev1.File_agentruntime_v1_event_service_proto,
	} {
		service := file.Services().Get(0)
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			if method.IsStreamingServer() {
				continue
			}
			request, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
			if err != nil {
				tb.Fatal(err)
			}
			response, err := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
			if err != nil {
				tb.Fatal(err)
			}
			methods = append(methods, unaryMethod{
				"/" + string(service.FullName()) + "/" + string(method.Name()), request, response,
			})
		}
	}
	return methods
}

// FuzzRequests sends whatever decodes to every unary rpc: each answers, or
// refuses with a reason, and never fails inside.
func FuzzRequests(f *testing.F) {
	flags := config.Flags("fuzz")
	if err := flags.Parse([]string{"--listen=127.0.0.1:0", "--http=off", "--durability=os", "--data-dir=" + f.TempDir()}); err != nil {
		f.Fatal(err)
	}
	cfg, err := config.Load(flags, noEnvironment)
	if err != nil {
		f.Fatal(err)
	}
	rt, err := djangobridge.New(cfg, "fuzz", noEnvironment, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	if err := rt.Start(f.Context()); err != nil {
		f.Fatal(err)
	}
	conn, err := grpc.NewClient(rt.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		_ = conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		if err := rt.Stop(ctx); err != nil {
			f.Error(err)
		}
	})

	for _, seed := range []proto.Message{
		&agentruntimev1.CreateRunRequest{TaskType: "example_task", Input: []byte("{}"), RunId: "not a uuid", Wait: true},
		&agentruntimev1.ListRunsRequest{PageSize: -5, PageToken: "\x7f", States: []agentruntimev1.RunState{77}},
		&agentruntimev1.SetStateRequest{Key: "a\x00/../\u2028*>.", Value: []byte("nul"), ExpectedRevision: proto.Uint64(1<<64 - 1)},
		&agentruntimev1.ListStateRequest{PageToken: "????", Prefix: "*"},
		&agentruntimev1.TransactStateRequest{Operations: []*agentruntimev1.StateOperation{nil, {}}},
		&agentruntimev1.PublishEventsRequest{Events: []*agentruntimev1.Event{nil, {Type: ">", Data: []byte("1")}}},
	} {
		data, err := proto.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	methods := unaryMethods(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, method := range methods {
			request := method.request.New().Interface()
			if proto.Unmarshal(data, request) != nil {
				continue
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			err := conn.Invoke(ctx, method.path, request, method.response.New().Interface())
			cancel()
			s := status.Convert(err)
			switch s.Code() {
			case codes.OK, codes.DeadlineExceeded:
			case codes.Internal, codes.Unknown, codes.Unimplemented:
				t.Fatalf("%s(%v): %v", method.path, request, err)
			default:
				if len(s.Details()) == 0 {
					t.Fatalf("%s(%v): %v has no reason", method.path, request, err)
				}
				if _, found := s.Details()[0].(*errdetails.ErrorInfo); !found {
					t.Fatalf("%s(%v): %v has no reason", method.path, request, err)
				}
			}
		}
	})
}
