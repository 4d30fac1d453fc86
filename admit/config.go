package admit

import (
	"errors"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
	"github.com/weir-go/weir/internal/check"
	"github.com/weir-go/weir/limit"
)

// ErrConfig is wrapped by every error of [New], [Gate.Update] and [FromJSON].
var ErrConfig = errors.New("admit: invalid configuration")

// A config is a configuration that options write. A gate uses only a valid one.
type config struct {
	name          string
	algorithm     limit.Algorithm
	algorithmSet  bool
	initial       int // the limit of a new algorithm, set by validate
	floor         int // its smallest limit, or 0, set by validate
	queue         QueueConfig
	noQueue       bool
	hooks         []Hooks
	log           *gateLog
	dryRun        bool
	maxRetryAfter time.Duration
	maxOpen       int
	classes       classTable
	quotas        QuotaConfig
	pressure      []Pressure
	refuseIf      func() (why Reason, refuse bool) // for package weirtest
	bad           check.Errors                     // found while options were applied
}

const (
	maxQueue       = 1 << 20
	defaultPlaces  = 4096
	defaultMaxWait = time.Second
)

// apply applies options in order.
func (c *config) apply(opts []Option) {
	for i, o := range opts {
		if o == nil {
			c.bad.That(false, "option %d: got nil, want an option", i)
			continue
		}
		o.apply(c)
	}
}

// with returns a copy of the configuration to which options were applied.
func (c *config) with(opts []Option) config {
	next := *c
	next.algorithmSet = false
	next.apply(opts)
	return next
}

// validate returns every error of the configuration. It asks a new algorithm for its
// limit.
func (c *config) validate() check.Errors {
	bad := c.bad
	q := c.queue
	bad.That(c.name != "", "name: got an empty one, want one that says what the gate protects")
	bad.That(q.Capacity >= 0 && q.Capacity <= maxQueue,
		"queue capacity: got %d, want 0 (automatic) to %d", q.Capacity, maxQueue)
	bad.That(q.MaxWait >= 0, "queue MaxWait: got %v, want 0 (default) or more", q.MaxWait)
	bad.That(q.Policy < policies, "queue policy: got %d, want Reject or Block", q.Policy)
	bad.That(c.maxRetryAfter == 0 || c.maxRetryAfter >= shortestDelay && c.maxRetryAfter <= longestDelay,
		"WithMaxRetryAfter: got %v, want 0 (default) or %v to %v", c.maxRetryAfter, shortestDelay, longestDelay)
	bad.That(c.maxOpen >= 0 && c.maxOpen <= maxOpen, "WithMaxOpen: got %d, want 0 (no bound) or 1 to %d", c.maxOpen, maxOpen)
	if c.algorithmSet {
		n, err := initialLimit(c.algorithm)
		c.initial, c.floor = n, smallestLimit(c.algorithm)
		bad.Add(err)
	}
	c.classes.validate(&bad)
	c.quotas.validate(&bad, &c.classes)
	return bad
}

// places returns how many calls may wait.
func (c *config) places() int {
	switch {
	case c.noQueue:
		return 0
	case c.queue.Capacity > 0:
		return c.queue.Capacity
	default:
		return defaultPlaces
	}
}

// maxWait returns how long a call may wait, or 0 for no bound.
func (c *config) maxWait() time.Duration {
	if c.queue.MaxWait == 0 && c.queue.Policy != Block {
		return defaultMaxWait
	}
	return c.queue.MaxWait
}

// longestWait returns how long a call may wait in the queue that there is.
func (c *config) longestWait() time.Duration {
	if c.noQueue {
		return 0
	}
	return c.maxWait()
}

// turns returns the configuration as package turn knows it.
func (c *config) turns() turn.Config {
	return turn.Config{
		Classes: c.classes.turns(),
		Places:  c.places(),
		MaxWait: c.maxWait(),
		Block:   c.queue.Policy == Block,
	}
}

// errZeroGate is the error of a Gate that New did not make.
var errZeroGate = check.Errors{errors.New("got a zero Gate, want one from New")}.Err(ErrConfig)
