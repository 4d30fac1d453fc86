package admit

import (
	"time"

	"github.com/weir-go/weir/limit"
)

// fold moves the shards' samples into the window, and closes it when it is
// full. If another goroutine holds the lock, the next call will do.
func (g *Gate) fold(now time.Duration) {
	if !g.mu.TryLock() {
		return
	}
	from, to, hooks := g.window.limit, 0, g.cfg.hooks
	var failure any
	func() {
		defer g.mu.Unlock() // also after Goexit in an algorithm
		failure = g.foldLocked(now)
		to = g.window.limit
	}()
	if failure != nil {
		g.panicked(hooks, failure)
	}
	g.limitChanged(hooks, from, to)
}

func (g *Gate) limitChanged(hooks []Hooks, from, to int) {
	if from == to {
		return
	}
	g.each(hooks, func(h *Hooks) {
		if h.LimitChanged != nil {
			h.LimitChanged(from, to)
		}
	})
}

// foldLocked returns what the algorithm panicked with, if it did.
func (g *Gate) foldLocked(now time.Duration) (failure any) {
	g.gatherLocked()
	g.foldAt.Store(int64(now + limit.WindowLength))
	w := &g.window
	full := now-w.start >= limit.WindowLength && w.calls() >= limit.WindowCalls
	prober, probes := g.cfg.algorithm.(limit.Prober)
	late := probes && w.pressed > 0 && now-w.start >= limit.WindowPatience
	if !full && !late {
		return nil
	}
	closed := g.closeLocked(now, probes)
	defer func() { failure = recover() }() // the limit stays what it was
	if probes {
		defer func() { g.mark.Store(int64(prober.Mark())) }()
	}
	if n := min(max(g.cfg.algorithm.Update(closed), 1), limit.Max); n != w.limit {
		g.setLimitLocked(n)
	}
	return nil
}

// markLocked asks a new algorithm for its mark.
func (g *Gate) markLocked(a limit.Algorithm) {
	mark := 0
	if p, ok := a.(limit.Prober); ok {
		mark = p.Mark()
	}
	g.mark.Store(int64(mark))
}

// gatherLocked empties the shards into the window and the totals.
func (g *Gate) gatherLocked() {
	var all tally
	for i := range g.shards {
		s := &g.shards[i]
		s.mu.Lock()
		all.add(&s.tally)
		s.tally = tally{}
		s.mu.Unlock()
	}
	g.window.add(&all)
	g.totals.add(&all)
}
