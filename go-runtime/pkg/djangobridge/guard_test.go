package djangobridge_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/token"
	"github.com/djangobridge/djangobridge/go-runtime/pkg/djangobridge"
)

// writeTokens writes a tokens file with the secrets "writer-secret" (default and
// shop, write), "reader-secret" (every namespace, read) and "slow-secret" (one
// call, then one in 1000 seconds), and a token "by-certificate" without a secret.
func writeTokens(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	text := `tokens:
  - {name: writer, hash: ` + token.Hash("writer-secret") + `, namespaces: [default, shop], access: write}
  - {name: reader, hash: ` + token.Hash("reader-secret") + `, namespaces: ["*"], access: read}
  - {name: slow, hash: ` + token.Hash("slow-secret") + `, namespaces: [default], access: write, rate: 0.001, burst: 1}
  - {name: by-certificate, namespaces: [default], access: write}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// as returns a context whose calls carry an authorization header and a namespace.
func as(t *testing.T, authorization, namespace string) context.Context {
	t.Helper()
	ctx := in(t, namespace)
	if authorization != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", authorization)
	}
	return ctx
}

func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	sys := start(t, "--tokens-file="+writeTokens(t))
	read := func(ctx context.Context) error {
		_, err := sys.state.GetState(ctx, &agentruntimev1.GetStateRequest{Key: "k"})
		return err
	}
	write := func(ctx context.Context) error {
		_, err := sys.state.SetState(ctx, &agentruntimev1.SetStateRequest{Key: "k", Value: []byte("1")})
		return err
	}
	watch := func(ctx context.Context) error {
		stream, err := sys.state.WatchState(ctx, &agentruntimev1.WatchStateRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	tests := map[string]struct {
		authorization, namespace string
		call                     func(context.Context) error
		code                     codes.Code
		reason                   string
	}{
		"nothing":              {"", "default", read, codes.Unauthenticated, "UNAUTHENTICATED"},
		"nothing, stream":      {"", "default", watch, codes.Unauthenticated, "UNAUTHENTICATED"},
		"wrong secret":         {"Bearer nonsense", "default", read, codes.Unauthenticated, "UNAUTHENTICATED"},
		"empty secret":         {"Bearer ", "default", read, codes.Unauthenticated, "UNAUTHENTICATED"},
		"a hash as secret":     {"Bearer " + token.Hash("writer-secret"), "default", read, codes.Unauthenticated, "UNAUTHENTICATED"},
		"another scheme":       {"Basic writer-secret", "default", read, codes.Unauthenticated, "UNAUTHENTICATED"},
		"writer reads":         {"Bearer writer-secret", "default", read, codes.OK, ""},
		"writer writes":        {"Bearer writer-secret", "shop", write, codes.OK, ""},
		"writer elsewhere":     {"Bearer writer-secret", "other", read, codes.PermissionDenied, "PERMISSION_DENIED"},
		"reader anywhere":      {"Bearer reader-secret", "other", read, codes.OK, ""},
		"reader watches":       {"Bearer reader-secret", "other", watch, codes.OK, ""},
		"reader writes":        {"Bearer reader-secret", "default", write, codes.PermissionDenied, "PERMISSION_DENIED"},
		"namespace that isn't": {"Bearer reader-secret", "No Such", read, codes.InvalidArgument, "INVALID_ARGUMENT"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := test.call(as(t, test.authorization, test.namespace))
			if test.code == codes.OK {
				if err != nil {
					t.Error(err)
				}
				return
			}
			about := refused(t, err, test.code, test.reason)
			if test.code == codes.PermissionDenied && (about["namespace"] != test.namespace || about["access"] == "") {
				t.Errorf("metadata = %v", about)
			}
		})
	}
	t.Run("rate limit", func(t *testing.T) {
		t.Parallel()
		if err := read(as(t, "Bearer slow-secret", "default")); err != nil {
			t.Fatal(err)
		}
		refused(t, read(as(t, "Bearer slow-secret", "default")), codes.ResourceExhausted, "RATE_LIMITED")
	})
	t.Run("health needs no token", func(t *testing.T) {
		t.Parallel()
		answer, err := healthv1.NewHealthClient(sys.conn).Check(testContext(t), &healthv1.HealthCheckRequest{})
		if err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("health: %v, %v", answer, err)
		}
	})
}

func TestEveryRPCNeedsAToken(t *testing.T) {
	t.Parallel()
	sys := start(t, "--tokens-file="+writeTokens(t))
	for _, service := range []grpc.ServiceDesc{
		agentruntimev1.AgentService_ServiceDesc, agentruntimev1.StateService_ServiceDesc, agentruntimev1.EventService_ServiceDesc,
		agentruntimev1.DefinitionService_ServiceDesc, agentruntimev1.ThreadService_ServiceDesc,
	} {
		for _, method := range service.Methods {
			err := sys.conn.Invoke(testContext(t), "/"+service.ServiceName+"/"+method.MethodName,
				&agentruntimev1.GetServerInfoRequest{}, &agentruntimev1.GetServerInfoResponse{})
			refused(t, err, codes.Unauthenticated, "UNAUTHENTICATED")
		}
	}
}

func TestTheSocketNeedsATokenToo(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	sys := start(t, "--tokens-file="+writeTokens(t), "--socket="+socket)
	local := connect(t, sys.Integration, "unix:"+socket)
	_, err := local.state.GetState(testContext(t), &agentruntimev1.GetStateRequest{Key: "k"})
	refused(t, err, codes.Unauthenticated, "UNAUTHENTICATED")
	if _, err := local.state.GetState(as(t, "Bearer reader-secret", "default"), &agentruntimev1.GetStateRequest{Key: "k"}); err != nil {
		t.Error(err)
	}
}

func TestReloadTakesNewTokensAndKeepsTheOldOnAMistake(t *testing.T) {
	t.Parallel()
	path := writeTokens(t)
	sys := start(t, "--tokens-file="+path)
	read := func(secret string) error {
		_, err := sys.state.GetState(as(t, "Bearer "+secret, "default"), &agentruntimev1.GetStateRequest{Key: "k"})
		return err
	}
	if err := os.WriteFile(path, []byte("tokens: [{name: x}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sys.Reload(t.Context()); err == nil {
		t.Error("a tokens file with mistakes was taken")
	}
	if err := read("writer-secret"); err != nil {
		t.Errorf("the old token is gone: %v", err)
	}
	text := "tokens: [{name: fresh, hash: " + token.Hash("fresh-secret") + ", namespaces: [default], access: read}]"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sys.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := read("fresh-secret"); err != nil {
		t.Errorf("the new token is not taken: %v", err)
	}
	refused(t, read("writer-secret"), codes.Unauthenticated, "UNAUTHENTICATED")
}

func TestRefusalsAreLoggedWithoutTheSecret(t *testing.T) {
	t.Parallel()
	cfg := load(t, "--tokens-file="+writeTokens(t))
	log := &logBuffer{}
	rt, err := djangobridge.New(cfg, "1.2.3", noEnvironment, log.logger())
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, rt)
	if err := rt.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	sys := connect(t, rt, rt.Addr())
	ctx := metadata.AppendToOutgoingContext(as(t, "Bearer guessed-secret", "default"), "x-request-id", "my-call")
	var trailer metadata.MD
	_, err = sys.state.GetState(ctx, &agentruntimev1.GetStateRequest{Key: "k"}, grpc.Trailer(&trailer))
	refused(t, err, codes.Unauthenticated, "UNAUTHENTICATED")
	if got := trailer.Get("x-request-id"); len(got) != 0 {
		t.Errorf("the caller is told the request id that it gave: %v", got)
	}
	text := log.String()
	if !strings.Contains(text, "rpc ended") || !strings.Contains(text, "my-call") || strings.Contains(text, "guessed-secret") {
		t.Errorf("log = %s", text)
	}
}

// Whoever has no token cannot fill the log, nor keep those out who have one.
func TestWrongTokensDoNotFloodTheLog(t *testing.T) {
	t.Parallel()
	log := &logBuffer{}
	rt, err := djangobridge.New(load(t, "--tokens-file="+writeTokens(t)), "1.2.3", noEnvironment, log.logger())
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, rt)
	if err := rt.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	sys := connect(t, rt, rt.Addr())
	const calls = 300
	for range calls {
		_, err := sys.state.GetState(as(t, "Bearer guessed-secret", "default"), &agentruntimev1.GetStateRequest{Key: "k"})
		refused(t, err, codes.Unauthenticated, "UNAUTHENTICATED")
	}
	if _, err := sys.state.GetState(as(t, "Bearer reader-secret", "default"), &agentruntimev1.GetStateRequest{Key: "k"}); err != nil {
		t.Errorf("a right token from the same address: %v", err)
	}
	if lines := strings.Count(log.String(), `"UNAUTHENTICATED"`); lines == 0 || lines >= calls/2 {
		t.Errorf("%d calls made %d lines", calls, lines)
	}
	_, metrics := get(t, rt, "/metrics")
	if want := `agent_runtime_rpcs_total{code="Unauthenticated",method="/agentruntime.v1.StateService/GetState"} 300`; !strings.Contains(string(metrics), want) {
		t.Errorf("the metrics do not say %s", want)
	}
}

func TestMutualTLS(t *testing.T) {
	t.Parallel()
	authority := newAuthority(t)
	sys := start(t, authority.serverFlags(t, "--tokens-file="+writeTokens(t), "--listen=127.0.0.1:0")...)

	named := connect(t, sys.Integration, sys.Addr(), grpc.WithTransportCredentials(credentials.NewTLS(authority.client(t, "by-certificate"))))
	if _, err := named.state.GetState(testContext(t), &agentruntimev1.GetStateRequest{Key: "k"}); err != nil {
		t.Errorf("a certificate with the name of a token: %v", err)
	}
	unknown := connect(t, sys.Integration, sys.Addr(), grpc.WithTransportCredentials(credentials.NewTLS(authority.client(t, "nobody"))))
	_, err := unknown.state.GetState(testContext(t), &agentruntimev1.GetStateRequest{Key: "k"})
	refused(t, err, codes.Unauthenticated, "UNAUTHENTICATED")
	if _, err := unknown.state.GetState(as(t, "Bearer reader-secret", "default"), &agentruntimev1.GetStateRequest{Key: "k"}); err != nil {
		t.Errorf("a token over such a connection: %v", err)
	}

	without := authority.client(t, "nobody")
	without.Certificates = nil
	bare := connect(t, sys.Integration, sys.Addr(), grpc.WithTransportCredentials(credentials.NewTLS(without)))
	if _, err := bare.state.GetState(as(t, "Bearer reader-secret", "default"), &agentruntimev1.GetStateRequest{Key: "k"}); err == nil {
		t.Error("a client without a certificate was served")
	}
	plain := connect(t, sys.Integration, sys.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if _, err := plain.state.GetState(as(t, "Bearer reader-secret", "default"), &agentruntimev1.GetStateRequest{Key: "k"}); err == nil {
		t.Error("a client without TLS was served")
	}
}

func TestExposedMetricsNeedAToken(t *testing.T) {
	t.Parallel()
	authority := newAuthority(t)
	flags := authority.serverFlags(t, "--tokens-file="+writeTokens(t), "--http=0.0.0.0:0")
	sys := start(t, flags...)
	_, port, _ := strings.Cut(strings.TrimPrefix(sys.HTTPAddr(), "["), "]:")
	if port == "" {
		_, port, _ = strings.Cut(sys.HTTPAddr(), ":")
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: authority.client(t, "nobody"), DisableKeepAlives: true}}
	for _, test := range []struct {
		path, secret string
		want         int
	}{
		{"/readyz", "", http.StatusOK},
		{"/metrics", "", http.StatusUnauthorized},
		{"/metrics", "nonsense", http.StatusUnauthorized},
		{"/metrics", "reader-secret", http.StatusOK},
	} {
		request, err := http.NewRequestWithContext(testContext(t), http.MethodGet, "https://localhost:"+port+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if test.secret != "" {
			request.Header.Set("Authorization", "Bearer "+test.secret)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != test.want {
			t.Errorf("%s with %q = %d, want %d", test.path, test.secret, response.StatusCode, test.want)
		}
	}
}
