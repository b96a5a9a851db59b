package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server/gsl"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// cursorRecords and cursorBytes bound one pull, and with it what waits in
	// memory for a reader.
	cursorRecords = 512
	cursorBytes   = 4 << 20
	// cursorIdle is after what time the server forgets an abandoned cursor.
	cursorIdle = time.Minute
	// pullExpires is how long a waiting pull stays open; the server says that
	// it is alive every pullHeartbeat.
	pullExpires   = 60 * time.Second
	pullHeartbeat = 2 * time.Second
)

// errDrained reports that a cursor has read what there was.
var errDrained = errors.New("no more records")

// cursor reads a stream in order, without gap or repeat, over a consumer that
// lives on the server only while the cursor is open. It is for one goroutine.
type cursor struct {
	stream   *Stream
	filters  []string
	after    uint64 // the newest sequence given out
	lastOnly bool   // only the newest record of each subject
	waiting  bool   // wait for new records instead of errDrained

	matches     *gsl.SimpleSublist // nil when the server's filter is exact
	consumer    string
	sub         *nats.Subscription
	inbox       string
	pulls       int    // made on this consumer
	reply       string // where the pull under way is answered
	delivered   uint64 // the consumer's own count
	outstanding int    // records of the pull under way that may still come
	unheard     int    // requests in a row that nobody took
}

func newCursor(s *Stream, after uint64, filters []string) *cursor {
	return &cursor{stream: s, filters: filters, after: after}
}

// open makes the consumer.
func (c *cursor) open(ctx context.Context) error {
	cfg := jetstream.ConsumerConfig{
		AckPolicy:         jetstream.AckNonePolicy,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       c.after + 1,
		InactiveThreshold: cursorIdle,
		MemoryStorage:     true,
		Replicas:          1,
	}
	if c.lastOnly {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverLastPerSubjectPolicy, 0
	}
	cfg.FilterSubjects, c.matches = serverFilters(c.filters)
	if c.lastOnly && len(cfg.FilterSubjects) == 0 {
		cfg.FilterSubjects = []string{">"} // the server insists
	}
	consumer, err := c.stream.log.CreateConsumer(ctx, cfg)
	if err != nil {
		return c.stream.requestError(ctx, err)
	}
	conn := c.stream.journal.conn
	c.inbox = conn.NewInbox()
	sub, err := conn.SubscribeSync(c.inbox + ".*")
	if err == nil {
		// A pull bounds what can be pending.
		err = sub.SetPendingLimits(-1, -1)
	}
	if err != nil {
		return mapRequestError(err)
	}
	c.consumer, c.sub = consumer.CachedInfo().Name, sub
	c.delivered, c.outstanding = 0, 0
	return nil
}

// serverFilters makes filters that the server accepts: it refuses overlapping
// ones. Where two overlap without one including the other, everything is read
// and the returned list picks.
func serverFilters(filters []string) ([]string, *gsl.SimpleSublist) {
	var kept []string
	for i, f := range filters {
		covered := slices.ContainsFunc(filters[:i], func(g string) bool { return includes(g, f) }) ||
			slices.ContainsFunc(filters[i+1:], func(g string) bool { return g != f && includes(g, f) })
		if !covered {
			kept = append(kept, f)
		}
	}
	for i, f := range kept {
		if slices.ContainsFunc(kept[i+1:], func(g string) bool { return overlap(f, g) }) {
			return nil, newMatcher(kept)
		}
	}
	return kept, nil
}

func newMatcher(filters []string) *gsl.SimpleSublist {
	list := gsl.NewSimpleSublist()
	for _, f := range filters {
		// The only error is a malformed filter, which matches nothing.
		_ = list.Insert(f, struct{}{})
	}
	return list
}

// includes reports whether every subject that matches g matches f too.
func includes(f, g string) bool {
	fs, gs := strings.Split(f, "."), strings.Split(g, ".")
	for i, t := range fs {
		switch {
		case t == ">":
			return len(gs) > i
		case i >= len(gs) || gs[i] == ">":
			return false
		case t != "*" && t != gs[i]:
			return false
		}
	}
	return len(fs) == len(gs)
}

// overlap reports whether some subject matches both filters.
func overlap(f, g string) bool {
	fs, gs := strings.Split(f, "."), strings.Split(g, ".")
	for i := range min(len(fs), len(gs)) {
		switch {
		case fs[i] == ">" || gs[i] == ">":
			return true
		case fs[i] != "*" && gs[i] != "*" && fs[i] != gs[i]:
			return false
		}
	}
	return len(fs) == len(gs)
}

// moveTo makes the cursor go on after a sequence.
func (c *cursor) moveTo(after uint64) {
	if c.after != after {
		c.close()
		c.after = after
	}
}

// close gives the consumer up.
func (c *cursor) close() {
	if c.sub == nil {
		return
	}
	conn := c.stream.journal.conn
	// Nobody waits for the answer, and what gets lost expires by itself.
	_ = c.sub.Unsubscribe()
	_ = conn.Publish("$JS.API.CONSUMER.DELETE."+c.stream.cfg.Name+"."+c.consumer, nil)
	c.sub = nil
}

// next returns at least one record: as many as have arrived when the cursor is
// waiting, and else what one pull brings. It reopens the
// consumer when the server lost it or a delivery was missed. errDrained means
// that there was nothing at some moment after the call began.
func (c *cursor) next(ctx context.Context) ([]Record, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if c.sub == nil {
			if err := c.open(ctx); err != nil {
				return nil, err
			}
		}
		asked := c.outstanding == 0
		if asked {
			if err := c.pull(); err != nil {
				c.close()
				return nil, err
			}
		}
		records, err := c.receive(ctx)
		// A consumer of the newest records, once reopened, begins anew.
		for len(records) > 0 && records[0].Sequence <= c.after {
			records = records[1:]
		}
		switch {
		case len(records) > 0:
			c.after = records[len(records)-1].Sequence
			return records, nil
		case errors.Is(err, errDrained) && (c.waiting || !asked):
			// What was appended since the pull began is not counted.
		case errors.Is(err, errDrained):
			if err := c.confirm(ctx); err != nil {
				return nil, err
			}
		case err != nil:
			return nil, err
		}
	}
}

// confirm returns errDrained if the stream has nothing for a cursor that was told
// so, and has it read on otherwise: in a cluster its consumer reads what one server
// has, which may lag behind the others.
func (c *cursor) confirm(ctx context.Context) error {
	if c.stream.journal.barrier != nil {
		return errDrained
	}
	filters := c.filters
	if len(filters) == 0 {
		filters = []string{">"}
	}
	for _, filter := range filters {
		_, err := ask(ctx, c.stream, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
			return c.stream.log.GetMsg(ctx, c.after+1, jetstream.WithGetMsgSubject(filter))
		})
		if err == nil {
			// The next consumer may be another server's.
			c.close()
			pause(ctx, leaderRetry)
			return nil
		}
		if !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return errDrained
}

// receive takes what one wait brings. Neither records nor an error means that
// the caller shall try again. An error that follows records comes again.
func (c *cursor) receive(ctx context.Context) ([]Record, error) {
	limit, cancel := context.WithTimeout(ctx, 3*pullHeartbeat)
	defer cancel()
	var records []Record
	size := 0
	for first := true; first || len(records) < cursorRecords && size < cursorBytes && c.more(); first = false {
		msg, err := c.wait(ctx, limit)
		if err != nil || msg == nil {
			return records, err
		}
		if status := msg.Header.Get("Status"); status != "" && len(msg.Data) == 0 {
			if msg.Subject != c.reply {
				continue // it ends an earlier pull, which is complete
			}
			return records, c.digest(status, msg.Header.Get("Description"))
		}
		meta := metadata(msg)
		if meta.Sequence.Consumer != c.delivered+1 {
			c.close()
			return records, nil
		}
		c.delivered++
		c.outstanding--
		if c.matches == nil || c.matches.HasInterest(msg.Subject) {
			size += msg.Size()
			records = append(records, decodeDelivered(msg, meta))
		}
	}
	return records, nil
}

// metadata is where a record comes from; zero when the server did not say it.
func metadata(msg *nats.Msg) *nats.MsgMetadata {
	meta, err := msg.Metadata()
	if err != nil {
		return &nats.MsgMetadata{}
	}
	return meta
}

// more reports whether more has arrived, or comes without waiting for a writer.
func (c *cursor) more() bool {
	if !c.waiting {
		return c.outstanding > 0
	}
	n, _, err := c.sub.Pending()
	return err == nil && n > 0
}

// wait returns the next message, nil when the server was silent up to limit.
func (c *cursor) wait(ctx, limit context.Context) (*nats.Msg, error) {
	msg, err := c.sub.NextMsgWithContext(limit)
	switch {
	case err == nil:
		c.unheard = 0
		return msg, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case limit.Err() != nil:
		c.close()
		return nil, nil //nolint:nilerr // silence is no error: the consumer is made anew
	case errors.Is(err, nats.ErrNoResponders) && c.unheard < leaderRetries:
		return nil, c.retryLater(ctx)
	default:
		c.close()
		return nil, mapRequestError(err)
	}
}

// retryLater gives up a consumer that takes no requests, and waits before the
// next one: in a cluster it takes them only a moment after it was made.
func (c *cursor) retryLater(ctx context.Context) error {
	c.unheard++
	c.close()
	if !pause(ctx, leaderRetry) {
		return context.Cause(ctx)
	}
	return nil
}

// pull asks for the next records.
func (c *cursor) pull() error {
	request := struct {
		Batch     int           `json:"batch"`
		MaxBytes  int           `json:"max_bytes"`
		Expires   time.Duration `json:"expires,omitempty"`
		Heartbeat time.Duration `json:"idle_heartbeat,omitempty"`
		NoWait    bool          `json:"no_wait,omitempty"`
	}{
		Batch: cursorRecords,
		// One record of the largest size always fits.
		MaxBytes: max(cursorBytes, 2*c.stream.journal.cfg.MaxMessageBytes),
	}
	if c.waiting {
		request.Expires, request.Heartbeat = pullExpires, pullHeartbeat
	} else {
		request.NoWait = true
	}
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode pull: %w", err)
	}
	subject := "$JS.API.CONSUMER.MSG.NEXT." + c.stream.cfg.Name + "." + c.consumer
	c.pulls++
	c.reply = c.inbox + "." + strconv.Itoa(c.pulls)
	if err := c.stream.journal.conn.PublishRequest(subject, c.reply, body); err != nil {
		return mapRequestError(err)
	}
	c.outstanding = request.Batch
	return nil
}

// digest reads a status message; most of them end the pull. errDrained means
// that the server had nothing for it.
func (c *cursor) digest(status, description string) error {
	switch {
	case status == "100": // the server is alive
		return nil
	case status == "404":
		c.outstanding = 0
		return errDrained
	case status == "408", status == "409" && pullIsComplete(description):
		c.outstanding = 0
		return nil
	default: // the consumer is gone or has lost its leader
		c.close()
		c.outstanding = 0
		return nil
	}
}

// pullIsComplete reports whether a 409 only says that a pull brought all it may.
func pullIsComplete(description string) bool {
	description = strings.ToLower(description)
	return strings.Contains(description, "batch completed") || strings.Contains(description, "maxbytes")
}
