package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/nats-io/nats-server/v2/server/gsl"
)

const (
	// cursorRecords and cursorBytes bound one pull, and with it what waits in
	// memory for a reader.
	cursorRecords = 256
	cursorBytes   = 4 << 20
	// cursorIdle is after what time the server forgets an abandoned cursor.
	cursorIdle = time.Minute
	// pullExpires is how long a waiting pull stays open; the server says that
	// it is alive every pullHeartbeat.
	pullExpires   = 60 * time.Second
	pullHeartbeat = 5 * time.Second
)

// errDrained reports that a cursor has read what there was.
var errDrained = errors.New("no more records")

// cursor reads a stream in order, without gap or repeat, over a consumer that
// lives on the server only while the cursor is open. It is for one goroutine.
type cursor struct {
	stream   *Stream
	filters  []string
	after    uint64 // the newest sequence given out
	lastOnly bool   // only the newest record of each subject, to start with
	waiting  bool   // wait for new records instead of errDrained

	matches     *gsl.SimpleSublist // nil when the server's filter is exact
	consumer    string
	sub         *nats.Subscription
	delivered   uint64 // the consumer's own count
	outstanding int    // records of the pull under way that may still come
	drained     bool
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
	consumer, err := c.stream.log.CreateConsumer(ctx, cfg)
	if err != nil {
		return mapRequestError(err)
	}
	conn := c.stream.journal.conn
	sub, err := conn.SubscribeSync(conn.NewInbox())
	if err == nil {
		// A pull bounds what can be pending.
		err = sub.SetPendingLimits(-1, -1)
	}
	if err != nil {
		return mapRequestError(err)
	}
	c.consumer, c.sub = consumer.CachedInfo().Name, sub
	c.delivered, c.outstanding, c.drained = 0, 0, false
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

// next returns at least one record, as many as have arrived. It reopens the
// consumer when the server lost it or a delivery was missed.
func (c *cursor) next(ctx context.Context) ([]Record, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		if c.sub == nil {
			if err := c.open(ctx); err != nil {
				return nil, err
			}
		}
		records, err := c.receive(ctx)
		switch {
		case len(records) > 0:
			c.after = records[len(records)-1].Sequence
			c.lastOnly = false
			return records, nil
		case err != nil:
			return nil, err
		case c.drained && !c.waiting:
			return nil, errDrained
		}
	}
}

// receive takes what one wait brings. Neither records nor an error means that
// the caller shall try again.
func (c *cursor) receive(ctx context.Context) ([]Record, error) {
	if c.outstanding == 0 {
		if err := c.pull(); err != nil {
			return nil, err
		}
	}
	var records []Record
	size := 0
	for first := true; first || len(records) < cursorRecords && size < cursorBytes && c.pending(); first = false {
		msg, err := c.wait(ctx)
		if err != nil {
			return nil, err
		}
		if msg == nil {
			break
		}
		if status := msg.Header.Get("Status"); status != "" && len(msg.Data) == 0 {
			if !c.endOfPull(status, msg.Header.Get("Description")) {
				break
			}
			continue
		}
		meta, err := msg.Metadata()
		if err != nil || meta.Sequence.Consumer != c.delivered+1 {
			c.close()
			break
		}
		c.delivered++
		c.outstanding--
		c.drained = meta.NumPending == 0
		if c.matches == nil || c.matches.HasInterest(msg.Subject) {
			size += msg.Size()
			records = append(records, decodeDelivered(msg, meta))
		} else {
			c.after = meta.Sequence.Stream
		}
	}
	return records, nil
}

// pending reports whether more has arrived.
func (c *cursor) pending() bool {
	if c.sub == nil {
		return false
	}
	n, _, err := c.sub.Pending()
	return err == nil && n > 0
}

// wait returns the next message, nil when the server has been silent.
func (c *cursor) wait(ctx context.Context) (*nats.Msg, error) {
	limit, cancel := context.WithTimeout(ctx, 3*pullHeartbeat)
	defer cancel()
	msg, err := c.sub.NextMsgWithContext(limit)
	switch {
	case err == nil:
		return msg, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case limit.Err() != nil:
		c.close()
		return nil, nil
	default:
		return nil, mapRequestError(err)
	}
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
	if err := c.stream.journal.conn.PublishRequest(subject, c.sub.Subject, body); err != nil {
		return mapRequestError(err)
	}
	c.outstanding = request.Batch
	return nil
}

// endOfPull digests a status message; false means that the pull is over.
func (c *cursor) endOfPull(status, description string) bool {
	switch {
	case status == "100":
		return true
	case status == "404":
		c.drained = true
	case status == "408", status == "409" && strings.Contains(strings.ToLower(description), "maxbytes"):
	default: // the consumer is gone or has lost its leader
		c.close()
		return false
	}
	c.outstanding = 0
	return false
}
