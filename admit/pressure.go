package admit

import (
	"context"
	"slices"
)

// A Pressure tells gates how close the process is to its end. The Monitor of package
// pressure is one.
type Pressure interface {
	// Pressure returns the level, and the name of the signal that causes it. At level 0 a
	// gate refuses nothing. At 1 it refuses the classes with a lower priority than Default,
	// at 2 also the classes with a lower priority than Critical, and from 3 on every class.
	//
	// A gate calls Pressure for each call, from many goroutines at once and with its lock
	// held. So Pressure must cost no more than a few atomic loads, and must not call the gate.
	Pressure() (level uint8, signal string)
}

// WithPressure makes the gate refuse calls by class while the process is close to its end.
// [Pressure] lists the levels. If there are several, the highest level counts, and the first
// of those. Such a call takes neither a permit nor a place in the queue. A waiter is refused
// when its turn comes. The reason is MemoryPressure, GCPressure, ProcessorPressure or, for
// any other signal, UnderPressure. The delay is a third of [WithMaxRetryAfter] or more.
//
// A Pressure that panics refuses nothing, and the panic counts in Stats.Panics. There is none
// by default. In [Gate.Update] the option replaces the Pressures before, so
// WithPressure() removes them.
//
// With a tap such calls are refused before they are read. A gate for streams opens no new
// streams, and does not end open ones.
func WithPressure(ps ...Pressure) Option {
	ps = slices.Clone(ps)
	return option(func(c *config) {
		c.pressure = ps
		for i, p := range ps {
			c.bad.That(p != nil, "pressure %d: got nil, want one, or none at all", i)
		}
	})
}

// pressureLevels is the number of levels that a gate tells apart.
const pressureLevels = 4

// A sheds is the configuration of pressure as calls need it. It never changes.
type sheds struct {
	sources []Pressure
	dryRun  bool
	refused [pressureLevels][MaxClasses]bool // by level and class
}

// usePressureLocked puts the configured pressure into effect.
func (g *Gate) usePressureLocked() {
	if len(g.cfg.pressure) == 0 {
		g.sheds.Store(nil)
		return
	}
	s := &sheds{sources: g.cfg.pressure, dryRun: g.cfg.dryRun}
	usual, critical := g.cfg.classes.priority(Default), g.cfg.classes.priority(Critical)
	for c := range s.refused[0] {
		p := g.cfg.classes.priority(Class(c))
		s.refused[1][c] = p < usual
		s.refused[2][c] = p < max(usual, critical)
		s.refused[3][c] = true
	}
	g.sheds.Store(s)
}

// level returns the highest level of the sources, and its signal.
func (s *sheds) level(g *Gate) (level uint8, signal string) {
	for _, p := range s.sources {
		if l, name := levelOf(p, g); l > level {
			level, signal = l, name
		}
	}
	return min(level, pressureLevels-1), signal
}

// levelOf asks one source. A panic counts as level 0.
func levelOf(p Pressure, g *Gate) (level uint8, signal string) {
	defer func() {
		if recover() != nil {
			g.panics.Add(1)
			level = 0
		}
	}()
	return p.Pressure()
}

// pressureReason maps the name of a signal to a reason.
func pressureReason(signal string) Reason {
	switch signal {
	case "memory", "bytes":
		return MemoryPressure
	case "gc":
		return GCPressure
	case "processors":
		return ProcessorPressure
	}
	return UnderPressure
}

// shed refuses a call because of pressure, and counts that. In a dry run it counts the call
// and returns no refusal, but reports that it would have refused the call.
func (g *Gate) shed(ctx context.Context, s *sheds, c Call) (refusal *Refusal, would bool) {
	level, signal := s.level(g)
	if level == 0 {
		return nil, false
	}
	g.mu.Lock()
	c.Class = g.cfg.classes.class(c.Class)
	why := pressureReason(signal)
	if !s.refused[level][c.Class] || g.draining { // another server may take the call at once
		g.mu.Unlock()
		return nil, false
	}
	if s.dryRun {
		g.countRefusedLocked(ctx, c, why, nil)
	} else {
		refusal = g.refusalLocked(ctx, c, why)
	}
	hooks := g.hooksLocked()
	g.mu.Unlock()
	hooks.refused(ctx, c, why, 0)
	return refusal, true
}

// shedsLocked reports whether pressure refuses a waiter of a class, and why.
func (g *Gate) shedsLocked(c Class) (why Reason, refuse bool) {
	s := g.sheds.Load()
	if s == nil || s.dryRun {
		return 0, false
	}
	level, signal := s.level(g)
	return pressureReason(signal), s.refused[level][c]
}

// shedding reports whether pressure refuses calls of any class.
func (g *Gate) shedding() bool {
	s := g.sheds.Load()
	if s == nil || s.dryRun {
		return false
	}
	level, _ := s.level(g)
	return level > 0
}

// shedEarly is shed for a call that has not been read.
func (g *Gate) shedEarly(ctx context.Context, c Call) (why Reason, away bool) {
	s := g.sheds.Load()
	if s == nil || s.dryRun {
		return 0, false
	}
	refusal, _ := g.shed(ctx, s, c)
	if refusal == nil {
		return 0, false
	}
	return refusal.Reason, true
}
