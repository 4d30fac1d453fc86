package admit

import "github.com/weir-go/weir/limit"

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
	if g.countsFinished.Load() {
		if p.state.CompareAndSwap(held, finished) {
			g.leaving.Add(int64(p.claim.cost))
			p.tell(o, g.now())
		}
		return
	}
	if p.state.CompareAndSwap(held, beyond) {
		g.leaving.Add(int64(p.claim.cost)) // before the permits are free, or too many calls could open
		g.beyond.Add(int64(p.claim.cost))
		p.giveBack(o)
	}
}

// useFinishedLocked decides whether the limit counts finished calls.
func (g *Gate) useFinishedLocked() {
	_, fixed := g.cfg.algorithm.(*limit.Fixed)
	g.countsFinished.Store(fixed)
}

// leavingPermits returns the number of permits of finished calls, and the part of them that
// the limit does not count. A Release that overtakes its Finish makes a counter negative for a
// moment.
func (g *Gate) leavingPermits() (all, beyond int) {
	return int(max(g.leaving.Load(), 0)), int(max(g.beyond.Load(), 0))
}
