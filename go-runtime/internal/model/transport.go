package model

import (
	"context"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"time"
)

// maxResponseBytes is far above any answer, and keeps a broken endpoint from filling memory.
const maxResponseBytes = 32 << 20

// newHTTPClient returns a client for one provider. It follows no redirect, which
// would carry the key to whom it is not for.
func newHTTPClient() *http.Client {
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   32,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
	return &http.Client{
		Transport:     limitTransport{next: transport, limit: maxResponseBytes},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answered is what an endpoint's response says before its body. The SDKs' own
// errors lack it when the body is not in their form.
type answered struct {
	status int
	header http.Header
}

type answeredKey struct{}

// watch returns a context for one request, and where its answer shows.
func watch(ctx context.Context) (context.Context, *answered) {
	a := &answered{}
	return context.WithValue(ctx, answeredKey{}, a), a
}

// streams reports whether the body is a stream of events.
func (a *answered) streams() bool {
	kind, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
	return kind == "text/event-stream"
}

// retryAfter is how long the endpoint asks to wait, or 0.
func (a *answered) retryAfter() time.Duration {
	if ms, err := strconv.Atoi(a.header.Get("Retry-After-Ms")); err == nil && ms > 0 {
		return time.Duration(ms) * time.Millisecond
	}
	after := a.header.Get("Retry-After")
	if seconds, err := strconv.Atoi(after); err == nil && seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(after); err == nil {
		return max(0, time.Until(at).Round(time.Second))
	}
	return 0
}

// limitTransport ends a response body that goes on beyond its limit of bytes.
type limitTransport struct {
	next  http.RoundTripper
	limit int64
}

func (t limitTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if a, watched := request.Context().Value(answeredKey{}).(*answered); watched {
		a.status, a.header = response.StatusCode, response.Header
	}
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(response.Body, t.limit), response.Body}
	return response, nil
}
