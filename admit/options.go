package admit

import (
	"fmt"
	"slices"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
	"github.com/weir-go/weir/limit"
)

// An Option configures a [Gate], in [New] or in [Gate.Update].
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

// WithName names the gate in metrics and pages; the default is "default". Names
// become label values: choose them in the program, never from a call.
func WithName(name string) Option { return option(func(c *config) { c.name = name }) }

// WithLimit sets the algorithm that decides how many calls may run; the default
// is limit.Adaptive with its defaults. The gate owns the algorithm from then
// on: give each gate its own.
func WithLimit(a limit.Algorithm) Option {
	return option(func(c *config) { c.algorithm, c.algorithmSet = a, true })
}

// WithQueue sets how calls wait for a permit; see [QueueConfig] for the defaults.
func WithQueue(q QueueConfig) Option {
	return option(func(c *config) { c.queue, c.noQueue = q, false })
}

// WithoutQueue refuses every call that does not find a permit free.
func WithoutQueue() Option {
	return option(func(c *config) { c.queue, c.noQueue = QueueConfig{}, true })
}

// WithHooks adds hooks. Each use adds a set; all of them are called.
func WithHooks(h Hooks) Option {
	return option(func(c *config) { c.hooks = append(slices.Clip(c.hooks), h) })
}

// WithDryRun decides and counts everything and refuses nothing: every call runs
// at once. Use it to see what a gate would do before it does it. Only a gate that
// drains refuses even then.
func WithDryRun(on bool) Option { return option(func(c *config) { c.dryRun = on }) }

// A Policy says what happens to a call that finds no place in the queue.
type Policy uint8

const (
	// Reject refuses the newcomer, at once and without waiting. The default, and
	// right for servers.
	Reject Policy = iota
	// Block lets every caller wait for as long as its context allows, however
	// many there are. For clients, where the callers are the producer's own
	// goroutines and waiting is what slows it down; never for a server.
	Block

	policies = 2
)

// A QueueConfig says how calls wait. The zero value is the default: a queue that
// absorbs bursts and refuses at once what it cannot serve in time.
//
// A queue that drains takes every call that can be served before its deadline
// and within MaxWait. A queue that has not been empty for some 450 ms, although
// more calls come than are served, stands: waiting longer helps no call then.
// From then on only about as many calls wait as there are permits, so that a
// permit which comes free finds a call; the other newcomers are refused at once,
// until the queue is empty again for a while. Calls of a higher class evict
// those of lower ones in either state.
type QueueConfig struct {
	// Capacity is how many calls may wait at most, as a bound for memory. Zero
	// means 4096.
	Capacity int
	// MaxWait is how long a call may wait. Zero means one second, and no bound
	// at all with Block.
	MaxWait time.Duration
	// Policy says what to do with a call that finds no place.
	Policy Policy
}

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
	pressure      []Pressure
	refuses       func() (reason uint8, refuse bool) // in tests; see package weirtest
	wrong         []error                            // of options, found when they were applied
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
