package admit

import (
	"fmt"
	"slices"
)

// A Pressure tells gates how close the process is to its end. The Monitor of package
// pressure is one.
type Pressure interface {
	// Pressure returns the level, and the name of what causes it. At 0 a gate refuses
	// nothing. At 1 it refuses classes of a lower priority than Default, at 2 also those of
	// a lower priority than Critical, at 3 and above every class.
	//
	// A gate asks for each call, from many goroutines at once and with its lock held, so
	// the answer must cost no more than an atomic load, and Pressure must not call the gate.
	Pressure() (level uint8, signal string)
}

// WithPressure has the gate refuse calls while the process is close to its end, by class:
// see [Pressure]. Of several the highest level counts, and of those the first. Such a
// call takes neither a permit nor a place in the queue, and one that
// waits is refused when its turn comes. The reason is MemoryPressure, GCPressure,
// ProcessorPressure or, for any other signal, UnderPressure. The delay is up to
// [WithMaxRetryAfter], because an end that is close does not pass with the queue. A
// Pressure that panics refuses nothing and counts in Stats.Panics. None is the default, and
// in [Gate.Update] takes away those that there were.
//
// A [Gate.TurnAway] in a tap refuses such calls before they are read. To a gate for streams
// it means that no new streams are opened; those that are open go on.
func WithPressure(ps ...Pressure) Option {
	ps = slices.Clone(ps)
	return option(func(c *config) {
		c.pressure = ps
		for i, p := range ps {
			if p == nil {
				c.wrong = append(c.wrong, fmt.Errorf("pressure %d: got nil, want one, or none at all", i))
			}
		}
	})
}

// pressureLevels is how many levels are told apart.
const pressureLevels = 4

// sheds is what calls need to know of the pressure. It never changes.
type sheds struct {
	sources []Pressure
	dryRun  bool
	classes [pressureLevels][MaxClasses]bool // that are refused, by level
}

// settlePressureLocked makes sheds what the configuration says.
func (g *Gate) settlePressureLocked() {
	if len(g.cfg.pressure) == 0 {
		g.sheds.Store(nil)
		return
	}
	s := &sheds{sources: g.cfg.pressure, dryRun: g.cfg.dryRun}
	usual, critical := g.cfg.classes.priority(Default), g.cfg.classes.priority(Critical)
	for c := range s.classes[0] {
		p := g.cfg.classes.priority(Class(c))
		s.classes[1][c] = p < usual
		s.classes[2][c] = p < max(usual, critical)
		s.classes[3][c] = true
	}
	g.sheds.Store(s)
}

// ask returns the highest level, at most the highest that is told apart.
func (s *sheds) ask(g *Gate) (level uint8, signal string) {
	for _, p := range s.sources {
		if l, name := askOne(p, g); l > level {
			level, signal = l, name
		}
	}
	return min(level, pressureLevels-1), signal
}

func askOne(p Pressure, g *Gate) (level uint8, signal string) {
	defer func() {
		if recover() != nil {
			g.panics.Add(1)
			level = 0
		}
	}()
	return p.Pressure()
}

// pressureReason returns the reason for a signal of package pressure, by its name.
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

// shed refuses a call that the pressure does not let run, and counts that. In a dry run it
// only counts, and says so in quota.
func (g *Gate) shed(s *sheds, c Call) (quota quotaState, refusal *Refusal) {
	level, signal := s.ask(g)
	if level == 0 {
		return c.quota, nil
	}
	g.mu.Lock()
	class, why := g.cfg.classes.class(c.Class), pressureReason(signal)
	if !s.classes[level][class] || g.draining {
		g.mu.Unlock()
		return c.quota, nil
	}
	g.totals.refused[class][why]++
	quota, hooks := wouldFail, g.cfg.hooks
	if !s.dryRun {
		refusal = g.refusalLocked(why)
	}
	g.mu.Unlock()
	g.tellRefused(hooks, class, why, 0)
	return quota, refusal
}

// shedsLocked reports whether a call that waits is not to run, and why.
func (g *Gate) shedsLocked(c Class) (why Reason, sheds bool) {
	s := g.sheds.Load()
	if s == nil || s.dryRun {
		return 0, false
	}
	level, signal := s.ask(g)
	return pressureReason(signal), s.classes[level][c]
}

// shedding reports whether calls of some class are refused now.
func (g *Gate) shedding() bool {
	s := g.sheds.Load()
	if s == nil || s.dryRun {
		return false
	}
	level, _ := s.ask(g)
	return level > 0
}

// shedEarly is shed for a tap.
func (g *Gate) shedEarly(c Call) (why Reason, away bool) {
	s := g.sheds.Load()
	if s == nil || s.dryRun {
		return 0, false
	}
	_, refusal := g.shed(s, c)
	if refusal == nil {
		return 0, false
	}
	return refusal.Reason, true
}
