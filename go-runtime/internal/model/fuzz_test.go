package model

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/model/price"
)

// canned answers every request with one body.
type canned struct{ contentType, body string }

func (c canned) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Body != nil {
		_, _ = io.Copy(io.Discard, request.Body)
		_ = request.Body.Close()
	}
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: request,
		Header: http.Header{"Content-Type": {c.contentType}}, Body: io.NopCloser(strings.NewReader(c.body)),
	}, nil
}

// fuzzAnswers has an endpoint say anything: whatever it is, there is an answer or
// an *Error, what was streamed is the text of the answer, and calls can be made.
func fuzzAnswers(f *testing.F, d dialect) {
	f.Helper()
	for _, seed := range []string{d.text, d.calls, d.object, d.truncated, d.refusal, d.filtered, d.empty, "null"} {
		f.Add(false, seed)
	}
	for _, seed := range []string{d.stream, d.callStream, d.badCallStream, d.midStream, d.midStreamLimit, d.endsEarly, d.endsEarly + d.broken} {
		f.Add(true, seed)
	}
	cfg := d.at("http://endpoint.example")
	prices := price.New()
	f.Fuzz(func(t *testing.T, stream bool, body string) {
		contentType := jsonType
		var streamed strings.Builder
		request := ask(nil)
		if stream {
			contentType = eventsType
			request.Pieces = func(text string) error {
				streamed.WriteString(text)
				return nil
			}
		}
		client := &http.Client{Transport: limitTransport{next: canned{contentType, body}, limit: 1 << 20}}
		made, err := makeAsker(cfg.kinds()[0], client)
		if err != nil {
			t.Fatal(err)
		}
		target := newTarget(reference{d.name(), "m"}, &provider{asker: made, timeout: DefaultTimeout, prices: prices}, quiet)
		response, err := (&attempts{target: target, request: request}).send(t.Context(), false)
		if err != nil {
			if _, failed := errors.AsType[*Error](err); !failed {
				t.Fatalf("error %v is no *Error", err)
			}
			return
		}
		if response.Text == "" && len(response.ToolCalls) == 0 {
			t.Errorf("an answer of nothing: %+v", response)
		}
		if stream && streamed.String() != response.Text {
			t.Errorf("streamed %q, answered %q", streamed.String(), response.Text)
		}
		for _, call := range response.ToolCalls {
			if call.ID == "" || call.Name == "" {
				t.Errorf("call %+v", call)
			}
		}
	})
}

func FuzzOpenAI(f *testing.F)    { fuzzAnswers(f, openAIDialect()) }
func FuzzAnthropic(f *testing.F) { fuzzAnswers(f, anthropicDialect()) }
func FuzzGemini(f *testing.F)    { fuzzAnswers(f, geminiDialect()) }
