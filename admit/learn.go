package admit

import (
	"time"

	"github.com/weir-go/weir/limit"
)

// learn gathers the samples and, once the window is ready, asks the algorithm for a new
// limit. It does nothing if another goroutine holds the lock. The next call learns then.
func (g *Gate) learn(now time.Duration) {
	if !g.mu.TryLock() {
		return
	}
	from, to := g.Limit(), 0
	var failure any
	func() {
		defer g.mu.Unlock() // also after a Goexit in the algorithm
		failure = g.learnLocked(now)
		to = g.Limit()
	}()
	if failure != nil {
		g.hooks.panicked(failure)
	}
	g.hooks.limitChanged(from, to)
}

// learnLocked returns the value of a panic of the algorithm, or nil. After a panic the
// limit stays as it was.
func (g *Gate) learnLocked(now time.Duration) (failure any) {
	if g.record.look(now) {
		g.useLockLocked()
	}
	g.record.samples.due.Store(int64(now + limit.WindowLength))
	prober, probes := g.cfg.algorithm.(limit.Prober)
	if !g.record.window.ready(now, probes) {
		return nil
	}
	closed := g.closeWindowLocked(now, probes)
	defer func() { failure = recover() }()
	if probes {
		defer func() {
			g.record.samples.mark.Store(int64(prober.Mark()))
			g.permits.probing = prober.Probing()
		}()
	}
	if n := min(max(g.cfg.algorithm.Update(closed), 1), limit.Max); n != closed.Limit {
		g.setLimitLocked(n)
		g.record.history.decide(now, closed.Limit, n, limit.Explain(g.cfg.algorithm, closed))
	}
	return nil
}

// closeWindowLocked closes the window, and tells it to the parts that learn from it.
func (g *Gate) closeWindowLocked(now time.Duration, probes bool) limit.Window {
	w := g.record.window.close(now, g.Limit(), g.inFlight.resetPeak(), probes)
	g.permits.see(w, now)
	if w.Succeeded > 0 {
		g.yield.learn(w.MeanLatency)
	}
	turns := min(g.cfg.places(), max(2, w.Limit)) + 1
	g.record.refusals.learn(turns, g.permits.lasts.least/time.Duration(w.Limit), g.cfg.maxWait(), w.Arrived, w.Completed())
	return w
}

// setLimitLocked sets a limit. More waiters may have their turn, or fewer of them a place.
func (g *Gate) setLimitLocked(n int) {
	g.inFlight.setLimit(n)
	now := g.clock.now()
	g.refuseExcessLocked(now)
	g.dispatchLocked(now)
}
