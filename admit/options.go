package admit

import (
	"fmt"
	"slices"
	"time"

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

// A Policy says what happens to a call that finds the queue full.
type Policy uint8

const (
	// DropOldest lets the newcomer in and refuses the call that has waited
	// longest: its caller is the likeliest to have given up. The default.
	DropOldest Policy = iota
	// Reject refuses the newcomer.
	Reject
	// Block lets every caller wait for as long as its context allows, however
	// many there are. For clients, where the callers are the producer's own
	// goroutines and waiting is what slows it down; never for a server.
	Block

	policies = 3
)

// An Order says which waiting call gets the next permit. Classes come before
// it: the order is that among calls of one class.
type Order uint8

const (
	// AdaptiveLIFO serves the oldest call of a class first while the class and
	// those above it fill at most half of the queue, the newest first beyond:
	// under overload somebody has to wait too long, and it should not be
	// everybody (Maurer, "Fail at Scale", ACM Queue 13(8), 2015). The default.
	AdaptiveLIFO Order = iota
	// FIFO serves the oldest first, always.
	FIFO
	// CoDel serves the oldest first, and once the queue has not been empty for
	// 100 ms refuses calls that have waited for more than 5 ms, until it has
	// been (Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 10(5),
	// 2012, in the form for servers of Maurer, 2015).
	CoDel

	orders = 3
)

// A QueueConfig says how calls wait. The zero value is the default: a short
// queue that keeps what it serves fresh.
type QueueConfig struct {
	// Capacity is how many calls may wait. Zero means the limit, but at least
	// 32: enough to ride out the randomness of arrivals at full load.
	Capacity int
	// MaxWait is how long a call may wait. Zero means one second, and no bound
	// at all with Block.
	MaxWait time.Duration
	// Policy says what to do when the queue is full.
	Policy Policy
	// Order says who is next.
	Order Order
}

const (
	maxQueue       = 1 << 20
	smallestAuto   = 32
	defaultMaxWait = time.Second
)

// capacity is how many calls may wait while the limit is n.
func (c *config) capacity(n int) int {
	switch {
	case c.noQueue:
		return 0
	case c.queue.Capacity > 0:
		return c.queue.Capacity
	default:
		return max(n, smallestAuto)
	}
}

func (c *config) maxWait() time.Duration {
	if c.queue.MaxWait == 0 && c.queue.Policy != Block {
		return defaultMaxWait
	}
	return c.queue.MaxWait
}

type config struct {
	name         string
	algorithm    limit.Algorithm
	algorithmSet bool
	initial      int // limit of a new algorithm, asked for once
	queue        QueueConfig
	noQueue      bool
	hooks        []Hooks
	dryRun       bool
	classes      classTable
	quotas       QuotaConfig
	wrong        []error // of options, found when they were applied
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
	check(q.Policy < policies, "queue policy: got %d, want DropOldest, Reject or Block", q.Policy)
	check(q.Order < orders, "queue order: got %d, want AdaptiveLIFO, FIFO or CoDel", q.Order)
	if c.algorithmSet {
		if err := c.askLimit(); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, c.classes.validate()...)
	errs = append(errs, c.quotas.validate(&c.classes)...)
	return errs
}
