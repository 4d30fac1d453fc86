package admit

import (
	"sync/atomic"
	"time"
)

// A Permit is leave to run one call, whatever that costs. It must not be copied.
// The zero Permit holds nothing, and releasing it does nothing.
type Permit struct {
	gate    *Gate
	start   time.Duration
	claim   claim
	pressed bool          // it had not been free on arrival
	waited  time.Duration // for it, in the queue
	state   atomic.Uint32 // held, ready or released
}

// Release gives the permit back and tells the limit how the call ended. It does
// not block and is safe for concurrent use; the first call counts, further ones
// do nothing. Call it in a defer: then a panic or runtime.Goexit in between
// frees the permit too. After [Permit.Ready] it ends the call, which has no permit any more.
//
// An Overload of a call that waited here for longer than it then ran counts as
// Ignored: a deadline that the queue used up says nothing about the server.
func (p *Permit) Release(o Outcome) {
	if p.gate == nil {
		return
	}
	switch p.state.Swap(released) {
	case held:
		p.end(o)
	case ready:
		p.gate.ready.Add(-1)
	}
}

// end gives the permit back.
func (p *Permit) end(o Outcome) {
	g := p.gate
	now := g.now()
	g.giveBack(p.claim, now)
	if o == Success {
		g.least.see(p.claim.class, now-p.start)
	}
	if o == Overload && p.waited > now-p.start {
		o = Ignored // it was our queue that made it late, not the server
	}
	g.record(p, o, now-p.start)
	if int64(now) >= g.foldAt.Load() {
		g.fold(now)
	}
}
