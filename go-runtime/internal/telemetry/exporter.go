package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const (
	// logPause is how often the log says that spans are lost.
	logPause = time.Minute
	// maxReasonBytes bounds what it says of why.
	maxReasonBytes = 300
)

// errStopping ends an export when the time to stop is over.
var errStopping = errors.New("tracing stops")

// queueSize is how many spans may wait for a collector, those that are being sent among
// them: OTEL_BSP_MAX_QUEUE_SIZE, which the queue itself reads too.
func queueSize(getenv func(string) string) int64 {
	if size, err := strconv.ParseInt(getenv("OTEL_BSP_MAX_QUEUE_SIZE"), 10, 32); err == nil && size > 0 {
		return size
	}
	return sdktrace.DefaultMaxQueueSize
}

// exporter sends spans to a collector. It is a processor of spans in front of the SDK's
// queue, whose length it bounds itself so that it knows what was dropped.
type exporter struct {
	sdktrace.SpanProcessor

	to    *collector
	log   *slog.Logger
	limit int64

	pending               atomic.Int64
	sent, failed, dropped atomic.Uint64

	// giveUp ends when exports must.
	giveUp    context.Context //nolint:containedctx // ended by stop
	endGiveUp context.CancelCauseFunc

	mu     sync.Mutex
	logged time.Time
	// unsaid is how many spans were lost since the log said so.
	unsaid uint64
}

func newExporter(to *collector, limit int64, log *slog.Logger) *exporter {
	e := &exporter{to: to, log: log, limit: limit}
	e.giveUp, e.endGiveUp = context.WithCancelCause(context.Background())
	e.SpanProcessor = sdktrace.NewBatchSpanProcessor(sender{e})
	return e
}

// OnEnd implements sdktrace.SpanProcessor. It never waits.
func (e *exporter) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	if e.pending.Add(1) > e.limit {
		e.pending.Add(-1)
		e.dropped.Add(1)
		e.lose(1, "the queue of spans is full")
		return
	}
	e.SpanProcessor.OnEnd(s)
}

// stop sends what is left until ctx ends.
func (e *exporter) stop(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { e.endGiveUp(errStopping) })()
	// It ends soon after ctx, since exports then fail. Their errors are counted and logged.
	_ = e.Shutdown(context.WithoutCancel(ctx))
}

// lose says in the log that spans were lost, now and then.
func (e *exporter) lose(count int, why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unsaid += uint64(count)
	now := time.Now()
	if !e.logged.IsZero() && now.Sub(e.logged) < logPause {
		return
	}
	for _, secret := range e.to.secrets {
		why = strings.ReplaceAll(why, secret, "[secret]")
	}
	why = violation.Clip(strings.ToValidUTF8(why, "\uFFFD"), maxReasonBytes)
	e.log.Warn("spans lost", "exporter", e.to.name, "spans", e.unsaid, "err", why)
	e.logged, e.unsaid = now, 0
}

// sender is the end of an exporter's queue.
type sender struct{ *exporter }

// ExportSpans implements sdktrace.SpanExporter. Failures are counted and logged, not returned.
func (e sender) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	defer e.pending.Add(-int64(len(spans)))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(e.giveUp, func() { cancel(errStopping) })()
	if e.to.shape != nil {
		shaped := make([]sdktrace.ReadOnlySpan, len(spans))
		for i, s := range spans {
			shaped[i] = e.to.shape(s)
		}
		spans = shaped
	}
	if err := e.to.client.ExportSpans(ctx, spans); err != nil {
		e.failed.Add(uint64(len(spans)))
		e.lose(len(spans), err.Error())
		return nil
	}
	e.sent.Add(uint64(len(spans)))
	return nil
}

// Shutdown implements sdktrace.SpanExporter.
func (e sender) Shutdown(ctx context.Context) error { return e.to.client.Shutdown(ctx) }
