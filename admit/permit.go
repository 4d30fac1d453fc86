package admit

import (
	"sync/atomic"
	"time"
)

// A Permit allows one call to run, and counts as Call.Cost permits of the limit. Release it exactly
// once. Do not copy it. The zero Permit holds nothing, and Release of it does nothing.
type Permit struct {
	gate     *Gate
	start    time.Duration
	claim    claim
	pressed  bool          // no permit was free when the call came
	wait     time.Duration // in the queue
	deadline time.Duration // when the caller gives up, if the call waited; 0 otherwise
	state    atomic.Uint32 // held, ready, finished, beyond or released
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
		g.open.ready.Add(-1)
	case finished:
		g.giveBack(p.claim, g.clock.now())
		g.open.leaving.Add(-cost)
	case beyond:
		g.open.beyond.Add(-cost)
		g.open.leaving.Add(-cost)
	}
}

// Ready returns the permit while the call goes on, and tells the limit how the call has begun,
// as Release does. The call stays open, as [WithMaxOpen] counts it, until Release. Ready
// does not block and is safe for concurrent use. Only the first call counts, and none after
// Release.
//
//	permit.Ready(admit.Success) // the watch is set up
func (p *Permit) Ready(o Outcome) {
	if p.gate == nil || !p.state.CompareAndSwap(held, ready) {
		return
	}
	p.gate.open.ready.Add(1) // before the permit is free, or one call too many could open
	p.giveBack(o)
}

// Finish tells the limit how a call ended, as Release does, and keeps the permit until
// Release. Use it if a call holds memory after its end, such as a response that has not left
// the process. The latency that the limit learns ends here, and the outcome of Release does
// not count. Finish does not block and is safe for concurrent use. Only the first call counts,
// and none after Release or [Permit.Ready].
//
// An adaptive limit is the number of calls that the server can work on at once. A finished call
// is no such work. So only a limit.Fixed counts it, and with any other algorithm it comes on
// top of the limit. Stats.InFlight counts it in both cases, and so does [WithMaxOpen].
//
//	permit.Finish(admit.Success) // the handler has returned
//	defer permit.Release(admit.Ignored)
//	write(response)
func (p *Permit) Finish(o Outcome) {
	g := p.gate
	if g == nil {
		return
	}
	if g.open.countsFinished.Load() {
		if p.state.CompareAndSwap(held, finished) {
			g.open.leaving.Add(int64(p.claim.cost))
			p.tell(o, g.clock.now())
		}
		return
	}
	if p.state.CompareAndSwap(held, beyond) {
		g.open.leaving.Add(int64(p.claim.cost)) // before the permits are free, or too many calls could open
		g.open.beyond.Add(int64(p.claim.cost))
		p.giveBack(o)
	}
}

// MoveTo moves the permit to another variable, which must not hold one. After that p holds nothing. No
// other goroutine may use either variable meanwhile.
func (p *Permit) MoveTo(to *Permit) {
	to.gate, to.start, to.claim, to.pressed, to.wait, to.deadline = p.gate, p.start, p.claim, p.pressed, p.wait, p.deadline
	to.state.Store(p.state.Load())
	p.gate = nil
}

// giveBack returns the permit and tells the limit the outcome. It is called once.
func (p *Permit) giveBack(o Outcome) {
	now := p.gate.clock.now()
	p.gate.giveBack(p.claim, now)
	p.tell(o, now)
}

// tell tells the limit the outcome of a call that ends now.
func (p *Permit) tell(o Outcome, now time.Duration) {
	p.gate.record.end(p, o, now)
	if p.gate.record.samples.isDue(now) {
		p.gate.learn(now)
	}
}

// HeldFor returns the time since the permit was granted. That excludes the wait in the
// queue. It is safe for concurrent use, and works after Release too. It returns 0 for the
// zero Permit.
func (p *Permit) HeldFor() time.Duration {
	if p.gate == nil {
		return 0
	}
	return p.gate.clock.now() - p.start
}
