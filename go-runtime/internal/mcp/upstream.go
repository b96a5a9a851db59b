package mcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

const (
	// connectTimeout is how long a server may take to start and to answer first.
	connectTimeout = 30 * time.Second
	// probeTimeout is how long a server may be silent that let a call run out of time.
	probeTimeout = 10 * time.Second
	// firstPause is how long a server is left alone that could not be connected, twice
	// as long after each further time, up to longestPause.
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

var (
	// errSilent ends the session of a server that does not answer.
	errSilent = errors.New("the server does not answer any more")
	// errEnded is the end of a session by its server.
	errEnded = errors.New("the server ended the connection")
)

// upstream is one server, and the session with it.
type upstream struct {
	name    string
	cfg     ServerConfig
	options Options
	servers *Servers
	log     *slog.Logger

	mu      sync.Mutex
	session *session
	opening *opening
	// failures counts connections that failed since the last that did not; until
	// pausedUntil the reason of the last one stands.
	failures    int
	failed      error
	pausedUntil time.Time
}

// opening is a connection that is being made.
type opening struct {
	done    chan struct{}
	session *session
	err     error
}

// session is a connection to a server.
type session struct {
	client *sdk.ClientSession
	// process is nil for a server behind a URL.
	process *process
	// life ends, with the reason, when the session has died or must.
	life context.Context //nolint:containedctx // the session's own
	end  context.CancelCauseFunc
	// changes counts what the server said of changes of its lists.
	changes *atomic.Int64
	probing atomic.Bool

	mu      sync.Mutex
	listing *listing
}

// connected returns the session with the server, a new one when there is none.
func (u *upstream) connected(ctx context.Context) (*session, error) {
	u.mu.Lock()
	if s := u.session; s != nil && s.life.Err() == nil {
		u.mu.Unlock()
		return s, nil
	}
	o := u.opening
	if o == nil {
		if time.Now().Before(u.pausedUntil) {
			defer u.mu.Unlock()
			return nil, u.failed
		}
		o = &opening{done: make(chan struct{})}
		if err := u.servers.spawn(func() { u.open(o) }); err != nil {
			u.mu.Unlock()
			return nil, err
		}
		u.opening = o
	}
	u.mu.Unlock()
	select {
	case <-o.done:
		return o.session, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// open makes a connection for everyone who waits for it.
func (u *upstream) open(o *opening) {
	defer close(o.done)
	ctx, cancel := context.WithTimeout(u.servers.life, connectTimeout)
	defer cancel()
	s, err := u.connect(ctx)
	if err == nil {
		err = u.servers.spawn(func() { u.tend(s) })
		if err != nil {
			u.close(s)
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.opening = nil
	if err != nil {
		o.err = fmt.Errorf("connect MCP server %s: %w", u.name, err)
		u.failed = o.err
		u.pausedUntil = time.Now().Add(min(firstPause<<min(u.failures, 10), longestPause))
		u.failures++
		u.log.Warn("mcp server not connected", "err", err)
		return
	}
	u.failures = 0
	u.session, o.session = s, s
}

// connect starts the server, where it is a command, and agrees on a protocol with it.
func (u *upstream) connect(ctx context.Context) (*session, error) {
	s := &session{changes: &atomic.Int64{}}
	var transport sdk.Transport
	if u.cfg.Command != "" {
		var err error
		if s.process, err = startProcess(u.cfg, u.environment(), u.log); err != nil {
			return nil, err
		}
		transport = s.process.transport()
	} else {
		transport = &sdk.StreamableClientTransport{Endpoint: u.cfg.URL, HTTPClient: newHTTPClient(u.cfg.Headers)}
	}
	changed := func() { s.changes.Add(1) }
	client := sdk.NewClient(&sdk.Implementation{Name: "agent-runtime", Version: u.options.Version}, &sdk.ClientOptions{
		// Servers get nothing of the runtime's: no roots, no sampling, no questions.
		Capabilities:               &sdk.ClientCapabilities{},
		ToolListChangedHandler:     func(context.Context, *sdk.ToolListChangedRequest) { changed() },
		PromptListChangedHandler:   func(context.Context, *sdk.PromptListChangedRequest) { changed() },
		ResourceListChangedHandler: func(context.Context, *sdk.ResourceListChangedRequest) { changed() },
	})
	var err error
	if s.client, err = client.Connect(ctx, transport, nil); err != nil {
		if s.process != nil {
			s.process.stop(u.servers.kill)
		}
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer within %s: %w", connectTimeout, ctx.Err())
		}
		return nil, u.scrubbed(err)
	}
	s.life, s.end = context.WithCancelCause(u.servers.life)
	return s, nil
}

// environment is what a command is given of the runtime's own.
func (u *upstream) environment() []string {
	var environment []string
	for _, name := range keptVariables() {
		if value := u.options.Getenv(name); value != "" {
			environment = append(environment, name+"="+value)
		}
	}
	return environment
}

// tend waits for the end of a session, and cleans up.
func (u *upstream) tend(s *session) {
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		err := s.client.Wait()
		if err != nil {
			u.log.Debug("mcp connection ended", "err", u.scrubbed(err))
		}
		s.end(errEnded)
	}()
	<-s.life.Done()
	u.mu.Lock()
	if u.session == s {
		u.session = nil
	}
	u.mu.Unlock()
	if u.servers.life.Err() == nil {
		u.log.Warn("mcp server lost", "err", u.scrubbed(context.Cause(s.life)))
	}
	u.close(s)
	<-waited
}

// close ends what a session holds. The process goes first: without it no call is
// waited for that will never be answered.
func (u *upstream) close(s *session) {
	if s.process != nil {
		s.process.stop(u.servers.kill)
	}
	if err := s.client.Close(); err != nil {
		u.log.Debug("mcp session not closed well", "err", u.scrubbed(err))
	}
}

// do asks the server with one request. A session that the server does not know any
// more is made anew; nothing else is asked twice.
func do[R any](ctx context.Context, u *upstream, ask func(ctx context.Context, client *sdk.ClientSession) (R, error)) (R, error) {
	var none R
	for again := true; ; again = false {
		s, err := u.connected(ctx)
		if err != nil {
			return none, err
		}
		answer, err := asked(ctx, u, s, ask)
		switch {
		case err == nil:
			return answer, nil
		case ctx.Err() != nil:
			return none, context.Cause(ctx)
		case errors.Is(err, sdk.ErrSessionMissing) && again:
			s.end(err)
			continue
		case errors.Is(err, io.EOF), errors.Is(err, sdk.ErrConnectionClosed):
			s.end(errEnded)
		}
		if s.life.Err() != nil {
			err = context.Cause(s.life)
		}
		if refused, found := errors.AsType[*jsonrpc.Error](err); found {
			err = &refusalError{refused.Message}
		}
		return none, fmt.Errorf("MCP server %s: %w", u.name, u.scrubbed(err))
	}
}

// asked is one request, which ends with its caller and with its session. When the
// caller's time is over before the answer, the server is asked for a sign of life.
func asked[R any](
	ctx context.Context, u *upstream, s *session, ask func(ctx context.Context, client *sdk.ClientSession) (R, error),
) (R, error) {
	asking, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.life, func() { cancel(context.Cause(s.life)) })()
	defer whenOver(ctx, func() { u.probe(s) })()
	return ask(asking, s.client)
}

// whenOver has f called when ctx ends, unless what it returns was called before.
func whenOver(ctx context.Context, f func()) (forget func()) {
	stop := context.AfterFunc(ctx, f)
	return func() {
		if stop() && ctx.Err() != nil {
			// It has ended, and those who wait for that are being told, one after the other.
			f()
		}
	}
}

// probe ends the session with a process that gives no sign of life.
func (u *upstream) probe(s *session) {
	if s.process == nil || !s.probing.CompareAndSwap(false, true) {
		return
	}
	_ = u.servers.spawn(func() {
		defer s.probing.Store(false)
		ctx, cancel := context.WithTimeout(s.life, probeTimeout)
		defer cancel()
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			_ = s.client.Ping(ctx, nil)
		}()
		select {
		case <-answered:
			// A refusal is a sign of life too.
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return
			}
		case <-ctx.Done():
		}
		if s.life.Err() == nil {
			s.end(errSilent)
		}
		<-answered
	})
}

// scrubbed leaves the query of the server's URL out of an error: it may have a key in it.
func (u *upstream) scrubbed(err error) error {
	at, unfit := url.Parse(u.cfg.URL)
	if err == nil || unfit != nil || at.RawQuery == "" || !strings.Contains(err.Error(), at.RawQuery) {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), at.RawQuery, "…"))
}

// newHTTPClient returns a client that sends headers with each request, and follows
// no redirect: they would go elsewhere too.
func newHTTPClient(headers map[string]string) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one
	return &http.Client{
		Transport:     &headerTransport{next: transport, headers: headers},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
