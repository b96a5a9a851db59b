package djangobridge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/token"
)

// watcher is the client's side of one WatchRuns stream.
type watcher struct {
	t      *testing.T
	stream agentruntimev1.AgentService_WatchRunsClient
	// events and ends are what has come, by watch.
	events map[string][]*agentruntimev1.RunEvent
	ends   map[string]*agentruntimev1.RunWatchEnded
}

func watchRuns(ctx context.Context, t *testing.T, sys *system) *watcher {
	t.Helper()
	stream, err := sys.agents.WatchRuns(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &watcher{t, stream, map[string][]*agentruntimev1.RunEvent{}, map[string]*agentruntimev1.RunWatchEnded{}}
}

func (w *watcher) add(id string, watch *agentruntimev1.WatchRunRequest) {
	w.t.Helper()
	err := w.stream.Send(&agentruntimev1.WatchRunsRequest{Request: &agentruntimev1.WatchRunsRequest_Add{
		Add: &agentruntimev1.AddRunWatch{WatchId: id, Watch: watch},
	}})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *watcher) remove(id string) {
	w.t.Helper()
	err := w.stream.Send(&agentruntimev1.WatchRunsRequest{Request: &agentruntimev1.WatchRunsRequest_Remove{
		Remove: &agentruntimev1.RemoveRunWatch{WatchId: id},
	}})
	if err != nil {
		w.t.Fatal(err)
	}
}

// until takes what comes until done says so.
func (w *watcher) until(done func() bool) {
	w.t.Helper()
	for !done() {
		message, err := w.stream.Recv()
		if err != nil {
			w.t.Fatal(err)
		}
		for _, update := range message.GetUpdates() {
			id := update.GetWatchId()
			if w.ends[id] != nil {
				w.t.Fatalf("%s got %v after its end", id, update)
			}
			if update.GetEnded() != nil {
				w.ends[id] = update.GetEnded()
				continue
			}
			if n := len(update.GetEvents()); n == 0 || update.GetPosition() < update.GetEvents()[n-1].GetSequence() {
				w.t.Fatalf("%s got %v", id, update)
			}
			w.events[id] = append(w.events[id], update.GetEvents()...)
		}
	}
}

func createRun(t *testing.T, sys *system, task, input string) string {
	t.Helper()
	created, err := sys.agents.CreateRun(testContext(t), &agentruntimev1.CreateRunRequest{TaskType: task, Input: []byte(input)})
	if err != nil {
		t.Fatal(err)
	}
	return created.GetRun().GetRunId()
}

// TestWatchesOfOneStreamGetWhatOneOfTheirOwnWould has many watches of two runs,
// from many places, and one of a run that is not there.
func TestWatchesOfOneStreamGetWhatOneOfTheirOwnWould(t *testing.T) {
	t.Parallel()
	sys := start(t)
	ctx := testContext(t)
	runs := []string{createRun(t, sys, "example_task", "{}"), createRun(t, sys, "sleep", `{"seconds":0.3}`)}
	w := watchRuns(ctx, t, sys)
	const each = 50
	for _, run := range runs {
		for i := range each {
			w.add(fmt.Sprint(run, "/", i), &agentruntimev1.WatchRunRequest{RunId: run})
		}
	}
	w.add("nowhere", &agentruntimev1.WatchRunRequest{RunId: "0190b6a0-0000-7000-8000-000000000000"})
	w.until(func() bool { return len(w.ends) == 2*each+1 })

	if reason := w.ends["nowhere"].GetReason(); reason != "RUN_NOT_FOUND" {
		t.Errorf("the watch of a run that is not there ended with %q", reason)
	}
	for _, run := range runs {
		alone := watchAlone(ctx, t, sys, &agentruntimev1.WatchRunRequest{RunId: run})
		for i := range each {
			id := fmt.Sprint(run, "/", i)
			if w.ends[id].GetReason() != "" || fmt.Sprint(sequences(w.events[id])) != fmt.Sprint(sequences(alone)) {
				t.Fatalf("%s got %v and %v, alone it would be %v", id, sequences(w.events[id]), w.ends[id], sequences(alone))
			}
		}
		// One that resumes gets the rest, one that has seen the end only that.
		middle := alone[0].GetSequence()
		w.add(run+"/resumed", &agentruntimev1.WatchRunRequest{RunId: run, AfterSequence: middle})
		w.add(run+"/over", &agentruntimev1.WatchRunRequest{RunId: run, AfterSequence: alone[len(alone)-1].GetSequence()})
		w.until(func() bool { return w.ends[run+"/resumed"] != nil && w.ends[run+"/over"] != nil })
		rest := watchAlone(ctx, t, sys, &agentruntimev1.WatchRunRequest{RunId: run, AfterSequence: middle})
		if got := w.events[run+"/resumed"]; len(rest) == 0 || fmt.Sprint(sequences(got)) != fmt.Sprint(sequences(rest)) {
			t.Errorf("resumed behind %d: %v, want %v", middle, sequences(got), sequences(rest))
		}
		if got := w.events[run+"/over"]; len(got) > 0 {
			t.Errorf("behind the end came %v", got)
		}
	}
}

func TestWatchThatIsRemovedGetsNothingMore(t *testing.T) {
	t.Parallel()
	sys := start(t)
	run := createRun(t, sys, "sleep", `{"seconds":60}`)
	w := watchRuns(testContext(t), t, sys)
	w.add("removed", &agentruntimev1.WatchRunRequest{RunId: run})
	w.add("stays", &agentruntimev1.WatchRunRequest{RunId: run})
	begun := func(id string) bool {
		events := w.events[id]
		return len(events) > 0 && events[len(events)-1].GetType() == "run.started"
	}
	w.until(func() bool { return begun("removed") && begun("stays") })
	w.remove("removed")
	w.remove("never there")
	// The runtime has followed the removal when it has followed what was asked for behind it.
	w.add("behind", &agentruntimev1.WatchRunRequest{RunId: run})
	w.until(func() bool { return begun("behind") })
	seen := len(w.events["removed"])
	if _, err := sys.agents.CancelRun(testContext(t), &agentruntimev1.CancelRunRequest{RunId: run}); err != nil {
		t.Fatal(err)
	}
	w.until(func() bool { return w.ends["stays"] != nil && w.ends["behind"] != nil })
	if len(w.events["removed"]) != seen || w.ends["removed"] != nil {
		t.Errorf("a removed watch got %v and %v", w.events["removed"][seen:], w.ends["removed"])
	}
}

func TestRequestsForWatchesThatMakeNoSenseEndTheStream(t *testing.T) {
	t.Parallel()
	sys := start(t)
	run := createRun(t, sys, "sleep", `{"seconds":3600}`)
	watch := &agentruntimev1.WatchRunRequest{RunId: run}
	tests := map[string]func(*watcher){
		"nothing": func(w *watcher) {
			if err := w.stream.Send(&agentruntimev1.WatchRunsRequest{}); err != nil {
				t.Fatal(err)
			}
		},
		"no name":   func(w *watcher) { w.add("", watch) },
		"long name": func(w *watcher) { w.add(strings.Repeat("n", 65), watch) },
		"name in use": func(w *watcher) {
			w.add("twice", watch)
			w.until(func() bool { return len(w.events["twice"]) > 0 })
			w.add("twice", watch)
		},
	}
	for name, ask := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watchRuns(testContext(t), t, sys)
			ask(w)
			for {
				if _, err := w.stream.Recv(); err != nil {
					refused(t, err, codes.InvalidArgument, "INVALID_ARGUMENT")
					return
				}
			}
		})
	}
}

// watchAlone returns what WatchRun gives.
func watchAlone(ctx context.Context, t *testing.T, sys *system, request *agentruntimev1.WatchRunRequest) []*agentruntimev1.RunEvent {
	t.Helper()
	stream, err := sys.agents.WatchRun(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	var events []*agentruntimev1.RunEvent
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return events
		}
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, message.GetEvents()...)
	}
}

func sequences(events []*agentruntimev1.RunEvent) []uint64 {
	var numbers []uint64
	for _, ev := range events {
		numbers = append(numbers, ev.GetSequence())
	}
	return numbers
}

// TestWatchesAreAdmittedEach has a client whose token may make one call in 1000
// seconds, and one whose token is taken away while its stream is open.
func TestWatchesAreAdmittedEach(t *testing.T) {
	t.Parallel()
	path := writeTokens(t)
	sys := start(t, "--tokens-file="+path)
	created, err := sys.agents.CreateRun(as(t, "Bearer writer-secret", "default"), &agentruntimev1.CreateRunRequest{TaskType: "example_task"})
	if err != nil {
		t.Fatal(err)
	}
	watch := &agentruntimev1.WatchRunRequest{RunId: created.GetRun().GetRunId()}
	slow := watchRuns(as(t, "Bearer slow-secret", "default"), t, sys)
	slow.add("waits", watch)

	w := watchRuns(as(t, "Bearer reader-secret", "default"), t, sys)
	w.add("before", watch)
	w.until(func() bool { return w.ends["before"] != nil })
	text := "tokens: [{name: fresh, hash: " + token.Hash("fresh-secret") + ", namespaces: [default], access: read}]"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sys.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.add("after", watch)
	w.until(func() bool { return w.ends["after"] != nil })
	if reason := w.ends["after"].GetReason(); reason != "UNAUTHENTICATED" || len(w.events["after"]) > 0 {
		t.Errorf("a token that is gone got %v and %q", w.events["after"], reason)
	}
	// The one that waited for its turn finds its token gone.
	slow.until(func() bool { return slow.ends["waits"] != nil })
	if reason := slow.ends["waits"].GetReason(); reason != "UNAUTHENTICATED" || len(slow.events["waits"]) > 0 {
		t.Errorf("a token above its rate got %v and %q", slow.events["waits"], reason)
	}
}
