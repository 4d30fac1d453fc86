package admit

import (
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
)

// Update changes the gate's configuration while calls run, and keeps what it is
// not told to change. A lower limit drains what runs above it; a smaller queue
// refuses the calls that no longer fit. The name cannot be changed. When an
// option is wrong it returns an error that wraps ErrConfig, and changes nothing.
func (g *Gate) Update(opts ...Option) error {
	from, to, hooks, err := g.update(opts)
	g.limitChanged(hooks, from, to)
	return err
}

func (g *Gate) update(opts []Option) (from, to int, hooks []Hooks, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	from = g.window.limit
	err = g.updateLocked(opts)
	return from, g.window.limit, g.cfg.hooks, err
}

func (g *Gate) updateLocked(opts []Option) error {
	next := g.cfg
	next.algorithmSet = false
	next.take(opts)
	if err := g.check(&next); err != nil {
		return err
	}
	g.cfg = next
	g.refusals.bound(&next)
	g.settleQuotasLocked()
	g.settlePressureLocked()
	g.turns.Configure(next.turns())
	if next.algorithmSet {
		g.markLocked(next.algorithm)
		g.gatherLocked() // what ended before is not the new algorithm's
		g.window.clear(g.now())
		g.peak.Store(int64(g.load().inFlight()))
		g.setLimitLocked(next.initial)
	}
	now := g.now()
	g.trimLocked(now)
	if next.dryRun {
		g.releaseWaitersLocked(now)
	}
	g.dispatchLocked(now) // classes may have more now
	g.settleLocked()
	return nil
}

func (g *Gate) setLimitLocked(n int) {
	for {
		s := g.load()
		if g.swap(s, s.withLimit(n)) {
			break
		}
	}
	g.window.limit = n
	now := g.now()
	g.trimLocked(now)
	g.dispatchLocked(now)
}

// trimLocked refuses the waiters for which there is no place any more.
func (g *Gate) trimLocked(now time.Duration) {
	limit := g.load().limit()
	for w := g.turns.Excess(limit); w != nil; w = g.turns.Excess(limit) {
		g.refuseLocked(waiterOf(w), Displaced, now)
	}
}

// releaseWaitersLocked lets every waiter in, whatever the limit.
func (g *Gate) releaseWaitersLocked(now time.Duration) {
	n := g.load().limit()
	for w := g.turns.Any(); w != nil; w = g.turns.Any() {
		g.grantLocked(waiterOf(w), g.beyondLocked(min(w.Cost, n)), now)
	}
}

// Drain refuses every waiter and every later call with Draining; calls that run
// go on. It does not block and cannot be undone. Call it before
// grpc.Server.GracefulStop, which would wait for the whole queue.
func (g *Gate) Drain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.draining = true
	if g.shards == nil { // a zero Gate
		return
	}
	now := g.now()
	for w := g.turns.Any(); w != nil; w = g.turns.Any() {
		g.refuseLocked(waiterOf(w), Draining, now)
	}
	g.settleLocked()
}

// passAndUnlock lets a call in that found no permit free, in a dry run, and
// counts what would have become of it. Calls beyond the limit, or beyond the
// bound of their class, stand for calls that would wait, as if each cost as much
// as this one. A call over its quota has been counted already.
func (g *Gate) passAndUnlock(c turn.Call, now time.Duration, pressed, counted bool) (Permit, error) {
	s, class := g.load(), classOf(c.Class)
	full := !counted && g.turns.FullOf(c, g.room(s, now))
	cost := g.beyondLocked(c.Cost)
	g.addLocked(cost)
	got := g.holdLocked(c, cost, now)
	if full {
		g.totals.refused[class][QueueFull]++
	}
	hooks := g.cfg.hooks
	g.mu.Unlock()
	g.holding(got, func() {
		switch {
		case counted:
		case full:
			g.tellRefused(hooks, class, QueueFull, 0)
		default:
			g.countWaited(class, 0)
		}
	})
	return Permit{gate: g, start: now, claim: got, pressed: pressed}, nil
}

// beyondLocked returns the cost charged to a call that is admitted regardless of
// the limit.
func (g *Gate) beyondLocked(cost int) int {
	if g.load()&inFlight > manyInFlight { // as a word: it may be more than a 32-bit int
		return 1
	}
	return cost
}
