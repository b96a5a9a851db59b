package djangobridge_test

import (
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/otlptest"
	"github.com/djangobridge/djangobridge/go-runtime/pkg/djangobridge"
)

// startTraced runs a runtime that sends its spans to the receiver as to LangSmith.
func startTraced(t *testing.T, receiver *otlptest.Receiver, flags ...string) *system {
	t.Helper()
	values := map[string]string{"LANGSMITH_ENDPOINT": receiver.URL + "/api/v1", "LANGSMITH_API_KEY": "lsv2_key", "LANGSMITH_PROJECT": "site"}
	rt, err := djangobridge.New(load(t, flags...), "1.2.3", func(name string) string { return values[name] }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, rt)
	if err := rt.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return connect(t, rt, rt.Addr())
}

func (s *system) flush(t *testing.T) {
	t.Helper()
	if err := s.Stop(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// TestOneTraceFromTheCallToTheModel follows a graph's run from its caller's span on.
func TestOneTraceFromTheCallToTheModel(t *testing.T) {
	t.Parallel()
	receiver := otlptest.New(t)
	s := startTraced(t, receiver, "--trace-url=https://smith/{trace_id}")
	ctx := metadata.AppendToOutgoingContext(testContext(t), "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	answer, err := s.agents.CreateRun(ctx, &agentruntimev1.CreateRunRequest{
		TaskType: "langgraph_task", Input: []byte(`{"graph_id":"reasoning_graph","input":"How?"}`), Wait: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if run := answer.GetRun(); run.GetTraceId() != "0af7651916cd43dd8448eb211c80319c" || run.GetTraceUrl() != "https://smith/"+run.GetTraceId() {
		t.Errorf("trace %s at %s", run.GetTraceId(), run.GetTraceUrl())
	}
	// Of calls that belong to no trace there are no spans.
	if _, err := s.agents.GetServerInfo(testContext(t), &agentruntimev1.GetServerInfoRequest{}); err != nil {
		t.Fatal(err)
	}
	s.flush(t)
	byID := map[string]otlptest.Span{}
	for _, sp := range receiver.Spans() {
		byID[string(sp.GetSpanId())] = sp
		if sp.Request.Header.Get("Langsmith-Project") != "site" || sp.Request.URL.Path != "/api/v1/otel/v1/traces" {
			t.Errorf("%s came to %s of %s", sp.GetName(), sp.Request.URL, sp.Request.Header.Get("Langsmith-Project"))
		}
	}
	chats := 0
	for _, sp := range receiver.Spans() {
		if !strings.HasPrefix(sp.GetName(), "chat ") {
			continue
		}
		chats++
		var names []string
		at, there := sp, true
		for ; there; at, there = byID[string(at.GetParentSpanId())] {
			names = append(names, at.GetName())
			if parent := hex.EncodeToString(at.GetParentSpanId()); parent == "b7ad6b7169203331" {
				names = append(names, "the caller's")
			}
		}
		path := strings.Join(names, " < ")
		const want = "< attempt langgraph_task < run langgraph_task < agentruntime.v1.AgentService/CreateRun < the caller's"
		if !strings.HasPrefix(path, "chat offline < node ") || !strings.HasSuffix(path, want) {
			t.Errorf("path = %s", path)
		}
	}
	if chats == 0 {
		t.Error("no model was asked")
	}
	for _, sp := range receiver.Spans() {
		if strings.Contains(sp.GetName(), "GetServerInfo") || sp.Attributes["input.value"] != nil || sp.Attributes["gen_ai.input.messages"] != nil {
			t.Errorf("%s: %v", sp.GetName(), sp.Attributes)
		}
	}
}

func TestTracedTask(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		metadata string
		traced   bool
		says     string
	}{
		"asked":   {`{"trace":true,"project":"recursion_explanation"}`, true, "made offline"},
		"refused": {`{"trace":false}`, false, "was not traced"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			receiver := otlptest.New(t)
			s := startTraced(t, receiver, "--trace-url=https://smith/{trace_id}")
			output := tracedTask(t, s, tc.metadata)
			s.flush(t)
			if !strings.Contains(output.Notice, tc.says) || !strings.Contains(output.Answer, "Explain recursion") {
				t.Errorf("output = %+v", output)
			}
			if !tc.traced {
				if len(receiver.Spans()) != 0 || output.Trace.TraceID != "" {
					t.Errorf("%d spans, trace %+v", len(receiver.Spans()), output.Trace)
				}
				return
			}
			if output.Trace.Project != "recursion_explanation" || output.Trace.URL != "https://smith/"+output.Trace.TraceID {
				t.Errorf("trace = %+v", output.Trace)
			}
			own, chat := receiver.Named(t, "run traced_task"), receiver.Named(t, "chat offline")
			if len(own.GetParentSpanId()) != 0 || hex.EncodeToString(own.GetTraceId()) != output.Trace.TraceID {
				t.Errorf("the run is no root of its trace: %v", own)
			}
			if own.Attributes["input.value"] != `{"query":"Explain recursion"}` {
				t.Errorf("input = %v", own.Attributes["input.value"])
			}
			if messages, _ := chat.Attributes["gen_ai.input.messages"].(string); !strings.Contains(messages, "Explain recursion") {
				t.Errorf("messages = %s", messages)
			}
			for _, sp := range receiver.Spans() {
				if sp.Attributes["langsmith.trace.session_name"] != "recursion_explanation" {
					t.Errorf("%s is in project %v", sp.GetName(), sp.Attributes["langsmith.trace.session_name"])
				}
			}
		})
	}
}

type tracedOutput struct {
	Answer string `json:"answer"`
	Notice string `json:"notice"`
	Trace  struct {
		TraceID string `json:"trace_id"`
		Project string `json:"project"`
		URL     string `json:"url"`
	} `json:"trace"`
}

func tracedTask(t *testing.T, s *system, runMetadata string) (output tracedOutput) {
	t.Helper()
	answer, err := s.agents.CreateRun(testContext(t), &agentruntimev1.CreateRunRequest{
		TaskType: "traced_task", Input: []byte(`{"query":"Explain recursion"}`), Metadata: []byte(runMetadata), Wait: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(answer.GetRun().GetOutput(), &output); err != nil {
		t.Fatalf("output %s: %v", answer.GetRun().GetOutput(), err)
	}
	return output
}

func TestTracedTaskWithoutACollector(t *testing.T) {
	t.Parallel()
	s := start(t)
	if output := tracedTask(t, s, `{"trace":true}`); !strings.Contains(output.Notice, "LANGSMITH_ENDPOINT") {
		t.Errorf("output = %+v", output)
	}
}

// TestSubRunIsInTheTraceOfItsParent has a worker create a sub-run from a span of its own.
func TestSubRunIsInTheTraceOfItsParent(t *testing.T) {
	t.Parallel()
	receiver := otlptest.New(t)
	s := startTraced(t, receiver)
	stream, err := agentruntimev1.NewWorkerServiceClient(s.conn).Work(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	send := func(request *agentruntimev1.WorkRequest) {
		t.Helper()
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
	}
	receive := func(done func(*agentruntimev1.WorkResponse) bool) {
		t.Helper()
		for {
			response, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if done(response) {
				return
			}
		}
	}
	send(&agentruntimev1.WorkRequest{Hello: &agentruntimev1.Hello{
		WorkerId: "0198c9f0-0000-7000-8000-000000000001", Concurrency: 1, Agents: []*agentruntimev1.WorkerAgent{{AgentId: "helper"}},
	}})
	ctx := metadata.AppendToOutgoingContext(testContext(t), "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	created, err := s.agents.CreateRun(ctx, &agentruntimev1.CreateRunRequest{
		Target: agentruntimev1.RunTarget_RUN_TARGET_WORKER, AgentId: "helper", TaskType: "agent.run",
		Metadata: []byte(`{"trace":true,"project":"p"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	var assignment *agentruntimev1.Assignment
	receive(func(r *agentruntimev1.WorkResponse) bool {
		if len(r.GetAssignments()) > 0 {
			assignment = r.GetAssignments()[0]
		}
		return assignment != nil
	})
	if !strings.HasPrefix(assignment.GetTraceparent(), "00-0af7651916cd43dd8448eb211c80319c-") || !assignment.GetTraceAsked() || assignment.GetTraceProject() != "p" {
		t.Errorf("assignment = %v", assignment)
	}
	const own = "00-0af7651916cd43dd8448eb211c80319c-00000000000000aa-01"
	send(&agentruntimev1.WorkRequest{Reports: []*agentruntimev1.Report{{
		RunId: created.GetRun().GetRunId(), Lease: assignment.GetLease(), Number: 1,
		Report: &agentruntimev1.Report_StartRun{StartRun: &agentruntimev1.StartRun{
			Key: "sub#1", Traceparent: own, Run: &agentruntimev1.CreateRunRequest{TaskType: "echo"},
		}},
	}}})
	receive(func(r *agentruntimev1.WorkResponse) bool { return len(r.GetChildRuns()) > 0 })
	if _, err := s.agents.WaitRun(testContext(t), &agentruntimev1.WaitRunRequest{RunId: childOf(t, s, created.GetRun().GetRunId())}); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	s.flush(t)
	sub := receiver.Named(t, "run echo")
	if hex.EncodeToString(sub.GetParentSpanId()) != "00000000000000aa" {
		t.Errorf("the sub-run is under %x", sub.GetParentSpanId())
	}
	if hex.EncodeToString(sub.GetTraceId()) != "0af7651916cd43dd8448eb211c80319c" || sub.Attributes["langsmith.trace.session_name"] != "p" || sub.Attributes["input.value"] == nil {
		t.Errorf("sub-run: %v", sub)
	}
}

func childOf(t *testing.T, s *system, parent string) string {
	t.Helper()
	children, err := s.agents.ListRuns(testContext(t), &agentruntimev1.ListRunsRequest{ParentRunId: parent})
	if err != nil || len(children.GetRuns()) != 1 {
		t.Fatalf("%v, %v", children, err)
	}
	return children.GetRuns()[0].GetRunId()
}
