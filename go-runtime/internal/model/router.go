package model

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/semaphore"

	"github.com/djangobridge/djangobridge/go-runtime/internal/model/price"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// maxTargets bounds the models whose state is kept; what was asked longest ago is forgotten.
const maxTargets = 1024

// Router asks the provider of the model that a request names, or one model after
// another. It is safe for concurrent use.
type Router struct {
	directory directory
	providers map[string]*provider
	// chain is asked when a request names no model; empty: nobody is, the answers are made offline.
	chain []reference
	log   *slog.Logger

	mu      sync.Mutex
	targets *simplelru.LRU[reference, *target]
}

// provider is one that is configured, and what its models share.
type provider struct {
	asker   asker
	slots   *semaphore.Weighted
	timeout time.Duration
	prices  *price.List
	// baseURL is empty for the provider's own.
	baseURL string
}

// New returns a Router to what is configured. Without a key or a base URL it
// answers offline. A bad configuration is a *violation.Error.
func New(cfg Config, log *slog.Logger) (*Router, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	// The only error is a size below 1.
	targets, _ := simplelru.NewLRU[reference, *target](maxTargets, nil)
	r := &Router{directory: cfg.kinds(), providers: map[string]*provider{}, log: log, targets: targets}
	if len(r.directory) == 0 {
		return r, nil
	}
	names := cfg.Models
	if len(names) == 0 {
		names = []string{r.directory[0].usual}
	}
	chain, err := r.directory.chain(names)
	if err != nil {
		return nil, violation.New("model", "%s", err)
	}
	r.chain = chain
	prices := price.New()
	for _, k := range r.directory {
		made := &provider{
			prices:  prices,
			baseURL: k.endpoint.BaseURL,
			slots:   semaphore.NewWeighted(int64(cmp.Or(cfg.Concurrency, DefaultConcurrency))),
			timeout: cmp.Or(cfg.Timeout, DefaultTimeout),
		}
		if made.asker, err = makeAsker(k, newHTTPClient()); err != nil {
			return nil, err
		}
		r.providers[k.name] = made
	}
	return r, nil
}

// makeAsker returns what asks a kind of provider through client.
func makeAsker(k kind, client *http.Client) (asker, error) {
	switch k.name {
	case anthropicName:
		return newAnthropic(k.endpoint, client), nil
	case geminiName:
		return newGemini(k.endpoint, client)
	}
	return newOpenAI(k.endpoint, client), nil
}

// Name is the kind of provider that is asked first, or offline.
func (r *Router) Name() string {
	if len(r.chain) == 0 {
		return offlineName
	}
	return r.chain[0].provider
}

// Model is the model that is asked first, as its provider names it, or offline.
func (r *Router) Model() string {
	if len(r.chain) == 0 {
		return offlineName
	}
	return r.chain[0].model
}

// Check reports whether a Request.Model names models of providers that are
// configured: nil, or *UnknownModelError. Whether a provider has the model shows
// when it is asked. Offline every name will do.
func (r *Router) Check(models string) error {
	if len(r.chain) == 0 || models == "" {
		return nil
	}
	_, err := r.directory.chain(strings.Split(models, ","))
	return err
}

// Complete implements Provider.
func (r *Router) Complete(ctx context.Context, request Request) (Response, error) {
	if len(r.chain) == 0 {
		return traced(ctx, reference{offlineName, offlineName}, request, func(ctx context.Context) (Response, error) {
			return offline{}.Complete(ctx, request)
		})
	}
	chain := r.chain
	if request.Model != "" {
		var err error
		if chain, err = r.directory.chain(strings.Split(request.Model, ",")); err != nil {
			return Response{}, &Error{Kind: Rejected, Model: request.Model, detail: "is unknown: " + err.Error(), Cause: err}
		}
	}
	if err := request.validate(); err != nil {
		return Response{}, &Error{Kind: Rejected, Model: chain[0].String(), Cause: err}
	}
	var failures []*Error
	for i, asked := range chain {
		var begun bool
		response, err := traced(ctx, asked, request, func(ctx context.Context) (response Response, err error) {
			response, begun, err = r.target(asked).complete(ctx, request)
			return response, err
		})
		failure, failed := errors.AsType[*Error](err)
		if !failed {
			return response, err
		}
		failures = append(failures, failure)
		if begun || !failure.Kind.passes() || i == len(chain)-1 {
			break
		}
		r.log.WarnContext(ctx, "model failed, asking the next", slog.String("model", asked.String()),
			slog.String("kind", string(failure.Kind)), slog.String("next", chain[i+1].String()))
	}
	return Response{}, join(failures)
}

// target returns the state of a model.
func (r *Router) target(asked reference) *target {
	r.mu.Lock()
	defer r.mu.Unlock()
	found, known := r.targets.Get(asked)
	if !known {
		found = newTarget(asked, r.providers[asked.provider], r.log)
		r.targets.Add(asked, found)
	}
	return found
}

// join makes one error of what the models of a chain failed with: the first that
// may pass with time, or the last, which names the others.
func join(failures []*Error) error {
	if len(failures) == 1 {
		return failures[0]
	}
	whole := *failures[len(failures)-1]
	for _, failure := range failures {
		if failure.Retryable() {
			whole = *failure
			break
		}
	}
	causes := make([]error, len(failures))
	texts := make([]string, len(failures))
	for i, failure := range failures {
		causes[i] = cmp.Or(failure.Cause, error(failure))
		texts[i] = failure.Error()
		if whole.Retryable() && failure.Retryable() && failure.RetryAfter < whole.RetryAfter {
			whole.RetryAfter = failure.RetryAfter
		}
	}
	whole.whole, whole.Cause = strings.Join(texts, "; "), errors.Join(causes...)
	return &whole
}
