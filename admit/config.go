package admit

import (
	"errors"
	"fmt"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
	"github.com/weir-go/weir/limit"
)

// ErrConfig is wrapped by every error of [New] and [Gate.Update].
var ErrConfig = errors.New("admit: invalid configuration")

const (
	maxQueue       = 1 << 20
	defaultPlaces  = 4096
	defaultMaxWait = time.Second
)

// places is how many calls may wait at most.
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

func (c *config) maxWait() time.Duration {
	if c.queue.MaxWait == 0 && c.queue.Policy != Block {
		return defaultMaxWait
	}
	return c.queue.MaxWait
}

// turns is what package turn is told of the configuration.
func (c *config) turns() turn.Config {
	return turn.Config{
		Classes: c.classes.turns(),
		Places:  c.places(),
		MaxWait: c.maxWait(),
		Block:   c.queue.Policy == Block,
	}
}

type config struct {
	name          string
	algorithm     limit.Algorithm
	algorithmSet  bool
	initial       int // limit of a new algorithm, asked for once
	queue         QueueConfig
	noQueue       bool
	hooks         []Hooks
	dryRun        bool
	maxRetryAfter time.Duration
	classes       classTable
	quotas        QuotaConfig
	refuseIf      func() (why Reason, refuse bool) // in tests; see package weirtest
	wrong         []error                          // of options, found when they were applied
}

// take applies options.
func (c *config) take(opts []Option) {
	for i, o := range opts {
		if o == nil {
			c.wrong = append(c.wrong, fmt.Errorf("option %d: got nil, want an option", i))
			continue
		}
		o.apply(c)
	}
}

func (c *config) validate() (errs []error) {
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	errs = append(errs, c.wrong...)
	q := c.queue
	check(c.name != "", "name: got an empty one, want one that says what the gate protects")
	check(q.Capacity >= 0 && q.Capacity <= maxQueue,
		"queue capacity: got %d, want 0 (automatic) to %d", q.Capacity, maxQueue)
	check(q.MaxWait >= 0, "queue MaxWait: got %v, want 0 (default) or more", q.MaxWait)
	check(c.validRetryAfter(), "WithMaxRetryAfter: got %v, want 0 (default) or %v to %v", c.maxRetryAfter, shortestDelay, longestDelay)
	check(q.Policy < policies, "queue policy: got %d, want Reject or Block", q.Policy)
	if c.algorithmSet {
		if err := c.askLimit(); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, c.classes.validate()...)
	errs = append(errs, c.quotas.validate(&c.classes)...)
	return errs
}

// check returns an error that names everything that is wrong with a configuration. If
// nothing is, the gate owns its algorithm from then on.
func (g *Gate) check(next *config) error {
	errs := next.validate()
	if g.shards == nil {
		errs = append(errs, errors.New("got a zero Gate, want one from New"))
	}
	if g.cfg.name != "" && next.name != g.cfg.name {
		errs = append(errs, fmt.Errorf("a gate cannot be renamed: got %q, want %q", next.name, g.cfg.name))
	}
	if next.algorithmSet {
		if err := g.own(next.algorithm, next.name, len(errs) == 0); err != nil {
			errs = append(errs, err)
		}
	}
	return joinConfig(errs)
}

// joinConfig returns one error for all that is wrong.
func joinConfig(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrConfig, errors.Join(errs...))
}
