package pressure

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// A probe reads one signal. Each read has a goroutine of its own, so that a signal that does
// not return blocks no other. The monitor's lock guards the fields below answer.
type probe struct {
	name   string
	signal Signal
	answer chan reading // with a buffer of one, because Read may end when no sample waits for it

	asked    bool // a read is under way
	askedAt  time.Time
	value    float64
	rise     float64       // that a forecaster expects
	within   time.Duration // until its next read, 0 for the usual interval
	at       time.Time     // of value, zero if there is none
	err      error
	told     bool // the hooks were called for err
	failures uint64
}

type reading struct {
	value, rise float64
	within      time.Duration
	err         error
}

func newProbe(name string, s Signal) *probe {
	return &probe{name: name, signal: s, answer: make(chan reading, 1)}
}

// due returns how long after the last read the next one begins.
func (p *probe) due(every time.Duration) time.Duration {
	if p.within > 0 {
		return min(p.within, every)
	}
	return every
}

// ask starts a read of the signal, unless one is under way or it is not due, and reports
// whether it did. A tenth of the interval makes up for timers that are early or late.
func (p *probe) ask(now time.Time, every time.Duration) bool {
	if p.asked || now.Sub(p.askedAt) < p.due(every)*9/10 {
		return false
	}
	p.asked, p.askedAt = true, now
	go func() {
		r := reading{err: errors.New("got no value: Read ended its goroutine")}
		defer func() {
			if v := recover(); v != nil {
				r = reading{err: fmt.Errorf("got a panic from Read: %v", v)}
			}
			p.answer <- r
		}()
		r.value, r.err = p.signal.Read()
		if f, ok := p.signal.(forecaster); ok && r.err == nil {
			r.rise, r.within = f.forecast()
		}
	}()
	return true
}

// take stores an answer.
func (p *probe) take(r reading, now time.Time) {
	p.asked = false
	switch {
	case r.err != nil:
	case math.IsNaN(r.value) || math.IsInf(r.value, 0) || r.value < 0:
		r.err = fmt.Errorf("got %v from Read, want 0 to 1", r.value)
	default:
		p.value, p.at, p.err = min(r.value, 1), now, nil
		p.rise, p.within = r.rise, r.within
		return
	}
	p.err, p.rise, p.within = r.err, 0, 0
	p.failures++
}

// silent counts a failure if a read takes longer than patience.
func (p *probe) silent(now time.Time, patience time.Duration) {
	if since := now.Sub(p.askedAt); since >= patience && p.err == nil {
		p.err = fmt.Errorf("got no answer from Read for %v", since.Round(time.Millisecond))
		p.failures++
	}
}

// worth returns the value that counts now. The expected rise counts from a value on.
func (p *probe) worth(now time.Time, memory time.Duration, from float64) float64 {
	if p.at.IsZero() || now.Sub(p.at) > memory {
		return 0
	}
	if p.value >= from {
		return min(p.value+p.rise, 1)
	}
	return p.value
}

// news reports whether the hooks must be called for p.err.
func (p *probe) news() bool {
	if p.told == (p.err != nil) {
		return false
	}
	p.told = p.err != nil
	return true
}
