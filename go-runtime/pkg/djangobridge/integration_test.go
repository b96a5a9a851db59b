package djangobridge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/gateway"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/pkg/djangobridge"
)

// get reads a path of the gateway.
func get(t *testing.T, rt *djangobridge.Integration, path string) (code int, body []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(testContext(t), http.MethodGet, "http://"+rt.HTTPAddr()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, body
}

func readiness(t *testing.T, rt *djangobridge.Integration) (int, gateway.Readiness) {
	t.Helper()
	code, body := get(t, rt, "/readyz")
	var r gateway.Readiness
	if err := json.Unmarshal(body, &r); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return code, r
}

func TestGatewayShowsHealthAndMetrics(t *testing.T) {
	t.Parallel()
	sys := start(t)
	if _, err := sys.agents.CreateRun(testContext(t), &agentruntimev1.CreateRunRequest{TaskType: "example_task", Wait: true}); err != nil {
		t.Fatal(err)
	}
	if code, _ := get(t, sys.Integration, "/healthz"); code != http.StatusOK {
		t.Errorf("/healthz = %d", code)
	}
	if code, r := readiness(t, sys.Integration); code != http.StatusOK || !r.Ready || len(r.Reasons) != 0 || len(r.Warnings) != 0 {
		t.Errorf("/readyz = %d %+v", code, r)
	}
	_, body := get(t, sys.Integration, "/metrics")
	for _, line := range []string{
		`agent_runtime_rpcs_total{code="OK",method="/agentruntime.v1.AgentService/CreateRun"} 1`,
		`agent_runtime_runs{state="succeeded"} 1`,
		`agent_runtime_queued_runs 0`,
		`agent_runtime_journal_lost_records 0`,
		`agent_runtime_journal_appends_total `,
		`agent_runtime_journal_syncs_total `,
		`version="1.2.3"`,
		"go_goroutines", "process_resident_memory_bytes",
	} {
		if !strings.Contains(string(body), line) {
			t.Errorf("/metrics lacks %s", line)
		}
	}
}

func TestASecondRuntimeOnTheSameFolderIsRefused(t *testing.T) {
	t.Parallel()
	cfg := load(t)
	first := assemble(t, cfg)
	if err := first.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	// The ports are taken as well; the folder is what the error is about.
	cfg.Listen, cfg.HTTP = first.Addr(), first.HTTPAddr()
	err := assemble(t, cfg).Start(testContext(t))
	locked, found := errors.AsType[*journal.LockedError](err)
	if !found || !strings.Contains(locked.Error(), cfg.DataDir) || !strings.Contains(locked.Error(), "process") {
		t.Errorf("err = %v, want who uses which folder", err)
	}
}

func TestTakenAddressesAreNamed(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(testContext(t), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	for _, flag := range []string{"listen", "http"} {
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			err := assemble(t, load(t, "--"+flag+"="+taken.Addr().String())).Start(testContext(t))
			if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
				t.Errorf("err = %v, want the address", err)
			}
		})
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "below", "s")
	sys := start(t, "--socket="+path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v; want mode 0600", info.Mode(), err)
	}
	local := connect(t, sys.Integration, "unix:"+path)
	if _, err := local.agents.GetServerInfo(testContext(t), &agentruntimev1.GetServerInfoRequest{}); err != nil {
		t.Error(err)
	}
	if err := assemble(t, load(t, "--socket="+path)).Start(testContext(t)); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a socket in use: err = %v", err)
	}
}

func TestTheSocketOfADeadProcessIsReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	sys := start(t, "--socket="+path)
	local := connect(t, sys.Integration, "unix:"+path)
	if _, err := local.agents.GetServerInfo(testContext(t), &agentruntimev1.GetServerInfoRequest{}); err != nil {
		t.Error(err)
	}
}

func TestAFileThatIsNoSocketIsLeftAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notes")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := assemble(t, load(t, "--socket="+path)).Start(testContext(t)); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("err = %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
		t.Errorf("the file is now %q, %v", text, err)
	}
}

func TestStopEndsStreamsAndTellsHealth(t *testing.T) {
	t.Parallel()
	sys := start(t)
	sub := subscribe(testContext(t), t, sys)
	sub.add("all", "*")
	sub.nextAdded("all")
	last := publish(t, sys, "a", "b")[1].GetSequence()
	var seen uint64
	for seen < last {
		seen = sub.next().GetBatch().GetSequence()
	}
	health, err := healthv1.NewHealthClient(sys.conn).Watch(testContext(t), &healthv1.HealthCheckRequest{Service: "agentruntime.v1.EventService"})
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := health.Recv(); err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Fatalf("health = %v, %v", answer, err)
	}

	stopped := make(chan error, 1)
	go func() { stopped <- sys.Stop(testContext(t)) }()
	if answer, err := health.Recv(); err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health = %v, %v", answer, err)
	}
	for {
		frame, err := sub.stream.Recv()
		if err == nil && len(frame.GetBatch().GetEvents()) == 0 {
			continue
		}
		refused(t, err, codes.Unavailable, "UNAVAILABLE")
		break
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := sys.Stop(context.Background()); err != nil {
		t.Errorf("second stop: %v", err)
	}
}

func TestConnectionsThatSayNothingHoldUpNoStop(t *testing.T) {
	t.Parallel()
	sys := start(t)
	for _, sent := range []string{"", "PRI * HT"} {
		conn, err := new(net.Dialer).DialContext(testContext(t), "tcp", sys.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, sent); err != nil {
			t.Fatal(err)
		}
	}
	stopsSoon(t, sys)
}

// stopsSoon checks that nobody who has connected and says nothing holds up a stop.
func stopsSoon(t *testing.T, sys *system) {
	t.Helper()
	// A call that is answered shows that what came before it was accepted.
	if _, err := sys.agents.GetServerInfo(testContext(t), &agentruntimev1.GetServerInfoRequest{}); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := sys.Stop(testContext(t)); err != nil {
		t.Error(err)
	}
	// What gRPC itself would wait for began when they connected.
	if took := time.Since(begun); took >= djangobridge.HandshakeTimeout/2 {
		t.Errorf("the stop took %s", took)
	}
}

func TestWorkerThatSaysNothingHoldsUpNoStop(t *testing.T) {
	t.Parallel()
	sys := start(t)
	stream, err := agentruntimev1.NewWorkerServiceClient(sys.conn).Work(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	stopsSoon(t, sys)
	_, err = stream.Recv()
	refused(t, err, codes.Unavailable, "UNAVAILABLE")
}

func TestStopWaitsForAReaderOnlyAsLongAsItMay(t *testing.T) {
	t.Parallel()
	sys := start(t, "--send-timeout=1h")
	value := append(append([]byte{'"'}, bytes.Repeat([]byte{'x'}, 1<<19)...), '"')
	for key := range 32 {
		request := &agentruntimev1.SetStateRequest{Key: strconv.Itoa(key), Value: value}
		if _, err := sys.state.SetState(testContext(t), request); err != nil {
			t.Fatal(err)
		}
	}
	// One frame is read, so that the stream is open; the rest fills every buffer between.
	watch, err := sys.state.WatchState(testContext(t), &agentruntimev1.WatchStateRequest{IncludeCurrent: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(testContext(t))
	stopped := make(chan error, 1)
	go func() { stopped <- sys.Stop(ctx) }()
	health := healthv1.NewHealthClient(sys.conn)
	for code, r := readiness(t, sys.Integration); ; code, r = readiness(t, sys.Integration) {
		if code == http.StatusServiceUnavailable && !r.Ready && len(r.Reasons) == 1 {
			break
		}
	}
	// That calls are refused comes a moment later.
	for err = nil; err == nil; {
		_, err = health.Check(ctx, &healthv1.HealthCheckRequest{})
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a draining runtime takes new calls: %v", err)
	}
	cancel()
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestARestartKeepsWhatWasAccepted(t *testing.T) {
	t.Parallel()
	cfg := load(t)
	first := assemble(t, cfg)
	if err := first.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	before := connect(t, first, first.Addr())
	if _, err := before.state.SetState(testContext(t), &agentruntimev1.SetStateRequest{Key: "k", Value: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	created, err := before.agents.CreateRun(testContext(t), &agentruntimev1.CreateRunRequest{TaskType: "example_task", Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	published := publish(t, before, "a")
	if err := first.Stop(testContext(t)); err != nil {
		t.Fatal(err)
	}

	second := assemble(t, cfg)
	if err := second.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	after := connect(t, second, second.Addr())
	if got, err := after.state.GetState(testContext(t), &agentruntimev1.GetStateRequest{Key: "k"}); err != nil || string(got.GetEntry().GetValue()) != "1" {
		t.Errorf("state: %v, %v", got, err)
	}
	id := created.GetRun().GetRunId()
	if got, err := after.agents.GetRun(testContext(t), &agentruntimev1.GetRunRequest{RunId: id}); err != nil || string(got.GetRun().GetOutput()) != string(created.GetRun().GetOutput()) {
		t.Errorf("run: %v, %v", got, err)
	}
	sub := subscribe(testContext(t), t, after)
	sub.request(&agentruntimev1.SubscribeRequest{Request: &agentruntimev1.SubscribeRequest_Add{Add: &agentruntimev1.AddSubscription{
		SubscriptionId: "s", Types: []string{"*"}, Start: &agentruntimev1.AddSubscription_FromBeginning{FromBeginning: true},
	}}})
	sub.nextAdded("s")
	if events := sub.events("s", 1); events[0].GetEventId() != published[0].GetEventId() {
		t.Errorf("events = %v", events)
	}
}

func TestStopBeforeStart(t *testing.T) {
	t.Parallel()
	if err := assemble(t, load(t)).Stop(testContext(t)); err != nil {
		t.Error(err)
	}
}
