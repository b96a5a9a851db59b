package mcp

import (
	"fmt"
	"io"
	"mime"
	"net/http"
)

// maxAnswerBytes is how large an answer may be that is no stream; the SDK bounds the
// messages of streams and of processes alike.
const maxAnswerBytes = 16 << 20

// headerTransport adds headers to requests, and bounds the answers.
type headerTransport struct {
	next    *http.Transport
	headers map[string]string
}

// RoundTrip implements http.RoundTripper.
func (t *headerTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	for name, value := range t.headers {
		request.Header.Set(name, value)
	}
	response, err := t.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type")); err != nil || kind != "text/event-stream" {
		response.Body = &boundedBody{ReadCloser: response.Body, left: maxAnswerBytes}
	}
	return response, nil
}

// CloseIdleConnections is what http.Client.CloseIdleConnections looks for.
func (t *headerTransport) CloseIdleConnections() { t.next.CloseIdleConnections() }

// boundedBody fails, rather than ends, where a body is too long.
type boundedBody struct {
	io.ReadCloser

	left int
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the answer is larger than %d bytes", maxAnswerBytes)
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
