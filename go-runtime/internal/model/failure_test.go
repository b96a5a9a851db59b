package model

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestFailuresAreClassified(t *testing.T) {
	t.Parallel()
	const soon = "Retry-After-Ms"
	each(t, func(t *testing.T, d dialect) {
		quotes := payload + " " + testKey
		fail := func(status int, code string, header ...string) http.HandlerFunc {
			return says(status, jsonType, d.failure(code, quotes), header...)
		}
		for name, test := range map[string]struct {
			answer   http.HandlerFunc
			kind     Kind
			requests int
			text     string
		}{
			"bad key":             {fail(401, "x"), Unauthorized, 1, "does not accept the API key (HTTP 401)"},
			"forbidden":           {fail(403, "x"), Unauthorized, 1, "(HTTP 403)"},
			"no model":            {fail(404, "x"), Rejected, 1, "(HTTP 404)"},
			"too large":           {fail(413, "x"), Rejected, 1, "(HTTP 413)"},
			"no credit":           {fail(402, "x"), QuotaExhausted, 1, "no quota left"},
			"limit, later":        {fail(429, d.limited, "Retry-After", "3600"), RateLimited, 1, "(HTTP 429); retry after 1h0m0s"},
			"limit, soon":         {fail(429, d.limited, soon, "1"), RateLimited, 3, "(HTTP 429); retry after 1ms"},
			"server error":        {fail(500, "x", soon, "1"), Unavailable, 3, "(HTTP 500)"},
			"overloaded":          {fail(529, d.overloaded, soon, "1"), Unavailable, 3, "(HTTP 529)"},
			"a page of a gateway": {says(502, "text/html", "<h1>"+quotes+"</h1>", soon, "1"), Unavailable, 3, "(HTTP 502)"},
			"redirect":            {says(307, jsonType, "{}", "Location", "http://127.0.0.1:1/elsewhere"), Malformed, 1, "not an answer"},
			"cut off":             {cutOff(jsonType, d.text[:40]), Malformed, 1, "not an answer"},
			"half of JSON":        {says(200, jsonType, d.text[:40]), Malformed, 1, "not an answer"},
			"a web page":          {says(200, "text/html", "<h1>"+quotes+"</h1>"), Malformed, 1, "not an answer"},
			"another's JSON":      {says(200, jsonType, `{"answer":"`+quotes+`"}`), Malformed, 1, "not an answer"},
			"nothing":             {says(200, jsonType, ""), Malformed, 1, "not an answer"},
			"null":                {says(200, jsonType, "null"), Malformed, 1, "not an answer"},
			"wrong types":         {says(200, jsonType, `{"choices":{"a":1},"content":7,"candidates":"x"}`), Malformed, 1, "not an answer"},
			"empty":               {says(200, jsonType, d.empty), Malformed, 1, "not an answer"},
			"too long":            {says(200, jsonType, d.truncated), Truncated, 1, "cut short"},
			"refusal":             {says(200, jsonType, d.refusal), Refused, 1, "refused"},
			"content filter":      {says(200, jsonType, d.filtered), Refused, 1, "refused"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				d.checkFailure(t, test.answer, ask(nil), test.kind, test.requests, test.text)
			})
		}
	})
}

func TestFailuresOfStreamsAreClassified(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d dialect) {
		for name, test := range map[string]struct {
			answer   http.HandlerFunc
			kind     Kind
			requests int
		}{
			"bad key":        {says(401, jsonType, d.failure("x", testKey)), Unauthorized, 1},
			"server error":   {says(500, jsonType, d.failure("x", testKey), "Retry-After-Ms", "1"), Unavailable, 3},
			"reports":        {says(200, eventsType, d.midStream), Unavailable, 1},
			"reports limit":  {says(200, eventsType, d.midStreamLimit, "Retry-After-Ms", "1"), RateLimited, 3},
			"cut off":        {cutOff(eventsType, d.endsEarly), Unavailable, 1},
			"ends early":     {says(200, eventsType, d.endsEarly), Malformed, 1},
			"half an event":  {says(200, eventsType, d.endsEarly+d.broken), Unavailable, 1},
			"a web page":     {says(200, "text/html", "<h1>"+testKey+"</h1>"), Malformed, 1},
			"not streamed":   {says(200, jsonType, d.text), Malformed, 1},
			"without events": {says(200, eventsType, ""), Malformed, 1},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				request := ask(nil)
				request.Pieces = func(string) error { return nil }
				d.checkFailure(t, test.answer, request, test.kind, test.requests, "")
			})
		}
	})
}

func (d dialect) checkFailure(t *testing.T, answer http.HandlerFunc, request Request, kind Kind, requests int, text string) {
	t.Helper()
	var logged lockedBuffer
	server := newWire(t, answer)
	response, err := d.router(t, server.URL, slog.New(slog.NewTextHandler(&logged, nil))).Complete(t.Context(), request)
	failure, failed := errors.AsType[*Error](err)
	if !failed || !reflect.DeepEqual(response, Response{}) || failure.Model != d.model {
		t.Fatalf("Complete = %+v, %#v; want an *Error", response, err)
	}
	if failure.Kind != kind || len(server.sent()) != requests {
		t.Errorf("kind %s after %d requests (%v); want %s after %d", failure.Kind, len(server.sent()), failure.Cause, kind, requests)
	}
	if !strings.Contains(failure.Error(), text) {
		t.Errorf("text %q lacks %q", failure.Error(), text)
	}
	for _, said := range []string{failure.Error(), fmt.Sprintf("%v %+v", failure.Cause, failure.Cause), logged.String()} {
		if strings.Contains(said, testKey) || strings.Contains(said, payload) {
			t.Errorf("a secret got into %q", said)
		}
	}
}

func TestAHugeAnswerIsCutShort(t *testing.T) {
	t.Parallel()
	flood := newWire(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", jsonType)
		filler := []byte(strings.Repeat(" ", 1<<20))
		for r.Context().Err() == nil {
			if _, err := w.Write(filler); err != nil {
				return
			}
		}
	})
	each(t, func(t *testing.T, d dialect) {
		client := newHTTPClient()
		client.Transport = limitTransport{next: client.Transport.(limitTransport).next, limit: 1 << 20}
		cfg := d.at(flood.URL)
		asker, err := makeAsker(cfg.kinds()[0], client)
		if err != nil {
			t.Fatal(err)
		}
		_, err = asker.ask(t.Context(), "asked-model", ask(nil), false)
		if failure, failed := errors.AsType[*Error](err); !failed || failure.Kind != Malformed {
			t.Errorf("Complete error = %v, want it malformed", err)
		}
	})
}

func TestCallsEndWithTheirContextAndWithTheirReader(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d dialect) {
		cancelled := errors.New("cancelled by its owner")
		for name, begin := range map[string]string{"before an answer": "", "in an answer": d.endsEarly} {
			hanging, reached := hangs(begin)
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				<-reached
				cancel(cancelled)
			}()
			request := ask(nil)
			if begin != "" {
				request.Pieces = func(string) error { return nil }
			}
			_, err := d.router(t, newWire(t, hanging).URL, quiet).Complete(ctx, request)
			if _, failed := errors.AsType[*Error](err); failed || !errors.Is(err, cancelled) || !errors.Is(err, context.Canceled) {
				t.Errorf("%s: Complete error = %v, want the cause of the cancellation", name, err)
			}
			cancel(nil)
		}
		enough := errors.New("enough")
		request := ask(nil)
		request.Pieces = func(string) error { return enough }
		hanging, _ := hangs(d.endsEarly)
		if _, err := d.router(t, newWire(t, hanging).URL, quiet).Complete(t.Context(), request); !errors.Is(err, enough) {
			t.Errorf("Complete error = %v, want the reader's", err)
		}
	})
}

func TestASlowEndpointIsGivenUpAfterOneRequest(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d dialect) {
		hanging, _ := hangs("")
		server := newWire(t, hanging)
		cfg := d.at(server.URL)
		cfg.Timeout = 50 * time.Millisecond
		router, err := New(cfg, quiet)
		if err != nil {
			t.Fatal(err)
		}
		_, err = router.Complete(t.Context(), ask(nil))
		if failure, failed := errors.AsType[*Error](err); !failed || failure.Kind != Unavailable || len(server.sent()) != 1 {
			t.Errorf("Complete error = %v after %d requests, want it unavailable after one", err, len(server.sent()))
		}
	})
}

func TestProvidersOwnWordsForAFailure(t *testing.T) {
	t.Parallel()
	retry := `{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[` +
		`{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPer%sPerProjectPerModel-FreeTier"}]},` +
		`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.074824224s"}]}}`
	for name, test := range map[string]struct {
		dialect dialect
		status  int
		body    string
		kind    Kind
		after   time.Duration
	}{
		"OpenAI, no credit":      {openAIDialect(), 429, `{"error":{"message":"m","type":"insufficient_quota","code":"insufficient_quota"}}`, QuotaExhausted, 0},
		"Anthropic, no credit":   {anthropicDialect(), 400, anthropicDialect().failure("invalid_request_error", "Your credit balance is too low to access the API."), QuotaExhausted, 0},
		"Anthropic, billing":     {anthropicDialect(), 403, anthropicDialect().failure("billing_error", "m"), QuotaExhausted, 0},
		"Anthropic, bad request": {anthropicDialect(), 400, anthropicDialect().failure("invalid_request_error", "m"), Rejected, 0},
		"Gemini, minute":         {geminiDialect(), 429, fmt.Sprintf(retry, "Minute"), RateLimited, 34_074_824_224},
		"Gemini, day":            {geminiDialect(), 429, fmt.Sprintf(retry, "Day"), QuotaExhausted, 34_074_824_224},
		"Gemini, bad key": {geminiDialect(), 400, `{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT","details":[` +
			`{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"}]}}`, Unauthorized, 0},
		"Gemini, malformed call": {geminiDialect(), 200, `{"candidates":[{"content":{},"finishReason":"MALFORMED_FUNCTION_CALL"}]}`, Malformed, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newWire(t, says(test.status, jsonType, test.body))
			_, err := test.dialect.router(t, server.URL, quiet).Complete(t.Context(), ask(nil))
			failure, failed := errors.AsType[*Error](err)
			if !failed || failure.Kind != test.kind || failure.RetryAfter != test.after || len(server.sent()) != 1 {
				t.Errorf("Complete error = %v after %d requests; want %s after %s", err, len(server.sent()), test.kind, test.after)
			}
		})
	}
}
