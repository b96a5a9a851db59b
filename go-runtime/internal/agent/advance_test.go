package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
)

func TestAnswersAreThoseOfTheirQuestions(t *testing.T) {
	t.Parallel()
	const first, second, below, gone = "00000000000000a1.0", "00000000000000a2.0", "00000000000000a3/00000000000000a4.1", "00000000000000a5.0"
	for name, test := range map[string]struct {
		open   []string
		answer string
		want   map[string]any
	}{
		"a word for the first":        {[]string{first, second}, `"yes"`, map[string]any{first: "yes"}},
		"an object for the first":     {[]string{first, second}, `{"approved": true}`, map[string]any{first: map[string]any{"approved": true}}},
		"an object of none":           {[]string{first}, `{}`, map[string]any{first: map[string]any{}}},
		"all by their ids":            {[]string{first, below}, fmt.Sprintf(`{%q: 1, %q: 2}`, first, below), map[string]any{first: 1.0, below: 2.0}},
		"one of several by its id":    {[]string{first, second}, fmt.Sprintf(`{%q: true}`, second), map[string]any{second: true}},
		"the one that is left":        {[]string{second}, fmt.Sprintf(`{%q: true}`, second), map[string]any{second: true}},
		"one of a subgraph":           {[]string{below}, fmt.Sprintf(`{%q: true}`, below), map[string]any{below: true}},
		"beside one that is answered": {[]string{second}, fmt.Sprintf(`{%q: true, %q: false}`, first, second), map[string]any{second: false}},
		"one that is not open":        {[]string{first, second}, fmt.Sprintf(`{%q: true}`, gone), map[string]any{}},
		"of one, one not open":        {[]string{first}, fmt.Sprintf(`{%q: true}`, gone), map[string]any{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var questions []graph.Interrupt
			for _, id := range test.open {
				questions = append(questions, graph.Interrupt{ID: id})
			}
			got, err := answersOf(questions, []engine.Answer{{InterruptID: test.open[0], Value: []byte(test.answer)}})
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("%v, %v, want %v", got, err, test.want)
			}
		})
	}
}

// TestApprovalsAreAnsweredOneByOne names each question, the last one too, and once one that
// there is not.
func TestApprovalsAreAnsweredOneByOne(t *testing.T) {
	t.Parallel()
	url, called := shop(t)
	provider := &acting{act: func(r model.Request) model.Response {
		if _, isResult := last(r); !isResult {
			return calls("refund", `{"amount":5}`, "refund", `{"amount":900}`)
		}
		text, _ := encode(map[string]string{"reply": strings.Join(results(r), "|")})
		return model.Response{Text: string(text)}
	}}
	b := openWith(t, t.TempDir(), defining(t, provider, fmt.Sprintf(support, url)))
	id := b.do("support", "answer", `{"order":7}`, "")
	interruptID, payload := b.question(id, "")
	questions, _ := payload["questions"].([]any)
	if len(questions) != 2 {
		t.Fatalf("asks %v", payload)
	}
	b.resume(id, interruptID, `{"00000000000000a5.0": true}`)
	b.asksTwice(id, interruptID)
	b.resume(id, interruptID, fmt.Sprintf(`{%q: true}`, questions[0].(map[string]any)["id"]))
	left, _ := b.question(id, interruptID)
	b.resume(id, left, fmt.Sprintf(`{%q: true}`, left))
	b.wantEnd(id, engine.Succeeded, 1)
	if got := called(); !slices.Equal(got, []string{`/refund {"amount":5}`, `/refund {"amount":900}`}) {
		t.Errorf("called %v", got)
	}
}

// asksTwice waits until a run has asked a question again.
func (b *bench) asksTwice(runID, interruptID string) {
	b.t.Helper()
	asked, found := 0, errors.New("found")
	err := b.WatchRun(b.t.Context(), "default", runID, 0, engine.Internal, func(events []engine.Event, _ uint64) error {
		for _, e := range events {
			var about struct {
				InterruptID string `json:"interrupt_id"`
			}
			if e.Type == "run.interrupted" && json.Unmarshal(e.Payload, &about) == nil && about.InterruptID == interruptID {
				asked++
			}
		}
		if asked == 2 {
			return found
		}
		return nil
	})
	if asked != 2 {
		b.t.Fatalf("asked %d times: %v", asked, err)
	}
}
