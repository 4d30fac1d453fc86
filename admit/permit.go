package admit

import (
	"sync/atomic"
	"time"
)

// A Permit allows one call to run, and counts as Call.Cost permits of the limit. Release it exactly
// once. Do not copy it. The zero Permit holds nothing, and Release of it does nothing.
type Permit struct {
	gate    *Gate
	start   time.Duration
	claim   claim
	pressed bool          // no permit was free when the call came
	waited  time.Duration // in the queue
	due     time.Duration // when the caller gives up, if the call waited; 0 otherwise
	state   atomic.Uint32 // held, ready, finished, beyond or released
}

// The states of a Permit.
const (
	held uint32 = iota
	ready
	finished // by Finish, and the limit counts it
	beyond   // by Finish, and it is on top of the limit
	released
)

// Release returns the permit and tells the limit how the call ended. It does not block
// and is safe for concurrent use. Only the first Release counts. Call it in a defer, so
// that a panic or runtime.Goexit in the call frees the permit. After [Permit.Ready] or
// [Permit.Finish] it only ends the call, and the outcome does not count.
//
// An Overload of a call that waited in the queue for longer than it then ran counts as
// Ignored, because the queue used up the call's time, not the server.
func (p *Permit) Release(o Outcome) {
	if p.gate == nil {
		return
	}
	g, cost := p.gate, int64(p.claim.cost)
	switch p.state.Swap(released) {
	case held:
		p.giveBack(o)
	case ready:
		g.ready.Add(-1)
	case finished:
		g.giveBack(p.claim, g.now())
		g.leaving.Add(-cost)
	case beyond:
		g.beyond.Add(-cost)
		g.leaving.Add(-cost)
	}
}

// giveBack returns the permit and tells the limit the outcome. It is called once.
func (p *Permit) giveBack(o Outcome) {
	now := p.gate.now()
	p.gate.giveBack(p.claim, now)
	p.tell(o, now)
}

// tell tells the limit the outcome of a call that ends now.
func (p *Permit) tell(o Outcome, now time.Duration) {
	g, latency := p.gate, now-p.start
	if p.due > 0 {
		g.late.see(p.claim.class, now >= p.due)
	}
	if o == Success {
		g.shortest.see(p.claim.class, latency)
	}
	if o == Overload && p.waited > latency {
		o = Ignored
	}
	g.samples.add(p, o, latency)
	if g.samples.isDue(now) {
		g.learn(now)
	}
}

// HeldFor returns the time since the permit was granted. That excludes the wait in the
// queue. It is safe for concurrent use, and works after Release too. It returns 0 for the
// zero Permit.
func (p *Permit) HeldFor() time.Duration {
	if p.gate == nil {
		return 0
	}
	return p.gate.now() - p.start
}
