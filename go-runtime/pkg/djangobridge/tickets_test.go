package djangobridge_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/durationpb"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/pkg/djangobridge"
)

// agentAtHand is a worker that a test speaks for: it holds one run.
type agentAtHand struct {
	t      *testing.T
	stream agentruntimev1.WorkerService_WorkClient
	runID  string
	lease  uint64
	number uint64
}

// takeRun creates a run of agent "a" and a worker that has been given it.
func takeRun(t *testing.T, sys *system) *agentAtHand {
	t.Helper()
	stream, err := agentruntimev1.NewWorkerServiceClient(sys.conn).Work(crowdContext(t))
	if err != nil {
		t.Fatal(err)
	}
	a := &agentAtHand{t: t, stream: stream}
	a.send(&agentruntimev1.WorkRequest{Hello: &agentruntimev1.Hello{
		WorkerId: "3d6f0a52-5e7b-4a0e-9a71-0d8b8f0d3c11", Name: "test", Concurrency: 1, LeaseTtl: durationpb.New(time.Hour),
		Agents: []*agentruntimev1.WorkerAgent{{AgentId: "a"}},
	}})
	a.until(func(r *agentruntimev1.WorkResponse) bool { return r.GetWelcome() != nil })
	request := &agentruntimev1.CreateRunRequest{
		Target: agentruntimev1.RunTarget_RUN_TARGET_WORKER, AgentId: "a", TaskType: "agent.run",
	}
	created, err := sys.agents.CreateRun(testContext(t), request)
	if err != nil {
		t.Fatal(err)
	}
	a.runID = created.GetRun().GetRunId()
	a.until(func(r *agentruntimev1.WorkResponse) bool {
		for _, assignment := range r.GetAssignments() {
			a.lease = assignment.GetLease()
		}
		return a.lease != 0
	})
	return a
}

func (a *agentAtHand) send(request *agentruntimev1.WorkRequest) {
	a.t.Helper()
	if err := a.stream.Send(request); err != nil {
		a.t.Fatal(err)
	}
}

func (a *agentAtHand) until(met func(*agentruntimev1.WorkResponse) bool) {
	a.t.Helper()
	for {
		response, err := a.stream.Recv()
		if err != nil {
			a.t.Fatal(err)
		}
		if refusals := response.GetRefusals(); len(refusals) > 0 {
			a.t.Fatal(refusals)
		}
		if met(response) {
			return
		}
	}
}

// report reports and returns once that is durable.
func (a *agentAtHand) report(r *agentruntimev1.Report) {
	a.t.Helper()
	a.number++
	r.RunId, r.Lease, r.Number = a.runID, a.lease, a.number
	a.send(&agentruntimev1.WorkRequest{Reports: []*agentruntimev1.Report{r}})
	a.until(func(response *agentruntimev1.WorkResponse) bool {
		for _, ack := range response.GetAcks() {
			if ack.GetNumber() >= a.number {
				return true
			}
		}
		return false
	})
}

// emit emits count events of a type, their payloads counted from first on.
func (a *agentAtHand) emit(eventType string, visibility agentruntimev1.EventVisibility, first, count int) {
	a.t.Helper()
	for count > 0 {
		events := &agentruntimev1.EmitEvents{}
		for range min(count, 100) {
			events.Events = append(events.Events, &agentruntimev1.NewRunEvent{
				Type: eventType, Visibility: visibility, Payload: fmt.Appendf(nil, `{"n":%d}`, first),
			})
			first++
			count--
		}
		a.report(&agentruntimev1.Report{Report: &agentruntimev1.Report_Events{Events: events}})
	}
}

func (a *agentAtHand) succeed() {
	a.t.Helper()
	a.report(&agentruntimev1.Report{Report: &agentruntimev1.Report_Succeed{Succeed: &agentruntimev1.Succeed{Output: []byte(`{"done":true}`)}}})
}

const (
	internal = agentruntimev1.EventVisibility_EVENT_VISIBILITY_INTERNAL
	debug    = agentruntimev1.EventVisibility_EVENT_VISIBILITY_DEBUG
	user     = agentruntimev1.EventVisibility_EVENT_VISIBILITY_USER
)

func streamTicket(t *testing.T, sys *system, runID, principal string, least agentruntimev1.EventVisibility) string {
	t.Helper()
	made, err := sys.agents.CreateStreamTicket(testContext(t), &agentruntimev1.CreateStreamTicketRequest{
		RunId: runID, Principal: principal, Visibility: least,
	})
	if err != nil {
		t.Fatal(err)
	}
	if life := time.Until(made.GetExpireTime().AsTime()); life < time.Hour {
		t.Errorf("the ticket lives for %s", life)
	}
	return made.GetPath()
}

// shownEvent is what a reader gets of an event.
type shownEvent struct {
	Type       string          `json:"type"`
	Seq        uint64          `json:"seq"`
	RunID      string          `json:"run_id"`
	Visibility string          `json:"visibility"`
	N          int             `json:"n"`
	Payload    json.RawMessage `json:"payload"`
}

// eventReader reads one stream.
type eventReader struct {
	status int
	header http.Header
	body   io.ReadCloser
	lines  *bufio.Scanner
}

// openStream asks for a stream; after is the last event seen, 0: none.
func openStream(ctx context.Context, client *http.Client, rt *djangobridge.Integration, path string, after uint64) (*eventReader, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+rt.HTTPAddr()+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "text/event-stream")
	if after > 0 {
		request.Header.Set("Last-Event-ID", strconv.FormatUint(after, 10))
	}
	response, err := client.Do(request) //nolint:bodyclose // whoever reads closes it
	if err != nil {
		return nil, err
	}
	return &eventReader{response.StatusCode, response.Header, response.Body, bufio.NewScanner(response.Body)}, nil
}

// next returns the next event; false at the end.
func (r *eventReader) next() (ev shownEvent, more bool, err error) {
	var id, eventType string
	for r.lines.Scan() {
		name, value, _ := strings.Cut(r.lines.Text(), ": ")
		switch name {
		case "id":
			id = value
		case "event":
			eventType = value
		case "data":
			if err := json.Unmarshal([]byte(value), &ev); err != nil {
				return ev, false, err
			}
			if strconv.FormatUint(ev.Seq, 10) != id || ev.Type != eventType {
				return ev, false, fmt.Errorf("frame %s of %s has data %s", id, eventType, value)
			}
			return ev, true, nil
		}
	}
	return ev, false, r.lines.Err()
}

// read returns events until the end, or until as many as wanted were read.
func (r *eventReader) read(t *testing.T, wanted int) []shownEvent {
	t.Helper()
	var all []shownEvent
	for len(all) < wanted {
		ev, more, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			break
		}
		all = append(all, ev)
	}
	return all
}

// crowdContext is testContext for what many readers do at once, under the race detector.
func crowdContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

const allEvents = 1 << 30

func stream(t *testing.T, rt *djangobridge.Integration, path string, after uint64) *eventReader {
	t.Helper()
	r, err := openStream(testContext(t), &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, rt, path, after)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.body.Close() })
	return r
}

func typesOf(events []shownEvent) string {
	types := make([]string, len(events))
	for i, ev := range events {
		types[i] = ev.Type
	}
	return strings.Join(types, " ")
}

func TestAStreamHasTheEventsOfARunByVisibility(t *testing.T) {
	t.Parallel()
	sys := start(t)
	a := takeRun(t, sys)
	a.emit("assistant.message", user, 1, 1)
	a.emit("tool.call", debug, 2, 1)
	a.emit("state.checkpoint", internal, 3, 1)
	live := stream(t, sys.Integration, streamTicket(t, sys, a.runID, "u", user), 0)
	first := live.read(t, 1)
	if live.status != http.StatusOK || typesOf(first) != "assistant.message" || first[0].RunID != a.runID ||
		first[0].N != 1 || first[0].Visibility != "user" || string(first[0].Payload) != `{"n":1}` {
		t.Errorf("%d %+v", live.status, first)
	}
	a.succeed()
	// The end is shown to every reader.
	if rest := live.read(t, allEvents); typesOf(rest) != "run.succeeded" || string(rest[0].Payload) != `{"output":{"done":true}}` {
		t.Errorf("rest = %+v", rest)
	}
	for least, want := range map[agentruntimev1.EventVisibility]string{
		debug:    "assistant.message tool.call run.succeeded",
		internal: "run.queued run.started assistant.message tool.call state.checkpoint run.succeeded",
		agentruntimev1.EventVisibility_EVENT_VISIBILITY_UNSPECIFIED: "assistant.message run.succeeded",
	} {
		path := streamTicket(t, sys, a.runID, least.String(), least)
		events := stream(t, sys.Integration, path, 0).read(t, allEvents)
		if typesOf(events) != want {
			t.Errorf("%s: %s, want %s", least, typesOf(events), want)
		}
		// A browser that comes again is told that there is no more.
		if over := stream(t, sys.Integration, path, events[len(events)-1].Seq); over.status != http.StatusNoContent {
			t.Errorf("after the end: %d", over.status)
		}
		if rest := stream(t, sys.Integration, path, events[0].Seq).read(t, allEvents); len(rest) != len(events)-1 {
			t.Errorf("after the first: %+v", rest)
		}
	}
	_, metrics := get(t, sys.Integration, "/metrics")
	for _, line := range []string{`agent_runtime_http_streams_ended_total{reason="finished"} `, "agent_runtime_http_streams 0", "agent_runtime_http_stream_events_total "} {
		if !strings.Contains(string(metrics), line) {
			t.Errorf("/metrics lacks %s", line)
		}
	}
}

func TestAStreamGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	cfg := load(t)
	logs := &logBuffer{}
	begin := func() *system {
		rt, err := djangobridge.New(cfg, "1.2.3", noEnvironment, logs.logger())
		if err != nil {
			t.Fatal(err)
		}
		stopAtEnd(t, rt)
		if err := rt.Start(testContext(t)); err != nil {
			t.Fatal(err)
		}
		return connect(t, rt, rt.Addr())
	}
	first := begin()
	a := takeRun(t, first)
	a.emit("custom", user, 0, 10)
	path := streamTicket(t, first, a.runID, "u", user)
	live := stream(t, first.Integration, path, 0)
	seen := live.read(t, 4)
	ctx := testContext(t)
	stopped := make(chan error, 1)
	go func() { stopped <- first.Stop(ctx) }()
	seen = append(seen, live.read(t, allEvents)...) // ends as the runtime drains
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}

	second := begin()
	rest := stream(t, second.Integration, path, seen[len(seen)-1].Seq)
	if _, err := second.agents.CancelRun(testContext(t), &agentruntimev1.CancelRunRequest{RunId: a.runID}); err != nil {
		t.Fatal(err)
	}
	all := slices.Concat(seen, rest.read(t, allEvents))
	if typesOf(all) != strings.Repeat("custom ", 10)+"run.cancelled" {
		t.Errorf("events = %s", typesOf(all))
	}
	for i, ev := range all[:min(10, len(all))] {
		if ev.N != i || i > 0 && ev.Seq <= all[i-1].Seq {
			t.Errorf("event %d is %+v", i, ev)
		}
	}
	_, text, _ := strings.Cut(path, "ticket=")
	_, _ = get(t, second.Integration, path+"x") // one that is refused
	if strings.Contains(logs.String(), text) || strings.Contains(logs.String(), "ticket=") {
		t.Error("a log line has the ticket")
	}
}

func TestWhoHasNoTicketForTheRunReadsNothing(t *testing.T) {
	t.Parallel()
	sys := start(t)
	create := func(ctx context.Context, deadline *durationpb.Duration) string {
		created, err := sys.agents.CreateRun(ctx, &agentruntimev1.CreateRunRequest{TaskType: "example_task", Wait: true, Deadline: deadline})
		if err != nil {
			t.Fatal(err)
		}
		return created.GetRun().GetRunId()
	}
	mine, other := create(testContext(t), nil), create(testContext(t), nil)
	path, otherPath := streamTicket(t, sys, mine, "u", user), streamTicket(t, sys, other, "u", user)
	address, query, _ := strings.Cut(path, "?")
	_, otherQuery, _ := strings.Cut(otherPath, "?")
	for name, test := range map[string]struct {
		path   string
		status int
	}{
		"mine":          {path, http.StatusOK},
		"no ticket":     {address, http.StatusUnauthorized},
		"tampered":      {strings.Replace(path, "ticket=A", "ticket=B", 1), http.StatusUnauthorized},
		"another run's": {address + "?" + otherQuery, http.StatusForbidden},
		"position":      {path + "&last_event_id=x", http.StatusBadRequest},
	} {
		r := stream(t, sys.Integration, test.path, 0)
		if r.status != test.status || test.status != http.StatusOK && r.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %v", name, r.status, r.header)
		}
	}
	if !strings.HasPrefix(query, "ticket=") {
		t.Errorf("path = %s", path)
	}

	request := func(runID, principal string, least agentruntimev1.EventVisibility) *agentruntimev1.CreateStreamTicketRequest {
		return &agentruntimev1.CreateStreamTicketRequest{RunId: runID, Principal: principal, Visibility: least}
	}
	_, err := sys.agents.CreateStreamTicket(in(t, "elsewhere"), request(mine, "u", user))
	refused(t, err, codes.NotFound, "RUN_NOT_FOUND")
	_, err = sys.agents.CreateStreamTicket(testContext(t), request("none", "u", user))
	refused(t, err, codes.NotFound, "RUN_NOT_FOUND")
	_, err = sys.agents.CreateStreamTicket(testContext(t), request(mine, strings.Repeat("u", 201), user))
	refused(t, err, codes.InvalidArgument, "INVALID_ARGUMENT")
	_, err = sys.agents.CreateStreamTicket(testContext(t), request(mine, "u", 99))
	refused(t, err, codes.InvalidArgument, "INVALID_ARGUMENT")
}

func TestATicketHoldsAnHourLongerThanItsRun(t *testing.T) {
	t.Parallel()
	sys := start(t, "--run-timeout=10m")
	for name, test := range map[string]struct {
		deadline, want time.Duration
	}{
		"no deadline": {0, 70 * time.Minute},
		"deadline":    {3 * time.Hour, 4 * time.Hour},
		"too far":     {1000 * 24 * time.Hour, 30 * 24 * time.Hour},
	} {
		request := &agentruntimev1.CreateRunRequest{TaskType: "example_task", Wait: true}
		if test.deadline > 0 {
			request.Deadline = durationpb.New(test.deadline)
		}
		created, err := sys.agents.CreateRun(testContext(t), request)
		if err != nil {
			t.Fatal(err)
		}
		made, err := sys.agents.CreateStreamTicket(testContext(t), &agentruntimev1.CreateStreamTicketRequest{RunId: created.GetRun().GetRunId()})
		if err != nil {
			t.Fatal(err)
		}
		if life := time.Until(made.GetExpireTime().AsTime()); life > test.want || life < test.want-time.Minute {
			t.Errorf("%s: %s, want %s", name, life, test.want)
		}
	}
}

func TestAReaderThatLeavesFreesItsPlace(t *testing.T) {
	t.Parallel()
	sys := start(t, "--stream-limit-per-user=1", "--stream-origins=https://site.example")
	a := takeRun(t, sys)
	path := streamTicket(t, sys, a.runID, "u", user)
	first := stream(t, sys.Integration, path, 0)
	if second := stream(t, sys.Integration, path, 0); first.status != http.StatusOK || second.status != http.StatusTooManyRequests {
		t.Fatalf("%d, %d", first.status, second.status)
	}
	if err := first.body.Close(); err != nil {
		t.Fatal(err)
	}
	for ctx := testContext(t); ; {
		if r := stream(t, sys.Integration, path, 0); r.status == http.StatusOK {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the place was not freed")
		}
	}
}

func TestAThousandReadersGetAllEventsInOrder(t *testing.T) {
	t.Parallel()
	const readers, before, during = 1000, 5, 45
	sys := start(t, "--stream-limit-per-user=1000")
	a := takeRun(t, sys)
	a.emit("custom", user, 0, before)
	path := streamTicket(t, sys, a.runID, "u", user)
	ctx := crowdContext(t)
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: transport}
	defer transport.CloseIdleConnections()
	var open, done sync.WaitGroup
	open.Add(readers)
	for reader := range readers {
		done.Go(func() {
			if err := readInOrder(ctx, client, sys.Integration, path, before+during, open.Done); err != nil {
				t.Errorf("reader %d: %v", reader, err)
			}
		})
	}
	open.Wait()
	a.emit("custom", user, before, during)
	a.succeed()
	done.Wait()
}

// readInOrder reads counted events up to the end of the run, and as a browser
// does comes again where it was cut off. opened is called once the first was read
// or it has failed.
func readInOrder(ctx context.Context, client *http.Client, rt *djangobridge.Integration, path string, count int, opened func()) error {
	opened = sync.OnceFunc(opened)
	defer opened()
	seen, after := 0, uint64(0)
	for {
		r, err := openStream(ctx, client, rt, path, after)
		if err != nil {
			return err
		}
		for {
			ev, more, err := r.next()
			if err != nil {
				_ = r.body.Close()
				return err
			}
			if !more {
				break
			}
			opened()
			if want := seen < count; want != (ev.Type == "custom") || want && ev.N != seen || ev.Seq <= after {
				_ = r.body.Close()
				return fmt.Errorf("event %d is %+v", seen, ev)
			}
			seen, after = seen+1, ev.Seq
		}
		_ = r.body.Close()
		if seen == count+1 {
			return nil
		}
	}
}

func TestTheGatewayStreamsOverTLSWithoutAToken(t *testing.T) {
	t.Parallel()
	authority := newAuthority(t)
	sys := start(t, authority.serverFlags(t, "--http=0.0.0.0:0", "--listen=127.0.0.1:0", "--stream-origins=https://site.example")...)
	named := connect(t, sys.Integration, sys.Addr(), grpc.WithTransportCredentials(credentials.NewTLS(authority.client(t, "caller"))))
	created, err := named.agents.CreateRun(testContext(t), &agentruntimev1.CreateRunRequest{TaskType: "example_task", Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	path := streamTicket(t, named, created.GetRun().GetRunId(), "u", internal)
	for _, http2 := range []bool{true, false} {
		transport := &http.Transport{TLSClientConfig: authority.client(t, "nobody"), ForceAttemptHTTP2: http2}
		t.Cleanup(transport.CloseIdleConnections)
		port := sys.HTTPAddr()[strings.LastIndex(sys.HTTPAddr(), ":"):]
		request, err := http.NewRequestWithContext(testContext(t), http.MethodGet, "https://localhost"+port+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Origin", "https://site.example")
		response, err := (&http.Client{Transport: transport}).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK || response.ProtoAtLeast(2, 0) != http2 ||
			!strings.Contains(string(body), "event: run.succeeded\n") || response.Header.Get("Access-Control-Allow-Origin") == "" {
			t.Errorf("HTTP/2 %v: %s %d %v\n%s, %v", http2, response.Proto, response.StatusCode, response.Header, body, err)
		}
	}
}
