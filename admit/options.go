package admit

import (
	"slices"
	"time"

	"github.com/weir-go/weir/limit"
)

// An Option configures a [Gate], in [New] or in [Gate.Update].
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

// WithName names the gate in refusals, metrics and pages. The default is "default". The
// name becomes a label value, so choose it in the program, never from a call.
func WithName(name string) Option { return option(func(c *config) { c.name = name }) }

// WithFixedLimit lets n calls run at a time, from 1 to [limit.Max]. It is short for
// [WithLimit] with a limit.Fixed.
func WithFixedLimit(n int) Option {
	return option(func(c *config) {
		fixed, err := limit.NewFixed(n)
		if err != nil {
			c.bad.That(false, "WithFixedLimit: got %d, want 1 to %d", n, limit.Max)
			return
		}
		c.algorithm, c.algorithmSet = fixed, true
	})
}

// WithLimit sets the algorithm that decides how many calls may run. The default is a
// limit.Adaptive with its defaults. The gate owns the algorithm from then on, so give
// each gate its own.
func WithLimit(a limit.Algorithm) Option {
	return option(func(c *config) { c.algorithm, c.algorithmSet = a, true })
}

// WithQueue sets how calls wait for a permit. [QueueConfig] has the defaults.
func WithQueue(q QueueConfig) Option {
	return option(func(c *config) { c.queue, c.noQueue = q, false })
}

// WithoutQueue refuses every call that finds no permit free.
func WithoutQueue() Option {
	return option(func(c *config) { c.queue, c.noQueue = QueueConfig{}, true })
}

// WithHooks adds a set of hooks. The gate calls all sets.
func WithHooks(h Hooks) Option {
	return option(func(c *config) { c.hooks = append(slices.Clip(c.hooks), h) })
}

// WithDryRun makes the gate decide and count as usual, but admit every call at once. Use
// it to try a configuration in production. A gate that drains refuses calls even in a dry run.
func WithDryRun(on bool) Option { return option(func(c *config) { c.dryRun = on }) }

// A Policy decides about calls that find no place in the queue. It is [Reject] or [Block].
type Policy uint8

// The policies.
const (
	// Reject refuses the newcomer at once. It is the default, and right for servers.
	Reject Policy = iota
	// Block lets every caller wait until its context ends, however many there are. It
	// is for clients that want to slow down their own goroutines. Never use it in a
	// server.
	Block

	policies = 2
)

// A QueueConfig says how calls wait. The zero value is the default. It is a queue that
// absorbs bursts, and refuses calls at once that it cannot serve in time.
//
// The queue either drains or stands. While it drains, it takes each call that can be
// served before its deadline and within MaxWait. It stands after about 450 ms in which it
// was never empty and more calls came than were served. Waiting longer helps no call
// then. While the queue stands, only about as many calls wait as there are permits, so
// that a permit that comes back finds a call. Other newcomers are refused at once. The
// queue drains again once it was empty for a while. In both states calls of a higher
// class evict calls of lower classes. While the queue stands behind an adaptive limit and
// goroutines wait for processors, no call waits most of the time, because waiters keep the
// Go scheduler from looking at the network.
type QueueConfig struct {
	// Capacity bounds how many calls may wait, and so the memory that they take. Zero
	// means 4096.
	Capacity int
	// MaxWait bounds how long a call may wait. Zero means one second, or no bound with
	// Block.
	MaxWait time.Duration
	// Policy decides about calls that find no place. Zero means Reject.
	Policy Policy
}
