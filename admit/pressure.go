package admit

import (
	"context"
	"slices"
	"sync/atomic"
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

// A shedder asks the sources of pressure which calls to refuse. It never changes. A nil one refuses
// nothing.
type shedder struct {
	sources []Pressure
	panics  *atomic.Uint64
	dryRun  bool
	refused [pressureLevels][MaxClasses]bool // by level and class
}

// newShedder returns nil if there is no pressure. It counts panics of the sources.
func newShedder(c *config, panics *atomic.Uint64) *shedder {
	if len(c.pressure) == 0 {
		return nil
	}
	s := &shedder{sources: c.pressure, panics: panics, dryRun: c.dryRun}
	usual, critical := c.classes.priority(Default), c.classes.priority(Critical)
	for class := range s.refused[0] {
		p := c.classes.priority(Class(class))
		s.refused[1][class] = p < usual
		s.refused[2][class] = p < max(usual, critical)
		s.refused[3][class] = true
	}
	return s
}

// level returns the highest level of the sources, and the reason for which its signal refuses.
func (s *shedder) level() (level uint8, why Reason) {
	signal := ""
	for _, p := range s.sources {
		if l, name := s.ask(p); l > level {
			level, signal = l, name
		}
	}
	return min(level, pressureLevels-1), pressureReason(signal)
}

// ask asks one source. A panic counts as level 0.
func (s *shedder) ask(p Pressure) (level uint8, signal string) {
	defer func() {
		if recover() != nil {
			s.panics.Add(1)
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

// acts reports whether pressure refuses calls at all.
func (s *shedder) acts() bool { return s != nil && !s.dryRun }

// refuse reports whether pressure refuses a waiter of a class, and why.
func (s *shedder) refuse(c Class) (why Reason, refuse bool) {
	if !s.acts() {
		return 0, false
	}
	level, why := s.level()
	return why, s.refused[level][c]
}

// some reports whether pressure refuses calls of any class.
func (s *shedder) some() bool {
	if !s.acts() {
		return false
	}
	level, _ := s.level()
	return level > 0
}

// shed refuses a newcomer because of pressure, and counts that. In a dry run it counts the call
// and returns no refusal, but reports that it would have refused the call.
func (g *Gate) shed(ctx context.Context, s *shedder, c Call) (refusal *Refusal, would bool) {
	level, why := s.level()
	if level == 0 {
		return nil, false
	}
	g.mu.Lock()
	c.Class = g.cfg.classes.class(c.Class)
	if !s.refused[level][c.Class] || g.draining { // another server may take the call at once
		g.mu.Unlock()
		return nil, false
	}
	if s.dryRun {
		g.record.countRefused(ctx, c, why, 0)
	} else {
		refusal = g.record.refuse(ctx, c, why)
	}
	g.mu.Unlock()
	g.hooks.refused(ctx, c, why, 0)
	return refusal, true
}
