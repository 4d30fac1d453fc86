package admit

import (
	"sync/atomic"
	"time"
)

// A Permit is leave to run one call. A call with a Cost holds it for several permits of
// the limit. Do not copy it. The zero Permit holds nothing, and Release of it does
// nothing.
type Permit struct {
	gate    *Gate
	start   time.Duration
	claim   claim
	pressed bool          // no permit was free when the call came
	waited  time.Duration // in the queue
	due     time.Duration // when the caller gives up, if the call waited; 0 otherwise
	state   atomic.Uint32 // held, ready or released
}

// The states of a Permit.
const (
	held uint32 = iota
	ready
	released
)

// Release returns the permit and tells the limit how the call ended. It does not block
// and is safe for concurrent use. Only the first Release counts. Call it in a defer, so
// that a panic or runtime.Goexit in the call frees the permit. After [Permit.Ready] it only
// ends the call, and the outcome does not count.
//
// An Overload of a call that waited in the queue for longer than it then ran counts as
// Ignored, because the queue used up the call's time, not the server.
func (p *Permit) Release(o Outcome) {
	if p.gate == nil {
		return
	}
	switch p.state.Swap(released) {
	case held:
		p.giveBack(o)
	case ready:
		p.gate.ready.Add(-1)
	}
}

// giveBack returns the permit and tells the limit the outcome. It is called once.
func (p *Permit) giveBack(o Outcome) {
	g := p.gate
	now := g.now()
	g.giveBack(p.claim, now)
	latency := now - p.start
	if late, known := p.isLate(now); known {
		g.late.see(p.claim.class, late)
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

// Held returns the time since the permit was granted. That excludes the wait in the
// queue. It is safe for concurrent use, and works after Release too. It returns 0 for the
// zero Permit.
func (p *Permit) Held() time.Duration {
	if p.gate == nil {
		return 0
	}
	return p.gate.now() - p.start
}
