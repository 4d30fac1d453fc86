package admit

import (
	"errors"
	"fmt"
	"time"

	"github.com/weir-go/weir/limit"
)

// Update changes the configuration while calls run. It keeps everything that no option
// names. After a lower limit, calls that run above it finish. After a smaller queue, the
// waiters that have no place any more are refused. The name cannot be changed. If an
// option is wrong, Update changes nothing and returns an error that wraps [ErrConfig] and
// names every wrong option.
func (g *Gate) Update(opts ...Option) error {
	from, to, hooks, err := g.update(opts)
	hooks.limitChanged(from, to)
	return err
}

func (g *Gate) update(opts []Option) (from, to int, hooks hookSet, err error) {
	g.mu.Lock()
	defer g.mu.Unlock() // also after a Goexit in an algorithm
	from = g.Limit()
	err = g.updateLocked(opts)
	return from, g.Limit(), g.hooksLocked(), err
}

func (g *Gate) updateLocked(opts []Option) error {
	next := g.cfg.with(opts)
	if err := g.checkLocked(&next); err != nil {
		return err
	}
	next.useLog()
	g.cfg = next
	g.refusals.bound(&next)
	g.useQuotasLocked()
	g.usePressureLocked()
	now := g.now()
	g.turns.Configure(next.turns(), now)
	if next.algorithmSet {
		g.samples.useMark(next.algorithm)
		g.useFinishedLocked()
		g.gatherLocked() // the new algorithm must not learn from calls that have ended
		g.window.clear(now)
		g.pace, g.lasts, g.probing = pacer{}, pacer{}, false
		g.inFlight.resetPeak()
		from := g.Limit()
		g.setLimitLocked(next.initial)
		if next.initial != from {
			g.past.decide(now, from, next.initial, limit.Explanation{Why: "the configuration was changed"})
		}
	}
	g.trimLocked(now)
	if next.dryRun {
		g.admitWaitersLocked(now)
	}
	g.dispatchLocked(now) // classes may have larger bounds now
	return nil
}

// checkLocked validates a configuration. If it is valid, the gate owns its algorithm from
// then on.
func (g *Gate) checkLocked(next *config) error {
	bad := next.validate()
	if g.isZero() {
		bad.Add(errors.New("got a zero Gate, want one from New"))
	}
	if g.cfg.name != "" && next.name != g.cfg.name {
		bad.Add(fmt.Errorf("a gate cannot be renamed: got %q, want %q", next.name, g.cfg.name))
	}
	if next.algorithmSet {
		bad.Add(g.algorithm.own(g, next.algorithm, next.name, len(bad) == 0))
	}
	return bad.Err(ErrConfig)
}

func (g *Gate) setLimitLocked(n int) {
	g.inFlight.setLimit(n)
	now := g.now()
	g.trimLocked(now)
	g.dispatchLocked(now)
}

// trimLocked refuses the waiters that have no place any more.
func (g *Gate) trimLocked(now time.Duration) {
	n := g.Limit()
	for w := g.turns.Excess(n); w != nil; w = g.turns.Excess(n) {
		g.refuseWaiterLocked(waiterOf(w), Evicted, now)
	}
}
