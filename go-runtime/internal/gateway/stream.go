package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/djangobridge/djangobridge/go-runtime/internal/ticket"
)

// The parameters of a stream's query.
const (
	ticketParameter      = "ticket"
	fromSeqParameter     = "from_seq"
	lastEventIDParameter = "last_event_id"
	unnamedParameter     = "unnamed"
)

// StreamPath is the path of a run's events, before the query: `ticket`, and as
// wanted `from_seq` or `last_event_id`, and `unnamed=1`. What else a query has is ignored: an
// EventSource would give up for good for what a proxy adds on the way.
func StreamPath(runID string) string { return "/v1/runs/" + url.PathEscape(runID) + "/events" }

// retryLine begins every stream: a browser that lost it comes again after 2 s.
const retryLine = "retry: 2000\n\n"

// Limits and times of streams.
const (
	// frameBytes is how much is joined into one write.
	frameBytes = 64 << 10
	// keepBytes is how large a buffer may be to be used again.
	keepBytes = 4 * frameBytes
	// limitRetry is when to come again to a runtime that has too many readers.
	limitRetry = 5 * time.Second
	// sequenceBits is how many bits the largest sequence has.
	sequenceBits = 63
	// preflightAge is how long a browser may remember what is allowed.
	preflightAge = 10 * time.Minute
	// DefaultHeartbeat is how long a stream is silent before it shows a sign of life.
	DefaultHeartbeat = 15 * time.Second
)

// Runs is where the events of runs come from.
type Runs interface {
	// EndOfRun returns the sequence of the event with which a run ended, 0 while
	// it has not. Errors: ErrRunNotFound.
	EndOfRun(ctx context.Context, namespace, runID string) (uint64, error)
	// WatchRun hands the events of a run to send, from the one after the given
	// sequence on, without gap or repeat, and returns after the run's end. Errors:
	// ErrRunNotFound when retention removed the run meanwhile, *TruncatedError,
	// ctx's cause, send's, and those after which a reader comes again.
	WatchRun(ctx context.Context, namespace, runID string, after uint64, least string, send func([]Event) error) error
}

// ErrRunNotFound reports a run that is not known.
var ErrRunNotFound = errors.New("run not found")

// TruncatedError reports that events were lost with a damaged disk.
type TruncatedError struct {
	// Oldest is the oldest sequence that may still be there.
	Oldest uint64
}

// Error implements error.
func (e *TruncatedError) Error() string {
	return fmt.Sprintf("what was asked for is gone; the oldest that is kept is %d", e.Oldest)
}

// Tickets says what a ticket allows; its errors are ticket.ErrInvalid,
// ticket.ErrExpired, and others after which a reader comes again.
type Tickets interface {
	Verify(ctx context.Context, text string) (ticket.Ticket, error)
}

// StreamConfig says how the events of runs are served.
type StreamConfig struct {
	Runs    Runs
	Tickets Tickets
	// Origins are the sites whose pages may read, such as https://example.com.
	Origins []string
	// Limit is how many streams may be open, LimitPerUser how many of one principal.
	Limit, LimitPerUser int
	// SendTimeout is how long a reader may take nothing before it is cut off.
	SendTimeout time.Duration
	// Heartbeat is how long a stream is silent before it shows a sign of life; 0: DefaultHeartbeat.
	Heartbeat time.Duration
	Metrics   StreamMetrics
}

// StreamMetrics is what is counted of streams.
type StreamMetrics struct {
	// Open is how many streams are open.
	Open prometheus.Gauge
	// Events counts those that were sent.
	Events prometheus.Counter
	// Ended counts streams by `reason`: finished, left, slow, draining, removed
	// (the run, by retention), failed, unavailable (ended at once), and for those
	// that were refused the problem's code.
	Ended *prometheus.CounterVec
}

// streams serves the events of runs.
type streams struct {
	cfg     StreamConfig
	origins map[string]bool
	// serving says whether tickets and runs can be asked.
	serving func() bool
	log     *slog.Logger
	places  places
	buffers sync.Pool
	// running ends, with errDraining, when the runtime stops.
	running context.Context //nolint:containedctx // the lifetime of all streams, ended by drain
	end     context.CancelCauseFunc
}

func newStreams(cfg StreamConfig, serving func() bool, log *slog.Logger) *streams {
	s := &streams{cfg: cfg, origins: map[string]bool{}, serving: serving, log: log}
	for _, origin := range cfg.Origins {
		s.origins[origin] = true
	}
	if s.cfg.Heartbeat == 0 {
		s.cfg.Heartbeat = DefaultHeartbeat
	}
	s.places = places{limit: cfg.Limit, limitPerUser: cfg.LimitPerUser, taken: map[string]int{}}
	s.buffers.New = func() any { return new([]byte) }
	s.running, s.end = context.WithCancelCause(context.Background())
	return s
}

// drain ends every stream, now and from now on.
func (s *streams) drain() { s.end(errDraining) }

// ServeHTTP implements http.Handler for one run's events.
func (s *streams) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := s.answer(w, r); p != nil {
		s.cfg.Metrics.Ended.WithLabelValues(p.Code).Inc()
		p.write(w)
	}
}

// answer serves the request, or returns why it is refused.
func (s *streams) answer(w http.ResponseWriter, r *http.Request) *problem {
	header := w.Header()
	header.Set("Vary", "Origin")
	if origin := r.Header.Get("Origin"); s.origins[origin] {
		header.Set("Access-Control-Allow-Origin", origin)
		header.Set("Access-Control-Expose-Headers", "Retry-After")
	} else if origin != "" && !sameHost(origin, r.Host) {
		return newProblem(http.StatusForbidden, "ORIGIN_NOT_ALLOWED",
			"Pages of this origin may not read streams; the runtime's stream-origins names those that may.")
	}
	switch r.Method {
	case http.MethodGet:
	case http.MethodOptions:
		header.Set("Access-Control-Allow-Methods", http.MethodGet)
		header.Set("Access-Control-Allow-Headers", "Last-Event-ID, Cache-Control")
		header.Set("Access-Control-Max-Age", strconv.Itoa(int(preflightAge/time.Second)))
		w.WriteHeader(http.StatusNoContent)
		return nil
	default:
		header.Set("Allow", "GET, OPTIONS")
		return newProblem(http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", "Streams are read with GET.")
	}
	if s.running.Err() != nil || !s.serving() {
		s.comeAgain(w)
		return nil
	}
	t, p := s.admit(w, r)
	if p != nil || t == nil {
		return p
	}
	want, p := readWish(r)
	if p != nil {
		return p
	}
	end, err := s.cfg.Runs.EndOfRun(r.Context(), t.Namespace, t.RunID)
	switch {
	case errors.Is(err, ErrRunNotFound):
		return newProblem(http.StatusNotFound, "RUN_NOT_FOUND", "There is no such run, or no more.")
	case err != nil:
		s.comeAgain(w)
		return nil
	case end > 0 && want.after >= end:
		// It tells an EventSource, which comes again after every end, that there is no more.
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	user := t.Namespace + "\x00" + t.Principal
	if t.Principal == "" {
		user += "\x00" + t.RunID
	}
	if p := s.places.take(user); p != nil {
		return p
	}
	defer s.places.release(user)
	s.cfg.Metrics.Open.Inc()
	defer s.cfg.Metrics.Open.Dec()
	reason := s.stream(w, r, t, want)
	s.cfg.Metrics.Ended.WithLabelValues(reason).Inc()
	return nil
}

// admit returns what the request's ticket allows; nothing when that was answered.
func (s *streams) admit(w http.ResponseWriter, r *http.Request) (*ticket.Ticket, *problem) {
	t, err := s.cfg.Tickets.Verify(r.Context(), last(r.URL.Query(), ticketParameter))
	switch {
	case errors.Is(err, ticket.ErrExpired):
		return nil, newProblem(http.StatusUnauthorized, "TICKET_EXPIRED",
			"The time of this address is over; ask for a new stream ticket.")
	case errors.Is(err, ticket.ErrInvalid):
		return nil, newProblem(http.StatusUnauthorized, "TICKET_INVALID",
			"The address has no ticket, or one that this runtime did not make.")
	case err != nil:
		s.log.Warn("stream ticket not checked", "err", err)
		s.comeAgain(w)
		return nil, nil
	case t.RunID != r.PathValue("run_id"):
		return nil, newProblem(http.StatusForbidden, "TICKET_OF_ANOTHER_RUN",
			"The ticket is not for the run of this address.")
	}
	return &t, nil
}

// wish is what a reader asks for, beside what its ticket says.
type wish struct {
	// after is the sequence after which the reader goes on.
	after uint64
	// named says whether blocks carry the event's type for a browser.
	named bool
}

// readWish reads a request as Django does for its own streams: of a parameter
// that comes twice the last counts, and an empty one is none. The header goes
// before the query: a browser that comes again sends it with the address it had.
func readWish(r *http.Request) (wish, *problem) {
	query := r.URL.Query()
	var want wish
	var faults []fieldProblem
	for _, place := range []struct{ name, given string }{
		{fromSeqParameter, last(query, fromSeqParameter)},
		{lastEventIDParameter, last(query, lastEventIDParameter)},
		{"Last-Event-ID", r.Header.Get("Last-Event-ID")},
	} {
		if place.given == "" {
			continue
		}
		after, err := strconv.ParseUint(place.given, 10, sequenceBits)
		if err != nil {
			faults = append(faults, fieldProblem{place.name, "Must be the id of an event of the stream, a whole number."})
		}
		want.after = after
	}
	switch strings.ToLower(last(query, unnamedParameter)) {
	case "1", "true", "t", "yes", "y", "on":
	case "", "0", "false", "f", "no", "n", "off":
		want.named = true
	default:
		faults = append(faults, fieldProblem{unnamedParameter, "Must be a valid boolean."})
	}
	if faults != nil {
		return wish{}, doesNotFit(faults...)
	}
	return want, nil
}

// last returns the last value of a parameter; empty: it has none.
func last(query url.Values, name string) string {
	values := query[name]
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// sameHost reports whether an origin is the host that the request was sent to.
func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && u.Host == host
}

// comeAgain answers with a stream that ends at once: unlike a refusal, after
// which an EventSource gives up, it makes a browser come again.
func (s *streams) comeAgain(w http.ResponseWriter) {
	setStreamHeader(w.Header())
	_, _ = w.Write([]byte(retryLine))
	s.cfg.Metrics.Ended.WithLabelValues("unavailable").Inc()
}

func setStreamHeader(header http.Header) {
	header.Set("Content-Type", "text/event-stream; charset=utf-8")
	header.Set("Cache-Control", "no-cache, no-transform")
	header.Set("X-Accel-Buffering", "no")
}

// stream sends events until the run has ended, the reader is gone or cut off, or
// the runtime stops; it returns which.
func (s *streams) stream(w http.ResponseWriter, request *http.Request, t *ticket.Ticket, want wish) string {
	setStreamHeader(w.Header())
	r := newReader(w, request, s.cfg.SendTimeout, s.cfg.Heartbeat)
	defer context.AfterFunc(s.running, func() { r.cancel(errDraining) })()
	err := r.write([]byte(retryLine))
	if err == nil {
		err = s.cfg.Runs.WatchRun(r.ctx, t.Namespace, t.RunID, want.after, t.Least, func(events []Event) error {
			return s.send(r, events, want.named)
		})
	}
	if truncated, found := errors.AsType[*TruncatedError](err); found {
		err = r.write(appendFailure(nil, truncated, want.named))
	}
	if why := r.close(); err != nil && why != nil {
		err = why
	}
	return s.explain(request, t, err)
}

// explain names why a stream is over, and logs what somebody should know of.
func (s *streams) explain(request *http.Request, t *ticket.Ticket, err error) string {
	switch {
	case err == nil:
		return "finished"
	case errors.Is(err, errDraining):
		return "draining"
	case errors.Is(err, errSlow):
		s.log.Debug("slow reader of a stream cut off", "namespace", t.Namespace, "run_id", t.RunID)
		return "slow"
	case request.Context().Err() != nil, errors.Is(err, errLeft):
		return "left"
	case errors.Is(err, ErrRunNotFound):
		return "removed"
	default:
		s.log.Warn("stream of a run failed", "namespace", t.Namespace, "run_id", t.RunID, "err", err)
		return "failed"
	}
}

// send writes events, as many in one write as fit.
func (s *streams) send(r *reader, events []Event, named bool) error {
	buffer, _ := s.buffers.Get().(*[]byte)
	part, sent := (*buffer)[:0], 0
	defer func() {
		if cap(part) <= keepBytes {
			*buffer = part[:0]
			s.buffers.Put(buffer)
		}
	}()
	for i := range events {
		part = appendFrame(part, &events[i], named)
		if len(part) < frameBytes && i < len(events)-1 {
			continue
		}
		if err := r.write(part); err != nil {
			return err
		}
		s.cfg.Metrics.Events.Add(float64(i + 1 - sent))
		part, sent = part[:0], i+1
	}
	return nil
}

// appendFailure appends a block that says why the stream cannot go on; the
// browser comes again, behind what is gone.
func appendFailure(to []byte, truncated *TruncatedError, named bool) []byte {
	const failure = "stream.error"
	to = append(to, "id: "...)
	to = strconv.AppendUint(to, max(1, truncated.Oldest)-1, 10)
	if named {
		to = append(to, "\nevent: "+failure...)
	}
	data, _ := json.Marshal(map[string]any{ //nolint:errchkjson // texts and numbers alone
		"type": failure,
		"problem": newProblem(http.StatusGone, "EVENTS_TRUNCATED",
			truncated.Error()),
	})
	to = append(to, "\ndata: "...)
	to = append(to, data...)
	return append(to, "\n\n"...)
}

// places counts the streams that are open.
type places struct {
	limit, limitPerUser int

	mu    sync.Mutex
	all   int
	taken map[string]int
}

// take counts one more stream of a user, or says why there may be none.
func (p *places) take(user string) *problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	var refusal *problem
	switch {
	case p.taken[user] >= p.limitPerUser:
		refusal = newProblem(http.StatusTooManyRequests, "TOO_MANY_STREAMS",
			fmt.Sprintf("At most %d streams of one user may be open.", p.limitPerUser))
	case p.all >= p.limit:
		refusal = newProblem(http.StatusServiceUnavailable, "STREAMS_FULL",
			"The runtime has as many readers as it may.")
	default:
		p.taken[user]++
		p.all++
		return nil
	}
	refusal.retryAfter = limitRetry
	return refusal
}

func (p *places) release(user string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all--
	if p.taken[user]--; p.taken[user] == 0 {
		delete(p.taken, user)
	}
}
