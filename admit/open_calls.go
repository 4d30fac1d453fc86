package admit

import (
	"sync/atomic"

	"github.com/weir-go/weir/limit"
)

// maxOpen is the largest bound of WithMaxOpen.
const maxOpen = 1 << 30

// WithMaxOpen bounds the number of open calls, from 1 to 2^30. Zero, the default, means no
// bound. A call is open from its arrival until Release. While it waits it counts as one,
// while it holds its permit it counts for its cost, also after [Permit.Finish], and after
// [Permit.Ready] as one.
//
// Use it for streams that need a permit only to begin. The limit bounds how many begin at
// once, and this option how many are open. The gate refuses a call above the bound with
// [TooManyOpen], whatever its class. A lower bound, set by [Gate.Update], ends no call.
// While there is a bound, every call takes the gate's lock.
func WithMaxOpen(n int) Option { return option(func(c *config) { c.maxOpen = n }) }

// openCalls counts the calls that stay open after [Permit.Ready] or [Permit.Finish]. It is safe for
// concurrent use.
type openCalls struct {
	ready atomic.Int64 // calls that go on without a permit
	// leaving counts the permits of finished calls, and beyond the ones among them that the
	// limit does not count.
	leaving, beyond atomic.Int64
	countsFinished  atomic.Bool // the limit counts finished calls
}

// use decides whether the limit counts finished calls.
func (o *openCalls) use(a limit.Algorithm) {
	_, fixed := a.(*limit.Fixed)
	o.countsFinished.Store(fixed)
}

// readied returns the number of calls that go on without a permit. A Release that overtakes
// its Ready makes the counter negative for a moment.
func (o *openCalls) readied() int { return int(max(o.ready.Load(), 0)) }

// finished returns the number of permits of finished calls, and the part of them that
// the limit does not count. A Release that overtakes its Finish makes a counter negative for a
// moment.
func (o *openCalls) finished() (all, beyond int) {
	return int(max(o.leaving.Load(), 0)), int(max(o.beyond.Load(), 0))
}

// tooMany reports whether one more open call would be too many. A call inside Ready may count twice.
func (o *openCalls) tooMany(most int, p *permits) bool {
	if most == 0 {
		return false
	}
	_, beyond := o.finished()
	return p.inUse.load().inFlight()+beyond+p.queue.Len()+o.readied() >= most
}
