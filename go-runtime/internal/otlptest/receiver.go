// Package otlptest is a collector of traces for tests: a server that takes OTLP over
// HTTP and keeps the spans.
package otlptest

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Span is a span as it came.
type Span struct {
	*tracepb.Span

	// Attributes are texts, numbers, booleans and lists of texts, by their names.
	Attributes map[string]any
	// Service is the resource's service.name.
	Service string
	// Request is what brought it, without its body.
	Request *http.Request
}

// Receiver is a collector.
type Receiver struct {
	// URL has no path.
	URL string

	server *httptest.Server
	mu     sync.Mutex
	spans  []Span
	came   *sync.Cond
}

// New starts a collector that ends with the test.
func New(tb testing.TB) *Receiver {
	tb.Helper()
	r := &Receiver{}
	r.came = sync.NewCond(&r.mu)
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if err := r.take(request); err != nil {
			tb.Errorf("a request to %s is no OTLP: %v", request.URL, err)
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	tb.Cleanup(r.server.Close)
	r.URL = r.server.URL
	return r
}

func (r *Receiver) take(request *http.Request) error {
	body := io.Reader(request.Body)
	if request.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			return err
		}
		body = unzipped
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	var batch coltracepb.ExportTraceServiceRequest
	if err := proto.Unmarshal(data, &batch); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, resource := range batch.GetResourceSpans() {
		service, _ := attributesOf(resource.GetResource().GetAttributes())["service.name"].(string)
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				r.spans = append(r.spans, Span{s, attributesOf(s.GetAttributes()), service, request})
			}
		}
	}
	r.came.Broadcast()
	return nil
}

func attributesOf(pairs []*commonpb.KeyValue) map[string]any {
	attributes := make(map[string]any, len(pairs))
	for _, pair := range pairs {
		switch value := pair.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			attributes[pair.GetKey()] = value.StringValue
		case *commonpb.AnyValue_IntValue:
			attributes[pair.GetKey()] = value.IntValue
		case *commonpb.AnyValue_BoolValue:
			attributes[pair.GetKey()] = value.BoolValue
		case *commonpb.AnyValue_ArrayValue:
			var items []string
			for _, item := range value.ArrayValue.GetValues() {
				items = append(items, item.GetStringValue())
			}
			attributes[pair.GetKey()] = items
		default:
			attributes[pair.GetKey()] = value
		}
	}
	return attributes
}

// Spans returns the spans that came by now.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Span(nil), r.spans...)
}

// Named returns the one span of a name.
func (r *Receiver) Named(tb testing.TB, name string) Span {
	tb.Helper()
	var found []Span
	var names []string
	for _, s := range r.Spans() {
		names = append(names, s.GetName())
		if s.GetName() == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		tb.Fatalf("%d spans are called %q of %q", len(found), name, names)
	}
	return found[0]
}

// Await returns the spans once there are so many.
func (r *Receiver) Await(count int) []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.spans) < count {
		r.came.Wait()
	}
	return append([]Span(nil), r.spans...)
}
