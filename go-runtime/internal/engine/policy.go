package engine

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// RetryPolicy says how often a run is begun and how long it waits between two
// attempts. A zero field is as the run's agent says, else takes its default.
type RetryPolicy struct {
	// MaxAttempts is how often in all; default Config.MaxAttempts.
	MaxAttempts int `json:"max_attempts,omitempty" yaml:"max_attempts"`
	// InitialBackoff is the pause after the first attempt, default 2 s; each
	// further one is Multiplier times as long, default 2, but at most MaxBackoff,
	// default 300 s.
	InitialBackoff time.Duration `json:"initial_backoff_ns,omitempty" yaml:"initial_backoff"`
	MaxBackoff     time.Duration `json:"max_backoff_ns,omitempty"     yaml:"max_backoff"`
	Multiplier     float64       `json:"multiplier,omitempty"         yaml:"multiplier"`
}

// RunDefaults hold for the runs of an agent that do not say themselves; nil and 0: the engine's.
type RunDefaults struct {
	Retry *RetryPolicy `yaml:"retry"`
	// RunTimeout is the longest one attempt may take.
	RunTimeout time.Duration `yaml:"run_timeout"`
}

// Check returns a *violation.Error that names what does not fit, as parts of field.
func (d *RunDefaults) Check(field string) error {
	var errTimeout error
	if d.RunTimeout < 0 {
		errTimeout = violation.New(field+".run_timeout", "must be positive")
	}
	return violation.Join(d.Retry.check(field+".retry"), errTimeout)
}

const (
	defaultInitialBackoff = 2 * time.Second
	defaultMaxBackoff     = 300 * time.Second
	defaultMultiplier     = 2
	// mostAttempts bounds RetryPolicy.MaxAttempts.
	mostAttempts = 100
)

// backoff is the pause after an attempt: a random one between a half and all of
// what the policy says, so that runs that failed together do not come back together.
func (p *RetryPolicy) backoff(attempt int) time.Duration {
	initial, longest, multiplier := p.InitialBackoff, p.MaxBackoff, p.Multiplier
	setDefault(&initial, defaultInitialBackoff)
	setDefault(&longest, defaultMaxBackoff)
	if multiplier == 0 {
		multiplier = defaultMultiplier
	}
	full := float64(initial) * math.Pow(multiplier, float64(max(attempt, 1)-1))
	full = min(full, float64(longest))
	return time.Duration(full/2 + rand.Float64()*full/2) //nolint:gosec // no secret
}

func (p *RetryPolicy) check(field string) error {
	if p == nil {
		return nil
	}
	var checks []error
	refuse := func(holds bool, name, what string) {
		if !holds {
			checks = append(checks, violation.New(field+"."+name, "%s", what))
		}
	}
	refuse(p.MaxAttempts >= 0 && p.MaxAttempts <= mostAttempts, "max_attempts", "must be 1 to 100")
	refuse(p.InitialBackoff >= 0, "initial_backoff", "must not be negative")
	refuse(p.MaxBackoff >= 0, "max_backoff", "must not be negative")
	refuse(p.Multiplier == 0 || (p.Multiplier >= 1 && p.Multiplier <= 1000), "multiplier", "must be 1 to 1000")
	return violation.Join(checks...)
}

// Concurrency limits how many runs with the same key of one namespace are under
// way at a time.
type Concurrency struct {
	Key string `json:"key"`
	// Limit is at least 1; 0 counts as 1.
	Limit    int      `json:"limit,omitempty"`
	Strategy Strategy `json:"strategy,omitempty"`
}

// Strategy says what becomes of a run whose concurrency key is taken.
type Strategy string

// The strategies; empty counts as QueueWhenTaken.
const (
	QueueWhenTaken    Strategy = "queue"
	RejectWhenTaken   Strategy = "reject"
	CancelWhoHasTaken Strategy = "cancel_running"
)

func (c *Concurrency) check() error {
	if c == nil {
		return nil
	}
	var errKey, errLimit, errStrategy error
	if c.Key == "" {
		errKey = violation.New("concurrency.key", "is required")
	} else {
		errKey = checkText("concurrency.key", c.Key, maxKeyBytes)
	}
	if c.Limit < 0 {
		errLimit = violation.New("concurrency.limit", "must be at least 1")
	}
	switch c.Strategy {
	case "", QueueWhenTaken, RejectWhenTaken, CancelWhoHasTaken:
	default:
		errStrategy = violation.New("concurrency.strategy", "%q is no strategy", c.Strategy)
	}
	return violation.Join(errKey, errLimit, errStrategy)
}

// policyOf returns how a run is retried: what the run itself does not say, its agent
// does. What neither says is zero, but for MaxAttempts, which the configuration says.
func (e *Engine) policyOf(run *Run, agent *RetryPolicy) RetryPolicy {
	policy := RetryPolicy{}
	for _, said := range []*RetryPolicy{run.options().Retry, agent, {MaxAttempts: e.cfg.MaxAttempts}} {
		if said == nil {
			continue
		}
		setDefault(&policy.MaxAttempts, said.MaxAttempts)
		setDefault(&policy.InitialBackoff, said.InitialBackoff)
		setDefault(&policy.MaxBackoff, said.MaxBackoff)
		if policy.Multiplier == 0 {
			policy.Multiplier = said.Multiplier
		}
	}
	return policy
}

// limit has a run begin at most as often, and take as long, as it, else its agent,
// else the engine's configuration says.
func (e *Engine) limit(run *Run, agent RunDefaults) {
	run.MaxAttempts = e.policyOf(run, agent.Retry).MaxAttempts
	setDefault(&run.RunTimeout, agent.RunTimeout)
	setDefault(&run.RunTimeout, e.cfg.RunTimeout)
}
