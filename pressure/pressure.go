package pressure

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/weir-go/weir/internal/check"
)

// ErrConfig is wrapped by every error of [New], [Monitor.Update] and [FromJSON].
var ErrConfig = errors.New("pressure: invalid configuration")

// ErrUnknown is wrapped by the error of a signal that finds nothing to measure on this
// machine.
var ErrUnknown = errors.New("pressure: nothing to measure")

// A Signal is one resource that can run out.
type Signal interface {
	// Name returns the name of the signal in refusals, metrics and logs. It has at most 64
	// bytes of valid UTF-8, and is unique within a monitor. It is called once.
	Name() string
	// Read returns the used part of the resource, from 0 to 1. More than 1 counts as 1. An
	// error, NaN, an infinity, and less than 0 count as failures. The monitor calls it in a
	// goroutine of its own, and never twice at a time.
	Read() (float64, error)
}

// The names of the signals of this package. A gate has a reason for each of them.
const (
	NameMemory     = "memory"
	NameGC         = "gc"
	NameProcessors = "processors"
)

// NewSignal returns a signal that calls read for the used part of something, from 0 to 1. More counts
// as 1. A panic, an error, NaN, an infinity and a negative number are failures. A monitor calls read
// in a goroutine of its own, one call at a time. The name must be unique in its monitor.
//
//	pool := pressure.NewSignal("pool", func() (float64, error) {
//		s := db.Stats()
//		return float64(s.InUse) / float64(s.MaxOpenConnections), nil
//	})
func NewSignal(name string, read func() (float64, error)) Signal { return &funcSignal{name, read} }

type funcSignal struct {
	name string
	read func() (float64, error)
}

func (s *funcSignal) Name() string           { return s.name }
func (s *funcSignal) Read() (float64, error) { return s.read() }

// A Level is how close the process is to its end: Calm, Elevated, High or Extreme. Other
// levels do not exist.
type Level uint8

const (
	// Calm is the usual level. Nothing is refused.
	Calm Level = iota
	// Elevated makes gates refuse classes below Default.
	Elevated
	// High makes gates refuse classes below Critical.
	High
	// Extreme makes gates refuse every call that is not exempt.
	Extreme

	levels = 4
)

// String returns the level in lower case.
func (l Level) String() string {
	names := [levels]string{"calm", "elevated", "high", "extreme"}
	if l < levels {
		return names[l]
	}
	return fmt.Sprintf("level(%d)", uint8(l))
}

// Marks are the values at which levels begin and end. They must rise from Release to Extreme,
// and Extreme is at most 1.
//
// A level begins at its mark and ends below the mark of the level before it. So after Extreme
// the gates admit first critical calls, then default calls, and below Release all calls. With
// the defaults, a value of 0.8 after Extreme is Elevated, and 0.74 is Calm.
type Marks struct {
	// Elevated, High and Extreme are the values at which these levels begin. Zero means
	// 0.85, 0.92 and 0.97.
	Elevated, High, Extreme float64
	// Release is the value below which Elevated ends. Zero means 0.75.
	Release float64
}

func (m Marks) withDefaults() Marks {
	return Marks{
		Elevated: cmp.Or(m.Elevated, 0.85), High: cmp.Or(m.High, 0.92), Extreme: cmp.Or(m.Extreme, 0.97),
		Release: cmp.Or(m.Release, 0.75),
	}
}

func (m Marks) validate(bad *check.Errors) {
	at := m.withDefaults()
	rising := []struct {
		name string
		at   float64
	}{{"Release", at.Release}, {"Elevated", at.Elevated}, {"High", at.High}, {"Extreme", at.Extreme}}
	before := rising[0]
	for i, mark := range rising {
		valid := mark.at > 0 && mark.at <= 1 // false for NaN
		bad.That(valid, "marks: %s: got %v, want more than 0 and at most 1", mark.name, mark.at)
		if valid && i > 0 {
			bad.That(mark.at > before.at, "marks: %s: got %v, want more than %s (%v)", mark.name, mark.at, before.name, before.at)
		}
		before = mark
	}
}

// next returns the level after now if worst is the highest value of a signal.
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
