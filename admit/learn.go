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
	from, to, hooks := g.Limit(), 0, g.hooksLocked()
	var failure any
	func() {
		defer g.mu.Unlock() // also after a Goexit in the algorithm
		failure = g.learnLocked(now)
		to = g.Limit()
	}()
	if failure != nil {
		hooks.panicked(failure)
	}
	hooks.limitChanged(from, to)
}

// learnLocked returns the value of a panic of the algorithm, or nil. After a panic the
// limit stays as it was.
func (g *Gate) learnLocked(now time.Duration) (failure any) {
	g.gatherLocked()
	g.past.see(g, now)
	g.refused.relax(now)
	if g.watch.over(now) {
		g.useLockLocked()
	}
	g.samples.due.Store(int64(now + limit.WindowLength))
	prober, probes := g.cfg.algorithm.(limit.Prober)
	if !g.window.ready(now, probes) {
		return nil
	}
	closed := g.closeWindowLocked(now, probes)
	defer func() { failure = recover() }()
	if probes {
		defer func() {
			g.samples.mark.Store(int64(prober.Mark()))
			g.probing = prober.Probing()
		}()
	}
	if n := min(max(g.cfg.algorithm.Update(closed), 1), limit.Max); n != closed.Limit {
		g.setLimitLocked(n)
		g.past.decide(now, closed.Limit, n, limit.Explain(g.cfg.algorithm, closed))
	}
	return nil
}

// gatherLocked moves the samples into the window and the counters.
func (g *Gate) gatherLocked() {
	all := g.samples.gather()
	if all.calls() > 0 {
		g.refusals.quiet.end()
	}
	g.window.add(&all)
	g.counters.add(&all)
}

// closeWindowLocked closes the window, and updates the pace and the delay of refusals.
func (g *Gate) closeWindowLocked(now time.Duration, probes bool) limit.Window {
	w := g.window.close(now, g.Limit(), g.inFlight.resetPeak(), probes)
	if w.Succeeded > 0 {
		g.lasts.see(now, w.Succeeded, w.MeanLatency)
		compete := w.Succeeded
		if w.Pressed == 0 && w.MaxInFlight < w.Limit {
			compete = 0 // calls that will compete for the permits may be of another kind
		}
		g.pace.see(now, compete, w.MeanLatency/time.Duration(w.Limit))
		g.yield.learn(w.MeanLatency)
	}
	g.turns.Crowd(g.roomLocked(g.inFlight.load(), now), g.crowd.see(w))
	turns := min(g.cfg.places(), max(2, w.Limit)) + 1
	g.refusals.learn(turns, g.lasts.least/time.Duration(w.Limit), g.cfg.maxWait(), w.Arrived, w.Completed())
	return w
}
