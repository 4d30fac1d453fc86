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
	from, to, err := g.update(opts)
	g.hooks.limitChanged(from, to)
	return err
}

func (g *Gate) update(opts []Option) (from, to int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock() // also after a Goexit in an algorithm
	from = g.Limit()
	err = g.updateLocked(opts)
	return from, g.Limit(), err
}

func (g *Gate) updateLocked(opts []Option) error {
	next := g.cfg.with(opts)
	if err := g.checkLocked(&next); err != nil {
		return err
	}
	g.useConfigLocked(&next)
	now := g.clock.now()
	g.permits.queue.Configure(next.turns(), now)
	if next.algorithmSet {
		g.record.forget(now, next.algorithm) // the new algorithm must not learn from calls that have ended
		g.permits.forget()
		from := g.Limit()
		g.setLimitLocked(next.initial)
		if next.initial != from {
			g.record.history.decide(now, from, next.initial, limit.Explanation{Why: "the configuration was changed"})
		}
	}
	g.refuseExcessLocked(now)
	if next.dryRun {
		g.grantAllLocked(now)
	}
	g.dispatchLocked(now) // classes may have larger bounds now
	return nil
}

// useConfigLocked puts a valid configuration into effect, except for the limit and the queue.
func (g *Gate) useConfigLocked(c *config) {
	g.cfg = *c
	g.hooks.use(c.allHooks())
	g.record.refusals.bound(c)
	g.quotas.Store(newQuotas(c, g.quotas.Load(), time.Now()))
	g.shedder.Store(newShedder(c, &g.hooks.panics))
	g.open.use(c.algorithm)
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
