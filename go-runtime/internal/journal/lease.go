package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	leaseStream  = "AGENT_RUNTIME_LEASE"
	leaseSubject = "agent_runtime_lease.owner"
	// leaseTTL is after what time without a renewal another runtime may own
	// the cluster. It outlasts the election of another leader, which takes up to
	// ten seconds when a server dies.
	leaseTTL = 20 * time.Second
	// leasePeriod is how often the lease is renewed, and how long that may take.
	leasePeriod = leaseTTL / 8
	// leasePoll is how often a start looks whether a lease is free by now, and
	// takeWithin how long it does.
	leasePoll  = 250 * time.Millisecond
	takeWithin = leaseTTL + leaseTTL/2
)

// lease is the exclusive ownership of a cluster's streams: a record that the
// servers remove unless it is renewed. It keeps a second runtime from
// starting; it does not fence what a paused process had already sent.
type lease struct {
	conn *nats.Conn
	log  *slog.Logger
	fail func(error)

	owner    leaseOwner
	sequence uint64    // of the record
	held     time.Time // when the last successful renewal began

	cancel context.CancelFunc
	done   chan struct{}
}

// leaseOwner is the record's content.
type leaseOwner struct {
	ID   string `json:"id"`
	Host string `json:"host"`
	PID  int    `json:"pid"`
}

// takeLease takes the lease and keeps it, or returns a *LockedError. One whose
// holder died is waited for until it expires. The lease owns the connection from
// then on.
func takeLease(ctx context.Context, conn *nats.Conn, cfg Config, log *slog.Logger, fail func(error)) (*lease, error) {
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	if _, err := ensureStream(ctx, js, jetstream.StreamConfig{
		Name:              leaseStream,
		Subjects:          []string{leaseSubject},
		MaxMsgsPerSubject: 1,
		AllowMsgTTL:       true,
		Replicas:          cfg.Replicas,
	}); err != nil {
		return nil, fmt.Errorf("open the lease of the cluster: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("take the lease of the cluster: %w", err)
	}
	l := &lease{
		conn:  conn,
		log:   log,
		fail:  fail,
		owner: leaseOwner{ID: nats.NewInbox(), Host: host, PID: os.Getpid()},
		done:  make(chan struct{}),
	}
	if err := l.take(ctx); err != nil {
		if other, ok := errors.AsType[*otherOwnerError](err); ok {
			return nil, &LockedError{
				Resource: "NATS cluster " + cfg.NATSURL,
				Holder:   fmt.Sprintf("process %d on %s", other.owner.PID, other.owner.Host),
			}
		}
		return nil, fmt.Errorf("take the lease of the cluster: %w", err)
	}
	keep, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	go l.keep(keep)
	return l, nil
}

// take renews the lease for the first time. It gives up with an
// *otherOwnerError once it saw that the holder lives, because it renews.
func (l *lease) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, takeWithin)
	defer cancel()
	var seen uint64
	for {
		err := l.renew(ctx)
		other, held := errors.AsType[*otherOwnerError](err)
		switch {
		case err == nil:
			return nil
		case held && seen != 0 && other.sequence != seen:
			return err
		case held && seen == 0:
			l.log.Info("lease of the cluster is held, waiting whether it is renewed", "host", other.owner.Host, "pid", other.owner.PID)
			seen = other.sequence
		case !held && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrUnavailable):
			return err
		}
		if !pause(ctx, leasePoll) {
			return err
		}
	}
}

// otherOwnerError reports that another runtime holds the lease.
type otherOwnerError struct {
	owner    leaseOwner
	sequence uint64 // of its record
}

func (e *otherOwnerError) Error() string {
	return fmt.Sprintf("the lease is held by process %d on %s", e.owner.PID, e.owner.Host)
}

// renew writes the record over the one that was written last.
func (l *lease) renew(ctx context.Context) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, leasePeriod)
	defer cancel()
	data, err := json.Marshal(l.owner)
	if err != nil {
		return fmt.Errorf("encode the lease: %w", err)
	}
	msg, err := Message{Subject: leaseSubject, Data: data, Expect: &l.sequence, TTL: leaseTTL}.encode()
	if err != nil {
		return fmt.Errorf("encode the lease: %w", err)
	}
	answer, err := offer(ctx, l.conn, msg)
	if err != nil {
		return mapRequestError(err)
	}
	ack, err := decodeAck(answer.Data)
	if errors.Is(err, ErrConflict) {
		return l.adopt(ctx, err)
	}
	if err != nil {
		return err
	}
	l.sequence, l.held = ack.Sequence, began
	return nil
}

// adopt reads who holds the lease after a conflict. It is this runtime when
// the acknowledgement of an earlier renewal was lost; the next renewal then
// goes on from that record.
func (l *lease) adopt(ctx context.Context, conflict error) error {
	js, err := jetstream.New(l.conn)
	if err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	stream, err := js.Stream(ctx, leaseStream)
	if err != nil {
		return mapRequestError(err)
	}
	raw, err := stream.GetLastMsgForSubject(ctx, leaseSubject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		// The record expired. Nobody has the lease; it is free to take.
		l.sequence = 0
		return fmt.Errorf("the lease expired: %w", conflict)
	}
	if err != nil {
		return mapRequestError(err)
	}
	var owner leaseOwner
	if err := json.Unmarshal(raw.Data, &owner); err != nil {
		return fmt.Errorf("read the lease: %w", err)
	}
	if owner.ID != l.owner.ID {
		return &otherOwnerError{owner: owner, sequence: raw.Sequence}
	}
	l.sequence = raw.Sequence
	return fmt.Errorf("an earlier renewal was not acknowledged: %w", conflict)
}

// keep renews the lease until it is given up or lost.
func (l *lease) keep(ctx context.Context) {
	defer close(l.done)
	ticker := time.NewTicker(leasePeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		err := l.renew(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		l.log.Warn("renewing the lease failed", "err", err)
		var other *otherOwnerError
		if errors.As(err, &other) || time.Since(l.held) > leaseTTL-leasePeriod {
			l.fail(fmt.Errorf("the lease of the cluster is lost: %w", err))
			return
		}
	}
}

// release gives the lease up, so that the next runtime need not wait for it
// to expire.
func (l *lease) release(ctx context.Context) error {
	l.cancel()
	<-l.done
	defer l.conn.Close()
	ctx, cancel := context.WithTimeout(ctx, leasePeriod)
	defer cancel()
	request := fmt.Appendf(nil, `{"seq":%d,"no_erase":true}`, l.sequence)
	if _, err := l.conn.RequestWithContext(ctx, "$JS.API.STREAM.MSG.DELETE."+leaseStream, request); err != nil {
		l.log.Warn("giving up the lease failed, it expires by itself", "err", err)
	}
	return nil
}
