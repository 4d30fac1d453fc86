package pressure

import (
	"errors"
	"fmt"
)

// ErrConfig is wrapped by every error of [New], [Monitor.Update] and [FromJSON].
var ErrConfig = errors.New("pressure: invalid configuration")

// ErrUnknown is wrapped by the error of a signal that finds nothing to measure on this
// machine.
var ErrUnknown = errors.New("pressure: nothing to measure")

// A Signal is one resource that can run out.
type Signal interface {
	// Name names it in refusals, metrics and logs. It is asked for once. It must be short,
	// valid UTF-8, and unlike the names of the monitor's other signals.
	Name() string
	// Read returns how much of the resource is used up, from 0 to 1. More than 1 counts as
	// 1. NaN and less than 0 count as a failure, like an error. Only one call of Read runs
	// at a time, in a goroutine of the monitor.
	Read() (float64, error)
}

// The names of the signals of this package. A gate refuses with a reason of its own for
// each of them.
const (
	NameMemory     = "memory"
	NameGC         = "gc"
	NameProcessors = "processors"
)

// NewSignal returns a signal that calls read.
//
//	pool := pressure.NewSignal("pool", func() (float64, error) {
//		s := db.Stats()
//		return float64(s.InUse) / float64(s.MaxOpenConnections), nil
//	})
func NewSignal(name string, read func() (float64, error)) Signal { return funcSignal{name, read} }

type funcSignal struct {
	name string
	read func() (float64, error)
}

func (s funcSignal) Name() string           { return s.name }
func (s funcSignal) Read() (float64, error) { return s.read() }

// A Level is how close the process is to its end.
type Level uint8

const (
	// Calm is the usual level. Nothing is refused.
	Calm Level = iota
	// Elevated is for gates to refuse classes below Default.
	Elevated
	// High is for gates to refuse classes below Critical.
	High
	// Extreme is for gates to refuse every call that is not exempt.
	Extreme

	levels = 4
)

// String returns the level in lower case, as metrics name it.
func (l Level) String() string {
	names := [levels]string{"calm", "elevated", "high", "extreme"}
	if l < levels {
		return names[l]
	}
	return fmt.Sprintf("level(%d)", uint8(l))
}

// Marks are the values at which levels begin and end. A zero field means its default. They
// must rise from Release to Extreme, and Extreme is at most 1.
type Marks struct {
	// Elevated is where the level of this name begins; default 0.85. High and Extreme are
	// the same for theirs; defaults 0.92 and 0.97.
	Elevated, High, Extreme float64
	// Release is where Elevated ends; default 0.75.
	Release float64
}

func (m Marks) withDefaults() Marks {
	for _, f := range []struct {
		to  *float64
		def float64
	}{{&m.Elevated, 0.85}, {&m.High, 0.92}, {&m.Extreme, 0.97}, {&m.Release, 0.75}} {
		if *f.to == 0 {
			*f.to = f.def
		}
	}
	return m
}

func (m Marks) validate() (errs []error) {
	m = m.withDefaults()
	rising := []struct {
		name string
		at   float64
	}{{"Release", m.Release}, {"Elevated", m.Elevated}, {"High", m.High}, {"Extreme", m.Extreme}}
	for i, mark := range rising {
		if !(mark.at > 0 && mark.at <= 1) { // nor NaN
			errs = append(errs, fmt.Errorf("marks: %s: got %v, want more than 0 and at most 1", mark.name, mark.at))
		} else if i > 0 && mark.at <= rising[i-1].at {
			errs = append(errs, fmt.Errorf("marks: %s: got %v, want more than %s (%v)",
				mark.name, mark.at, rising[i-1].name, rising[i-1].at))
		}
	}
	return errs
}

// next returns the level after now if the worst signal has this value.
func (m Marks) next(now Level, worst float64) Level {
	begins := [levels]float64{Elevated: m.Elevated, High: m.High, Extreme: m.Extreme}
	ends := [levels]float64{Elevated: m.Release, High: m.Elevated, Extreme: m.High}
	for now > Calm && worst < ends[now] {
		now--
	}
	for now < Extreme && worst >= begins[now+1] {
		now++
	}
	return now
}
