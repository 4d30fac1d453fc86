package pressure

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// A probe reads one signal. Its goroutine only calls Read, so that a signal that does not
// return holds up no other. The monitor's lock guards the fields below answer.
type probe struct {
	name   string
	signal Signal
	answer chan reading // has room for one: Read can end long after anybody waits for it

	asked    bool // no answer has come yet
	askedAt  time.Time
	value    float64
	at       time.Time // of value; zero if there was none
	err      error
	told     bool // hooks know of err
	failures uint64
}

type reading struct {
	value float64
	err   error
}

func newProbe(name string, s Signal) *probe {
	return &probe{name: name, signal: s, answer: make(chan reading, 1)}
}

// ask begins to read the signal, unless it has not answered the last time yet.
func (p *probe) ask(now time.Time) {
	if p.asked {
		return
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
	}()
}

// take takes an answer.
func (p *probe) take(r reading, now time.Time) {
	p.asked = false
	switch {
	case r.err != nil:
	case math.IsNaN(r.value) || math.IsInf(r.value, 0) || r.value < 0:
		r.err = fmt.Errorf("got %v from Read, want 0 to 1", r.value)
	default:
		p.value, p.at, p.err = min(r.value, 1), now, nil
		return
	}
	p.err = r.err
	p.failures++
}

// silent notes that an answer is still to come.
func (p *probe) silent(now time.Time, patience time.Duration) {
	if since := now.Sub(p.askedAt); since >= patience && p.err == nil {
		p.err = fmt.Errorf("got no answer from Read for %v", since.Round(time.Millisecond))
		p.failures++
	}
}

// worth is what the signal counts for now.
func (p *probe) worth(now time.Time, memory time.Duration) float64 {
	if p.at.IsZero() || now.Sub(p.at) > memory {
		return 0
	}
	return p.value
}

// news returns whether the hooks are to be told of p.err.
func (p *probe) news() bool {
	if p.told == (p.err != nil) {
		return false
	}
	p.told = p.err != nil
	return true
}
