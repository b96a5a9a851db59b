package tool

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"golang.org/x/net/http/httpguts"

	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// How HTTP tools are called.
const (
	// maxTries is how often a request is sent at most.
	maxTries = 4
	// firstWait is how long the second try waits, the next ones twice as long each,
	// unless the server asks for more.
	firstWait = 250 * time.Millisecond
	// maxRedirects is how many redirects are followed, all to the same host.
	maxRedirects = 5
	// maxAnswerBytes is how much of an answer is read.
	maxAnswerBytes = 1 << 20
	// maxRefusalBytes is how much of the body of a refusal the model is shown.
	maxRefusalBytes = 2 << 10
)

// WebConfig says where HTTP tools may go, and with what.
type WebConfig struct {
	// Prefixes are the URLs that may be called, each with all that lies below it.
	// Without any every public address may be, and no secret is sent.
	Prefixes []string
	// Secrets are what headers may refer to: the name, and the file that holds the
	// secret, which is read at each call; an empty one stands for the environment
	// variable of that name.
	Secrets map[string]string
	// Getenv is os.Getenv.
	Getenv func(string) string
	// Propagator carries the call's span to the server.
	Propagator propagation.TextMapPropagator
}

// Web calls HTTP tools. A name is resolved and its address checked at each
// connection, and none goes through a proxy, behind which it could not be checked.
type Web struct {
	cfg    WebConfig
	reach  reach
	client *http.Client
}

// NewWeb returns a Web. It fails for a prefix that is none.
func NewWeb(cfg WebConfig) (*Web, error) {
	r, err := newReach(cfg.Prefixes)
	if err != nil {
		return nil, fmt.Errorf("http-tools: %w", err)
	}
	w := &Web{cfg: cfg, reach: r}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Control: r.control}
	w.client = &http.Client{
		Transport: &http.Transport{
			DialContext:           dialer.DialContext,
			ForceAttemptHTTP2:     true,
			MaxIdleConns:          100,
			MaxIdleConnsPerHost:   16,
			IdleConnTimeout:       time.Minute,
			TLSHandshakeTimeout:   10 * time.Second,
			ExpectContinueTimeout: time.Second,
		},
		CheckRedirect: w.checkRedirect,
	}
	return w, nil
}

// Stop closes connections that are idle.
func (w *Web) Stop() { w.client.CloseIdleConnections() }

// checkRedirect follows those that stay at the host and where tools may go.
func (w *Web) checkRedirect(next *http.Request, before []*http.Request) error {
	u, err := parseURL(next.URL.String())
	if err != nil || len(before) > maxRedirects || origin(u) != origin(before[0].URL) || !w.reach.admits(u) {
		return http.ErrUseLastResponse
	}
	return nil
}

// Tool makes a tool of its description. The error is a *violation.Error as HTTP.Check
// returns it, for a URL that is not among WebConfig.Prefixes too, and for a secret
// that there is not.
func (w *Web) Tool(field string, h HTTP) (Tool, error) {
	t, err := h.tool(field)
	if err != nil {
		return Tool{}, err
	}
	u, err := parseURL(h.URL)
	if err != nil {
		return Tool{}, violation.New(field+".url", "%s", err)
	}
	var errs []error
	if !w.reach.admits(u) {
		errs = append(errs, violation.New(field+".url", "is not where tools may go: the setting http-tools does not list it"))
	}
	secrets := secretsOf(h.Headers)
	for _, name := range secrets {
		if _, known := w.cfg.Secrets[name]; !known {
			errs = append(errs, violation.New(field+".headers",
				"refer to the secret %s, which the setting tool-secrets does not list", name))
		}
	}
	if len(secrets) > 0 && len(w.reach.prefixes) == 0 {
		errs = append(errs, violation.New(field+".headers",
			"refer to a secret, which is sent only where the setting http-tools lists the URL"))
	}
	if err := violation.Join(errs...); err != nil {
		return Tool{}, err
	}
	e := &endpoint{web: w, method: cmp.Or(h.Method, http.MethodPost), url: u, headers: maps.Clone(h.Headers), secrets: secrets}
	t.Call = e.call
	return t, nil
}

// endpoint is what an HTTP tool calls.
type endpoint struct {
	web     *Web
	method  string
	url     *url.URL
	headers map[string]string
	// secrets are the names of those that headers refer to.
	secrets []string
}

// answer is what an endpoint said.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// call implements Tool.Call. It tries again, within the time of ctx, when the server
// asks for it or cannot be reached; the idempotency key tells it of repeats.
func (e *endpoint) call(ctx context.Context, c Call) (Result, error) {
	secrets, err := e.readSecrets()
	if err != nil {
		return Result{}, err
	}
	wait := firstWait
	for try := 1; ; try++ {
		got, err := e.send(ctx, c, secrets)
		if ctx.Err() != nil {
			return Result{}, context.Cause(ctx)
		}
		pause, again := retryable(got, err)
		pause = max(pause, wait/2+rand.N(wait/2+1)) //nolint:gosec // not a secret
		if !again || try == maxTries || !withinTime(ctx, pause) {
			if err != nil {
				return Result{}, err
			}
			return resultOf(got, secrets)
		}
		wait *= 2
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return Result{}, context.Cause(ctx)
		}
	}
}

// withinTime reports whether ctx lasts longer than a pause.
func withinTime(ctx context.Context, pause time.Duration) bool {
	deadline, limited := ctx.Deadline()
	return !limited || time.Until(deadline) > pause
}

// readSecrets returns the secrets that headers refer to, by name.
func (e *endpoint) readSecrets() (map[string]string, error) {
	secrets := make(map[string]string, len(e.secrets))
	for _, name := range e.secrets {
		var secret string
		if file := e.web.cfg.Secrets[name]; file != "" {
			raw, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("read secret %s: %w", name, err)
			}
			secret = string(raw)
		} else {
			secret = e.web.cfg.Getenv(name)
		}
		secret = strings.TrimSpace(secret)
		if secret == "" || !httpguts.ValidHeaderFieldValue(secret) {
			return nil, fmt.Errorf("the secret %s is empty, or no text that a header can carry", name)
		}
		secrets[name] = secret
	}
	return secrets, nil
}

// send sends one request and reads its answer.
func (e *endpoint) send(ctx context.Context, c Call, secrets map[string]string) (answer, error) {
	target, body := *e.url, io.Reader(nil)
	if e.method == http.MethodGet {
		parameters, err := query(e.url, c.Arguments)
		if err != nil {
			return answer{}, err
		}
		target.RawQuery = parameters
	} else {
		body = bytes.NewReader(c.Arguments)
	}
	request, err := http.NewRequestWithContext(ctx, e.method, target.String(), body)
	if err != nil {
		return answer{}, fmt.Errorf("make the request: %w", unquoted(err))
	}
	request.Header.Set("User-Agent", "agent-runtime")
	request.Header.Set("Accept", "application/json, text/*;q=0.9")
	for name, value := range e.headers {
		request.Header.Set(name, secretReference.ReplaceAllStringFunc(value, func(reference string) string {
			return secrets[secretReference.FindStringSubmatch(reference)[1]]
		}))
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	request.Header.Set("Idempotency-Key", c.ID)
	e.web.cfg.Propagator.Inject(ctx, propagation.HeaderCarrier(request.Header))
	response, err := e.web.client.Do(request)
	if err != nil {
		return answer{}, &unreachableError{err: unquoted(err)}
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes+1))
	if err != nil {
		return answer{}, fmt.Errorf("the server did not finish its answer: %w", err)
	}
	return answer{status: response.StatusCode, header: response.Header, body: text}, nil
}

// unreachableError is a request that got no answer.
type unreachableError struct{ err error }

func (e *unreachableError) Error() string { return "the server gave no answer: " + e.err.Error() }
func (e *unreachableError) Unwrap() error { return e.err }

// unquoted leaves out the URL that errors of net/http begin with: its query has the arguments.
func unquoted(err error) error {
	if quoting, found := errors.AsType[*url.Error](err); found {
		return quoting.Err
	}
	return err
}

// retryable reports whether a request is worth another try, and how long the server
// asks to wait before.
func retryable(got answer, err error) (time.Duration, bool) {
	if err != nil {
		unreached, found := errors.AsType[*unreachableError](err)
		if !found {
			return 0, false
		}
		_, refused := errors.AsType[*addressError](unreached)
		_, distrusted := errors.AsType[*tls.CertificateVerificationError](unreached)
		return 0, !refused && !distrusted
	}
	switch got.status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return retryAfter(got.header.Get("Retry-After"), time.Now()), true
	}
	return 0, false
}

// retryAfter reads the header of that name, seconds or a date; 0 when it says nothing sensible.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(header); err == nil {
		return max(date.Sub(now), 0)
	}
	return 0
}

// resultOf turns an answer into what the model is told, without the secrets that
// servers like to repeat.
func resultOf(got answer, secrets map[string]string) (Result, error) {
	status := fmt.Sprintf("HTTP %d %s", got.status, http.StatusText(got.status))
	kind, readable := mediaType(got)
	switch {
	case got.status >= http.StatusInternalServerError, got.status < http.StatusOK:
		return Result{}, fmt.Errorf("the server answered %s", status)
	case got.status < http.StatusBadRequest && got.status >= http.StatusMultipleChoices:
		return Result{}, fmt.Errorf("the server answered %s: it leads elsewhere, where tools do not follow", status)
	case !readable:
		told := fmt.Sprintf("%s: the answer is %q, neither JSON nor text", status, violation.Clip(kind, 100))
		return Result{Text: told, Failed: true}, nil
	}
	for _, name := range slices.Sorted(maps.Keys(secrets)) {
		got.body = bytes.ReplaceAll(got.body, []byte(secrets[name]), []byte("[secret]"))
	}
	if got.status >= http.StatusBadRequest {
		return Result{Text: status + ": " + cut(string(got.body), maxRefusalBytes), Failed: true}, nil
	}
	result := Result{Text: cut(string(got.body), maxAnswerBytes)}
	if strings.TrimSpace(result.Text) == "" {
		result.Text = status
	}
	if jsonMedia(kind) && len(got.body) <= maxAnswerBytes && jsonvalue.Validate("answer", got.body) == nil {
		result.Structured = got.body
	}
	return result, nil
}

// mediaType returns an answer's media type, and whether a model can read it.
func mediaType(got answer) (kind string, readable bool) {
	kind, _, err := mime.ParseMediaType(got.header.Get("Content-Type"))
	if err != nil {
		kind, _, _ = mime.ParseMediaType(http.DetectContentType(got.body))
	}
	switch {
	case len(got.body) == 0, strings.HasPrefix(kind, "text/"), jsonMedia(kind):
		return kind, true
	}
	switch kind {
	case "application/xml", "application/yaml", "application/x-yaml", "application/javascript", "application/x-ndjson",
		"application/jsonl", "application/x-www-form-urlencoded":
		return kind, true
	}
	return kind, strings.HasSuffix(kind, "+xml") || strings.HasSuffix(kind, "+yaml")
}

func jsonMedia(kind string) bool {
	return kind == "application/json" || strings.HasSuffix(kind, "+json")
}
