package djangobridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
)

// greeting is a graph that asks, and then says how it greets.
func greeting(greets string) []byte {
	return []byte(`
name: greet
description: Greets.
state: {who: {}, said: {}}
nodes:
  ask: {kind: human, with: {ask: "Who?"}, set: {who: out}}
  greet: {kind: transform, set: {said: '"` + greets + ` " + state.who'}}
edges: [[START, ask], [ask, greet]]
output: {said: state.said}
`)
}

const brokenGraph = `
name: broken
state: {said: {}}
nodes:
  plan: {kind: llm, with: {instructions: Plan.}}
  write: {kind: transform, set: {sayd: '"x"', said: 1 +}}
edges: [[START, plan], [plan, writes]]
`

func definitionsOf(sys *system) agentruntimev1.DefinitionServiceClient {
	return agentruntimev1.NewDefinitionServiceClient(sys.conn)
}

func register(t *testing.T, sys *system, document []byte) *agentruntimev1.Definition {
	t.Helper()
	response, err := definitionsOf(sys).RegisterGraph(testContext(t), &agentruntimev1.RegisterGraphRequest{Document: document})
	if err != nil {
		t.Fatal(err)
	}
	return response.GetGraph()
}

func TestGraphsAreRegisteredListedAndDeleted(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	definitions := definitionsOf(sys)
	first, err := definitions.RegisterGraph(ctx, &agentruntimev1.RegisterGraphRequest{Document: greeting("Hello"), RequestId: "r1"})
	if err != nil || !first.GetCreated() {
		t.Fatalf("%v, %v", first, err)
	}
	one := first.GetGraph()
	if one.GetName() != "greet" || one.GetNumber() != 1 || !one.GetCurrent() || one.GetBuiltIn() || one.GetDescription() != "Greets." ||
		len(one.GetVersion()) != 16 || one.GetCreateTime() == nil || one.GetDocument() != nil {
		t.Errorf("%v", one)
	}
	two := register(t, sys, greeting("Bye"))
	again, err := definitions.RegisterGraph(ctx, &agentruntimev1.RegisterGraphRequest{Document: greeting("Hello"), RequestId: "r1"})
	if err != nil || !again.GetCreated() || again.GetGraph().GetVersion() != one.GetVersion() || again.GetGraph().GetCurrent() {
		t.Errorf("repeat: %v, %v", again, err)
	}
	versions, err := definitions.ListGraphVersions(ctx, &agentruntimev1.ListGraphVersionsRequest{Name: "greet"})
	if err != nil || len(versions.GetVersions()) != 2 || versions.GetVersions()[0].GetVersion() != two.GetVersion() ||
		!versions.GetVersions()[0].GetCurrent() || versions.GetVersions()[1].GetCurrent() {
		t.Errorf("versions: %v, %v", versions, err)
	}
	got, err := definitions.GetGraph(ctx, &agentruntimev1.GetGraphRequest{Name: "greet", Version: one.GetVersion()})
	if err != nil || string(got.GetGraph().GetDocument()) != string(greeting("Hello")) || got.GetGraph().GetCurrent() {
		t.Errorf("get: %v, %v", got, err)
	}
	var names []string
	page := &agentruntimev1.ListGraphsRequest{PageSize: 1}
	for {
		list, err := definitions.ListGraphs(ctx, page)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list.GetGraphs() {
			if d.GetDocument() != nil || d.GetBuiltIn() == (d.GetName() == "greet") || !d.GetCurrent() {
				t.Errorf("%v", d)
			}
			names = append(names, d.GetName())
		}
		if page.PageToken = list.GetNextPageToken(); page.GetPageToken() == "" {
			break
		}
	}
	if got := strings.Join(names, " "); got != "greet reasoning_graph research_chain" {
		t.Errorf("there are %s", got)
	}
	remove := &agentruntimev1.DeleteGraphRequest{Name: "greet", RequestId: "r2"}
	for range 2 {
		if _, err := definitions.DeleteGraph(ctx, remove); err != nil {
			t.Error(err)
		}
	}
	_, err = definitions.GetGraph(ctx, &agentruntimev1.GetGraphRequest{Name: "greet"})
	if about := refused(t, err, codes.NotFound, "GRAPH_NOT_FOUND"); about["graph_id"] != "greet" || about["known"] != "reasoning_graph,research_chain" {
		t.Errorf("%v", about)
	}
	_, err = definitions.DeleteGraph(ctx, &agentruntimev1.DeleteGraphRequest{Name: "greet"})
	refused(t, err, codes.NotFound, "GRAPH_NOT_FOUND")
	if got, err = definitions.GetGraph(ctx, &agentruntimev1.GetGraphRequest{Name: "greet", Version: one.GetVersion()}); err != nil {
		t.Errorf("%v, %v", got, err)
	}
	_, err = definitions.GetGraph(ctx, &agentruntimev1.GetGraphRequest{Name: "greet", Version: "0123456789abcdef"})
	refused(t, err, codes.NotFound, "GRAPH_NOT_FOUND")
	_, err = definitions.DeleteGraph(ctx, &agentruntimev1.DeleteGraphRequest{Name: "reasoning_graph"})
	refused(t, err, codes.InvalidArgument, "INVALID_ARGUMENT")
	own := strings.Replace(string(greeting("Hello")), "name: greet", "name: reasoning_graph", 1)
	_, err = definitions.RegisterGraph(ctx, &agentruntimev1.RegisterGraphRequest{Document: []byte(own)})
	refused(t, err, codes.InvalidArgument, "INVALID_ARGUMENT")
	valid, err := definitions.ValidateGraph(ctx, &agentruntimev1.ValidateGraphRequest{Document: []byte(own)})
	if err != nil || len(valid.GetProblems()) != 1 || valid.GetProblems()[0].GetPlace() != "name" {
		t.Errorf("%v, %v", valid, err)
	}
}

// TestWhatIsMissingIsAWarning has two graphs name each other and an agent, which a worker
// begins to serve.
func TestWhatIsMissingIsAWarning(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	definitions := definitionsOf(sys)
	document := func(name, other string) []byte {
		return []byte(fmt.Sprintf(`
name: %s
nodes: {a: {kind: graph, with: {graph: %s}}, b: {kind: agent, with: {agent: helper, prompt: Help.}}}
edges: [[START, a], [START, b]]
`, name, other))
	}
	check := func(warnings []*agentruntimev1.DocumentProblem, want ...string) {
		t.Helper()
		var said []string
		for _, w := range warnings {
			said = append(said, w.GetPlace()+": "+w.GetDescription())
		}
		if got, want := strings.Join(said, "\n"), strings.Join(want, "\n"); got != want {
			t.Errorf("warnings\n%s\nwant\n%s", got, want)
		}
	}
	const (
		noGraph = `nodes.a.with.graph: names the graph "two", which there is not yet`
		noAgent = `nodes.b.with.agent: names the agent "helper", which there is not yet`
	)
	validated, err := definitions.ValidateGraph(ctx, &agentruntimev1.ValidateGraphRequest{Document: document("one", "two")})
	if err != nil || len(validated.GetProblems()) > 0 || validated.GetName() != "one" {
		t.Errorf("%v, %v", validated, err)
	}
	check(validated.GetWarnings(), noGraph, noAgent)
	registered, err := definitions.RegisterGraph(ctx, &agentruntimev1.RegisterGraphRequest{Document: document("one", "two")})
	if err != nil || !registered.GetCreated() {
		t.Fatalf("%v, %v", registered, err)
	}
	check(registered.GetWarnings(), noGraph, noAgent)
	stream, err := agentruntimev1.NewWorkerServiceClient(sys.conn).Work(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&agentruntimev1.WorkRequest{Hello: &agentruntimev1.Hello{
		WorkerId: "0198c9f0-0000-7000-8000-000000000001", Concurrency: 1, Agents: []*agentruntimev1.WorkerAgent{{AgentId: "helper"}},
	}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if registered, err = definitions.RegisterGraph(ctx, &agentruntimev1.RegisterGraphRequest{Document: document("two", "one")}); err != nil {
		t.Fatal(err)
	}
	check(registered.GetWarnings())
	lead := []byte("name: lead\ninstructions: Lead.\nagents: [helper, nobody]\n")
	agent, err := definitions.RegisterAgent(ctx, &agentruntimev1.RegisterAgentRequest{Document: lead})
	if err != nil {
		t.Fatal(err)
	}
	check(agent.GetWarnings(), `agents[1]: names the agent "nobody", which there is not yet`)
	valid, err := definitions.ValidateAgent(ctx, &agentruntimev1.ValidateAgentRequest{Document: lead})
	if err != nil {
		t.Fatal(err)
	}
	check(valid.GetWarnings(), `agents[1]: names the agent "nobody", which there is not yet`)
}

func TestMistakesInGraphsAreToldWithTheirPlaces(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	definitions := definitionsOf(sys)
	want := "nodes.plan.with.prompt nodes.write.set.said nodes.write.set.sayd edges[1] nodes.write"
	validated, err := definitions.ValidateGraph(ctx, &agentruntimev1.ValidateGraphRequest{Document: []byte(brokenGraph)})
	if err != nil {
		t.Fatal(err)
	}
	var places []string
	for _, problem := range validated.GetProblems() {
		places = append(places, problem.GetPlace())
	}
	if got := strings.Join(places, " "); got != want || validated.GetName() != "" {
		t.Errorf("validate: %s", got)
	}
	_, err = definitions.RegisterGraph(ctx, &agentruntimev1.RegisterGraphRequest{Document: []byte(brokenGraph)})
	refused(t, err, codes.InvalidArgument, "INVALID_ARGUMENT")
	places = nil
	for _, detail := range status.Convert(err).Details() {
		if bad, found := detail.(*errdetails.BadRequest); found {
			for _, v := range bad.GetFieldViolations() {
				places = append(places, v.GetField())
			}
		}
	}
	if got := strings.Join(places, " "); got != want {
		t.Errorf("register: %s", got)
	}
	var many strings.Builder
	many.WriteString("name: many\nnodes:\n")
	for n := range 26 {
		fmt.Fprintf(&many, "  n%d: {kind: none}\n", n)
	}
	validated, err = definitions.ValidateGraph(ctx, &agentruntimev1.ValidateGraphRequest{Document: []byte(many.String())})
	if err != nil || len(validated.GetProblems()) < 26 {
		t.Errorf("%d problems, %v", len(validated.GetProblems()), err)
	}
	large := []byte(strings.Repeat("#", 256<<10+1))
	validated, err = definitions.ValidateGraph(ctx, &agentruntimev1.ValidateGraphRequest{Document: large})
	if err != nil || len(validated.GetProblems()) != 1 {
		t.Errorf("%v, %v", validated, err)
	}
	_, err = definitions.RegisterGraph(ctx, &agentruntimev1.RegisterGraphRequest{Document: large})
	refused(t, err, codes.ResourceExhausted, "TOO_LARGE")
	if valid, err := definitions.ValidateGraph(ctx, &agentruntimev1.ValidateGraphRequest{Document: greeting("Hello")}); err != nil ||
		valid.GetName() != "greet" || len(valid.GetProblems()) != 0 {
		t.Errorf("%v, %v", valid, err)
	}
}

func TestAgentsAreRegistered(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	definitions := definitionsOf(sys)
	document := []byte("name: helper\ndescription: Helps.\ninstructions: Help.\n")
	registered, err := definitions.RegisterAgent(ctx, &agentruntimev1.RegisterAgentRequest{Document: document})
	if err != nil || registered.GetAgent().GetName() != "helper" {
		t.Fatalf("%v, %v", registered, err)
	}
	run, err := sys.agents.CreateRun(ctx, &agentruntimev1.CreateRunRequest{
		Target: agentruntimev1.RunTarget_RUN_TARGET_AGENT, AgentId: "helper", TaskType: "help", Input: []byte(`{"with": "it"}`), Wait: true,
	})
	if err != nil || run.GetRun().GetState() != agentruntimev1.RunState_RUN_STATE_SUCCEEDED {
		t.Errorf("%v, %v", run, err)
	}
	versions, err := definitions.ListAgentVersions(ctx, &agentruntimev1.ListAgentVersionsRequest{Name: "helper"})
	if err != nil || len(versions.GetVersions()) != 1 {
		t.Errorf("%v, %v", versions, err)
	}
	got, err := definitions.GetAgentDefinition(ctx, &agentruntimev1.GetAgentDefinitionRequest{Name: "helper"})
	if err != nil || string(got.GetAgent().GetDocument()) != string(document) {
		t.Errorf("%v, %v", got, err)
	}
	invalid, err := definitions.ValidateAgent(ctx, &agentruntimev1.ValidateAgentRequest{Document: []byte("name: helper\nrounds: -1\n")})
	if err != nil || len(invalid.GetProblems()) != 2 {
		t.Errorf("%v, %v", invalid, err)
	}
	if _, err := definitions.DeleteAgent(ctx, &agentruntimev1.DeleteAgentRequest{Name: "helper"}); err != nil {
		t.Error(err)
	}
	_, err = definitions.GetAgentDefinition(ctx, &agentruntimev1.GetAgentDefinitionRequest{Name: "helper"})
	refused(t, err, codes.NotFound, "AGENT_NOT_FOUND")
	_, err = definitions.GetAgentDefinition(ctx, &agentruntimev1.GetAgentDefinitionRequest{Name: "helper", Version: "x"})
	refused(t, err, codes.NotFound, "AGENT_NOT_FOUND")
}

// waiting begins a run of greet and returns its id and its question's, once it asks.
func waiting(ctx context.Context, t *testing.T, sys *system) (runID, interruptID string) {
	t.Helper()
	created, err := sys.agents.CreateRun(ctx, &agentruntimev1.CreateRunRequest{TaskType: "langgraph_task", Input: []byte(`{"graph_id": "greet"}`)})
	if err != nil {
		t.Fatal(err)
	}
	runID = created.GetRun().GetRunId()
	watch, err := sys.agents.WatchRun(ctx, &agentruntimev1.WatchRunRequest{RunId: runID})
	if err != nil {
		t.Fatal(err)
	}
	for {
		batch, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range batch.GetEvents() {
			var about struct {
				InterruptID string `json:"interrupt_id"`
			}
			if e.GetType() == "run.interrupted" && json.Unmarshal(e.GetPayload(), &about) == nil {
				return runID, about.InterruptID
			}
		}
	}
}

func TestRunsKeepTheirGraphOverARestart(t *testing.T) {
	t.Parallel()
	cfg, ctx := load(t), testContext(t)
	open := func() *system {
		rt := assemble(t, cfg)
		if err := rt.Start(ctx); err != nil {
			t.Fatal(err)
		}
		return connect(t, rt, rt.Addr())
	}
	sys := open()
	register(t, sys, greeting("Hello"))
	runID, interruptID := waiting(ctx, t, sys)
	register(t, sys, greeting("Bye"))
	if err := sys.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	sys = open()
	drawn, err := definitionsOf(sys).DrawGraph(ctx, &agentruntimev1.DrawGraphRequest{Source: &agentruntimev1.DrawGraphRequest_RunId{RunId: runID}})
	if err != nil || !strings.Contains(drawn.GetDrawing(), "class n1 waiting") {
		t.Errorf("%v, %v", drawn, err)
	}
	if _, err := sys.agents.ResumeRun(ctx, &agentruntimev1.ResumeRunRequest{RunId: runID, InterruptId: interruptID, Value: []byte(`"Ada"`)}); err != nil {
		t.Fatal(err)
	}
	ended, err := sys.agents.WaitRun(ctx, &agentruntimev1.WaitRunRequest{RunId: runID})
	if err != nil || !strings.Contains(string(ended.GetRun().GetOutput()), "Hello Ada") {
		t.Errorf("%v, %v", ended, err)
	}
	drawn, err = definitionsOf(sys).DrawGraph(ctx, &agentruntimev1.DrawGraphRequest{Source: &agentruntimev1.DrawGraphRequest_RunId{RunId: runID}})
	if err != nil || !strings.Contains(drawn.GetDrawing(), "class n1,n2 done") {
		t.Errorf("%v, %v", drawn, err)
	}
}

func TestDrawGraph(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	register(t, sys, greeting("Hello"))
	svg := agentruntimev1.DrawingFormat_DRAWING_FORMAT_SVG
	byName, document := &agentruntimev1.DrawGraphRequest_Name{Name: "greet"}, &agentruntimev1.DrawGraphRequest_Document{Document: greeting("Bye")}
	tests := map[string]struct {
		request *agentruntimev1.DrawGraphRequest
		want    string
		code    codes.Code
	}{
		"name":           {&agentruntimev1.DrawGraphRequest{Source: byName}, "flowchart TD", codes.OK},
		"document":       {&agentruntimev1.DrawGraphRequest{Source: document, Format: svg}, "<svg ", codes.OK},
		"built in":       {&agentruntimev1.DrawGraphRequest{Source: &agentruntimev1.DrawGraphRequest_Name{Name: "reasoning_graph"}, Format: svg}, "<svg ", codes.OK},
		"nothing":        {&agentruntimev1.DrawGraphRequest{}, "", codes.InvalidArgument},
		"a format":       {&agentruntimev1.DrawGraphRequest{Source: byName, Format: 9}, "", codes.InvalidArgument},
		"version of all": {&agentruntimev1.DrawGraphRequest{Source: document, Version: "x"}, "", codes.InvalidArgument},
		"mistakes": {&agentruntimev1.DrawGraphRequest{
			Source: &agentruntimev1.DrawGraphRequest_Document{Document: []byte(brokenGraph)},
		}, "", codes.InvalidArgument},
		"no version": {&agentruntimev1.DrawGraphRequest{Source: byName, Version: "x"}, "", codes.NotFound},
		"no run":     {&agentruntimev1.DrawGraphRequest{Source: &agentruntimev1.DrawGraphRequest_RunId{RunId: "x"}}, "", codes.NotFound},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			drawn, err := definitionsOf(sys).DrawGraph(testContext(t), test.request)
			if status.Code(err) != test.code || !strings.HasPrefix(drawn.GetDrawing(), test.want) {
				t.Errorf("%v, %v", drawn, err)
			}
		})
	}
	run, err := sys.agents.CreateRun(ctx, &agentruntimev1.CreateRunRequest{TaskType: "echo", Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = definitionsOf(sys).DrawGraph(ctx, &agentruntimev1.DrawGraphRequest{
		Source: &agentruntimev1.DrawGraphRequest_RunId{RunId: run.GetRun().GetRunId()},
	})
	refused(t, err, codes.InvalidArgument, "INVALID_ARGUMENT")
}

func TestReadersOfDefinitionsWriteNone(t *testing.T) {
	t.Parallel()
	sys := start(t, "--tokens-file="+writeTokens(t))
	reader := as(t, "Bearer reader-secret", "default")
	reads := map[string]bool{}
	for _, method := range agentruntimev1.DefinitionService_ServiceDesc.Methods {
		name := method.MethodName
		err := sys.conn.Invoke(reader, "/agentruntime.v1.DefinitionService/"+name, &agentruntimev1.GetGraphRequest{}, &agentruntimev1.DeleteGraphResponse{})
		reads[name] = status.Code(err) != codes.PermissionDenied
		if want := !strings.HasPrefix(name, "Register") && !strings.HasPrefix(name, "Delete"); reads[name] != want {
			t.Errorf("a reader may call %s: %v", name, reads[name])
		}
	}
}

func TestNamespacesSeeTheirOwnGraphs(t *testing.T) {
	t.Parallel()
	sys := start(t)
	register(t, sys, greeting("Hello"))
	_, err := definitionsOf(sys).GetGraph(as(t, "", "other"), &agentruntimev1.GetGraphRequest{Name: "greet"})
	refused(t, err, codes.NotFound, "GRAPH_NOT_FOUND")
}

func TestFolderOfDefinitions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(file string, text []byte) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, filepath.Dir(file)), 0o700), os.WriteFile(filepath.Join(dir, file), text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("graphs/greet.yaml", greeting("Hello"))
	sys := start(t, "--definitions-dir="+dir)
	get := func() *agentruntimev1.Definition {
		t.Helper()
		got, err := definitionsOf(sys).GetGraph(testContext(t), &agentruntimev1.GetGraphRequest{Name: "greet"})
		if err != nil {
			t.Fatal(err)
		}
		return got.GetGraph()
	}
	before := get()
	if !before.GetBuiltIn() || before.GetNumber() != 1 {
		t.Errorf("%v", before)
	}
	write("graphs/greet.yaml", greeting("Bye"))
	write("graphs/broken.yaml", []byte(brokenGraph))
	if err := sys.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "graphs/broken.yaml: edges[1]: ") {
		t.Errorf("%v", err)
	}
	if now := get(); !proto.Equal(now, before) {
		t.Errorf("after a mistake: %v", now)
	}
	if err := os.Remove(filepath.Join(dir, "graphs/broken.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := sys.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := get(); now.GetNumber() != 2 || string(now.GetDocument()) != string(greeting("Bye")) {
		t.Errorf("%v", now)
	}
	write("graphs/broken.yaml", []byte(brokenGraph))
	rt := assemble(t, load(t, "--definitions-dir="+dir))
	if err := rt.Start(testContext(t)); err == nil || !strings.Contains(err.Error(), "graphs/broken.yaml: nodes.plan.with.prompt: ") {
		t.Errorf("%v", err)
	}
}
