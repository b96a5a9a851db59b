package djangobridge

import (
	"crypto/tls"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/telemetry"
)

// Connection settings. The keepalive of clients may be as short as
// minClientPing, with no call under way.
const (
	minClientPing        = 10 * time.Second
	serverPing           = 60 * time.Second
	serverPingTimeout    = 20 * time.Second
	maxConnectionAge     = time.Hour
	connectionAgeGrace   = 5 * time.Minute
	handshakeTimeout     = 10 * time.Second
	maxConcurrentStreams = 1000
)

// newServer returns a gRPC server with health and reflection, and no service yet.
func newServer(e *edge, tlsConfig *tls.Config, maxMessageBytes int, tracing *telemetry.Tracing) (*grpc.Server, *health.Server) {
	options := []grpc.ServerOption{
		grpc.UnaryInterceptor(e.unary),
		grpc.StreamInterceptor(e.stream),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxSendMsgSize(maxMessageBytes),
		grpc.MaxConcurrentStreams(maxConcurrentStreams),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minClientPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time:                  serverPing,
			Timeout:               serverPingTimeout,
			MaxConnectionAge:      maxConnectionAge,
			MaxConnectionAgeGrace: connectionAgeGrace,
		}),
	}
	if tlsConfig != nil {
		options = append(options, grpc.Creds(newByNetwork(credentials.NewTLS(tlsConfig))))
	}
	if tracing.Enabled() {
		options = append(options, grpc.StatsHandler(newCallTracing(tracing)))
	}
	server := grpc.NewServer(options...)
	checks := health.NewServer()
	healthv1.RegisterHealthServer(server, checks)
	reflection.RegisterV1(server)
	return server, checks
}

// serviceNames are the services whose health is told one by one; "" is the whole runtime.
func serviceNames() []string {
	return []string{
		"",
		agentruntimev1.AgentService_ServiceDesc.ServiceName,
		agentruntimev1.StateService_ServiceDesc.ServiceName,
		agentruntimev1.EventService_ServiceDesc.ServiceName,
		agentruntimev1.WorkerService_ServiceDesc.ServiceName,
		agentruntimev1.DefinitionService_ServiceDesc.ServiceName,
		agentruntimev1.ThreadService_ServiceDesc.ServiceName,
		agentruntimev1.WorkspaceService_ServiceDesc.ServiceName,
	}
}
