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

// WithFixedLimit lets n calls run at a time, from 1 to [limit.Max]. It is short for
// [WithLimit] with a limit.Fixed.
func WithFixedLimit(n int) Option {
	return option(func(c *config) {
		fixed, err := limit.NewFixed(n)
		if err != nil {
			c.wrong = append(c.wrong, fmt.Errorf("WithFixedLimit: got %d, want 1 to %d", n, limit.Max))
			return
		}
		c.algorithm, c.algorithmSet = fixed, true
	})
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
