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
			return configured(g, func(c *config) Class { return c.classes.higher(a, b) })
		},
		Lower: func(g *Gate, a, b Class) Class {
			return configured(g, func(c *config) Class { return c.classes.lower(a, b) })
		},
		Below: func(g *Gate, class Class) Class {
			return configured(g, func(c *config) Class { return c.classes.below(class) })
		},
		Room: func(g *Gate) int {
			return configured(g, func(c *config) int { return c.room(g.Limit()) })
		},
		Adapts:     func(g *Gate) bool { return configured(g, (*config).adapts) },
		CountStall: func(g *Gate) { g.stalls.Add(1) },
		Stalled: func(ctx context.Context, g *Gate, method string, bound time.Duration) {
			configured(g, func(c *config) *gateLog { return c.log }).streamStalled(ctx, g.Name(), method, bound)
		},
		RefuseIf: func(next func() (Reason, bool)) Option {
			return option(func(c *config) { c.refuseIf = next })
		},
	}
}

func (g *Gate) full() bool {
	if g.shedder.Load().some() {
		return true
	}
	if s := g.inFlight.load(); !s.mustLock() && s.free() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.inFlight.load()
	if g.isZero() || g.cfg.dryRun {
		return g.draining
	}
	return g.draining || g.open.tooMany(g.cfg.maxOpen, &g.permits) || !s.free() && g.permits.queue.Full(s.limit())
}

func (g *Gate) turnAway(ctx context.Context, c Call) (why Reason, away bool) {
	if s := g.shedder.Load(); s.acts() {
		if refusal, _ := g.shed(ctx, s, c); refusal != nil {
			return refusal.Reason, true
		}
	}
	if q := g.quotas.Load(); q != nil && g.full() && q.over(c, time.Now()) {
		if refusal := g.refuseOverQuota(ctx, c, q, 0); refusal != nil {
			return refusal.Reason, true
		}
	}
	g.mu.Lock()
	a := g.arriveLocked(ctx, c)
	switch s := g.inFlight.load(); {
	case g.draining:
		why, away = Draining, true
	case !g.cfg.dryRun && !g.isZero() && g.open.tooMany(g.cfg.maxOpen, &g.permits):
		_ = g.refuseAndUnlock(&a, TooManyOpen)
		return TooManyOpen, true
	case !g.cfg.dryRun && !g.isZero() && !s.free():
		var because turn.Reason
		because, away = g.permits.queue.Shut(a.asks, s.limit())
		why = reasonOf[because]
	}
	if !away {
		g.mu.Unlock()
		return 0, false
	}
	g.record.window.press(true)
	g.record.countRefused(ctx, a.call, why, 0)
	g.mu.Unlock()
	g.hooks.refused(ctx, a.call, why, 0)
	return why, true
}

func (g *Gate) urgent() (Class, bool) {
	if !g.inFlight.load().mustLock() {
		return 0, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c, ok := g.permits.queue.Urgent(g.permits.roomNow(g.clock.now()))
	return Class(c), ok
}

// room returns the number of calls that a gate with a limit of n is meant to hold.
func (c *config) room(n int) int {
	switch {
	case c.maxOpen > 0:
		return c.maxOpen
	case c.noQueue:
		return n
	case c.queue.Capacity > 0:
		return n + c.queue.Capacity
	}
	return n + max(n, 32)
}

// adapts reports whether the limit is one that learns from calls.
func (c *config) adapts() bool {
	switch c.algorithm.(type) {
	case *limit.Adaptive, *limit.AIMD, *limit.Vegas, *limit.Gradient:
		return true
	}
	return false
}
