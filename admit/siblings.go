package admit

import (
	"context"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
	"github.com/weir-go/weir/internal/inside"
	"github.com/weir-go/weir/limit"
)

// The methods in this file are for other packages of weir. Package inside describes them.
func init() { //nolint:gochecknoinits // package inside cannot import this one
	inside.Admit = inside.Gates[*Gate, Call, Class, Reason, Option]{
		Full:     (*Gate).full,
		TurnAway: func(ctx context.Context, g *Gate, c Call) (Reason, bool) { return g.turnAway(ctx, c) },
		Urgent:   (*Gate).urgent,
		Higher: func(g *Gate, a, b Class) Class {
			return g.ofClasses(func(t *classTable) Class { return t.higher(a, b) })
		},
		Lower: func(g *Gate, a, b Class) Class {
			return g.ofClasses(func(t *classTable) Class { return t.lower(a, b) })
		},
		Below: func(g *Gate, c Class) Class {
			return g.ofClasses(func(t *classTable) Class { return t.below(c) })
		},
		Room:       (*Gate).capacity,
		Adapts:     (*Gate).adapts,
		CountStall: func(g *Gate) { g.stalls.Add(1) },
		Stalled: func(ctx context.Context, g *Gate, method string, bound time.Duration) {
			g.logStall(ctx, method, bound)
		},
		RefuseIf: func(next func() (Reason, bool)) Option {
			return option(func(c *config) { c.refuseIf = next })
		},
	}
}

func (g *Gate) full() bool {
	if g.shedding() {
		return true
	}
	if s := g.inFlight.load(); !s.mustLock() && s.free() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.inFlight.load()
	return g.draining || !g.cfg.dryRun && !g.isZero() && (g.crowdedLocked() || !s.free() && g.turns.Full(s.limit()))
}

func (g *Gate) turnAway(ctx context.Context, call Call) (why Reason, away bool) {
	if why, away = g.shedEarly(ctx, call); away {
		return why, true
	}
	if q := g.quotas.Load(); q != nil && g.full() && q.over(call, time.Now()) {
		why, _, _ = g.overQuota(ctx, call, 0)
		return why, true
	}
	g.mu.Lock()
	call, c := g.describeLocked(call)
	switch s := g.inFlight.load(); {
	case g.draining:
		why, away = Draining, true
	case !g.cfg.dryRun && !g.isZero() && g.crowdedLocked():
		_, _ = g.refuseAndUnlock(ctx, call, TooManyOpen)
		return TooManyOpen, true
	case !g.cfg.dryRun && !g.isZero() && !s.free():
		var because turn.Reason
		because, away = g.turns.Shut(c, s.limit())
		why = reasonOf[because]
	}
	if !away {
		g.mu.Unlock()
		return 0, false
	}
	g.window.pressed++
	g.countRefusedLocked(ctx, call, why, nil)
	hooks := g.hooksLocked()
	g.mu.Unlock()
	hooks.refused(ctx, call, why, 0)
	return why, true
}

func (g *Gate) urgent() (Class, bool) {
	if !g.inFlight.load().mustLock() {
		return 0, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c, ok := g.turns.Urgent(g.roomLocked(g.inFlight.load(), g.now()))
	return Class(c), ok
}

// ofClasses returns a function of the classes of a gate.
func (g *Gate) ofClasses(f func(*classTable) Class) Class {
	g.mu.Lock()
	defer g.mu.Unlock()
	return f(&g.cfg.classes)
}

func (g *Gate) capacity() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.Limit()
	switch {
	case g.cfg.maxOpen > 0:
		return g.cfg.maxOpen
	case g.cfg.noQueue:
		return n
	case g.cfg.queue.Capacity > 0:
		return n + g.cfg.queue.Capacity
	}
	return n + max(n, 32)
}

func (g *Gate) adapts() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch g.cfg.algorithm.(type) {
	case *limit.Adaptive, *limit.AIMD, *limit.Vegas, *limit.Gradient:
		return true
	}
	return false
}
