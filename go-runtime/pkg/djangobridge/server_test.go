package djangobridge_test

import (
	"bytes"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
)

// alive checks that the runtime still answers.
func alive(t *testing.T, sys *system) {
	t.Helper()
	if _, err := sys.agents.GetServerInfo(testContext(t), &agentruntimev1.GetServerInfoRequest{}); err != nil {
		t.Errorf("the runtime does not answer: %v", err)
	}
}

func TestBrokenConnectionsDoNotDisturb(t *testing.T) {
	t.Parallel()
	sys := start(t)
	preface := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	for name, bytesSent := range map[string][]byte{
		"garbage":                     bytes.Repeat([]byte{0xff, 0x00, 0x37}, 4096),
		"http 1":                      []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"preface and garbage":         append([]byte(preface), bytes.Repeat([]byte{0xee}, 4096)...),
		"frame of a false length":     append([]byte(preface), 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1),
		"half a preface, then silent": []byte(preface[:10]),
		"nothing at all":              nil,
	} {
		for range 20 {
			conn, err := new(net.Dialer).DialContext(testContext(t), "tcp", sys.Addr())
			if err != nil {
				t.Fatal(name, err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			// The server may have hung up already, which is its right.
			_, _ = conn.Write(bytesSent)
		}
	}
	// Those connections are all still open at this side.
	alive(t, sys)
	alive(t, connect(t, sys.Integration, sys.Addr()))
}

func TestOversizedMessagesAreRefused(t *testing.T) {
	t.Parallel()
	sys := start(t, "--max-message-bytes=2MiB")
	_, err := sys.state.SetState(testContext(t), &agentruntimev1.SetStateRequest{Key: "k", Value: make([]byte, 3<<20)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("err = %v", err)
	}
	alive(t, sys)
}

func TestUnknownMethodsAreUnimplemented(t *testing.T) {
	t.Parallel()
	sys := start(t)
	err := sys.conn.Invoke(testContext(t), "/agentruntime.v1.AgentService/Nonsense", &agentruntimev1.GetRunRequest{}, &agentruntimev1.GetRunResponse{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("err = %v", err)
	}
}

func TestReflectionListsTheServices(t *testing.T) {
	t.Parallel()
	sys := start(t)
	stream, err := reflectionv1.NewServerReflectionClient(sys.conn).ServerReflectionInfo(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, service := range answer.GetListServicesResponse().GetService() {
		found[service.GetName()] = true
	}
	for _, service := range []grpc.ServiceDesc{
		agentruntimev1.AgentService_ServiceDesc, agentruntimev1.StateService_ServiceDesc, agentruntimev1.EventService_ServiceDesc,
	} {
		if !found[service.ServiceName] {
			t.Errorf("reflection lacks %s", service.ServiceName)
		}
	}
}
