package broker

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	minPause     = 100 * time.Millisecond
	defaultPause = 30 * time.Second // the longest
	// longestAsked bounds the delay that a dependency may ask for.
	longestAsked = time.Hour
)

// A pauser holds back attempts while a dependency refuses work. When the pause is over one
// attempt tries, and its end decides whether the others go on. So each attempt has a way
// through the pauser.
//
//	running --refused--> paused --delay--> due --enter--> trying --refused--> paused
//	                                                      trying --other end--> running
type pauser struct {
	longest time.Duration
	tell    func(pauseEvent) // without the lock

	mu      sync.Mutex // guards the fields below
	stopped bool
	paused  bool
	due     bool      // the pause is over, and no attempt was there to try
	trial   *delivery // the attempt that tries
	waiting []*waiter // in the order in which they came
	timer   *time.Timer
	until   time.Time
	began   time.Time
	resumed time.Time     // when the last pause ended
	last    time.Duration // the last delay
	level   int           // refusals in a row
}

// A pauseEvent is the begin or the end of a pause.
type pauseEvent struct {
	began bool
	cause PauseCause
	err   error
	delay time.Duration // of the begin
	took  time.Duration // at the end
}

type waiter struct {
	d       *delivery
	granted chan struct{} // closed when d may run
}

// enter waits until the attempt of d may run. It returns the error of ctx if that ends
// first.
func (p *pauser) enter(ctx context.Context, d *delivery) error {
	p.mu.Lock()
	if !p.paused {
		p.mu.Unlock()
		return ctx.Err()
	}
	if p.due {
		p.due, p.trial = false, d
		p.mu.Unlock()
		return nil
	}
	w := &waiter{d: d, granted: make(chan struct{})}
	p.waiting = append(p.waiting, w)
	p.mu.Unlock()
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = slices.DeleteFunc(p.waiting, func(other *waiter) bool { return other == w })
	p.leaveLocked(d)
	return ctx.Err()
}

// state reports whether attempts are held back, and how many were refused in a row.
func (p *pauser) state() (paused bool, refusals int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused, p.level
}

// isTrial reports whether d is the attempt that tries.
func (p *pauser) isTrial(d *delivery) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trial == d
}

// leave ends an attempt that says nothing about the dependency. If it was to try, another
// one does.
func (p *pauser) leave(d *delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaveLocked(d)
}

func (p *pauser) leaveLocked(d *delivery) {
	if p.trial == d {
		p.trial = nil
		p.tryLocked()
	}
}

// tryLocked lets the attempt try that has waited longest. Messages that were refused while
// others succeeded try only when there is no other.
func (p *pauser) tryLocked() {
	if len(p.waiting) == 0 {
		p.due = true
		return
	}
	i := max(0, slices.IndexFunc(p.waiting, func(w *waiter) bool { return w.d.alone == 0 }))
	w := p.waiting[i]
	p.waiting = slices.Delete(p.waiting, i, i+1)
	p.trial = w.d
	close(w.granted)
}

// passed ends an attempt that was not refused.
func (p *pauser) passed(d *delivery) {
	p.mu.Lock()
	if p.trial != d || p.stopped {
		p.mu.Unlock()
		return
	}
	p.trial, p.paused = nil, false
	p.resumed = time.Now()
	for _, w := range p.waiting {
		close(w.granted)
	}
	p.waiting = nil
	took := p.resumed.Sub(p.began)
	p.mu.Unlock()
	p.tell(pauseEvent{took: took})
}

// refused ends an attempt that was refused, and pauses for the delay that was asked for,
// or else for longer with each refusal in a row. Attempts that were under way when the
// pause began can only prolong it.
func (p *pauser) refused(d *delivery, asked time.Duration, cause PauseCause, err error) {
	p.mu.Lock()
	now := time.Now()
	begins := !p.paused
	switch {
	case p.stopped:
		p.mu.Unlock()
		return
	case begins:
		if now.Sub(p.resumed) > p.last || d.alone > 0 {
			p.level = 0
		}
		p.paused, p.began = true, now
	case p.trial == d:
		p.trial = nil
	default:
		p.prolongLocked(now, asked)
		p.mu.Unlock()
		return
	}
	p.level++
	p.last = p.delay(asked)
	p.startLocked(now, p.last)
	delay := p.last
	p.mu.Unlock()
	if begins {
		p.tell(pauseEvent{began: true, cause: cause, err: err, delay: delay})
	}
}

// delay returns the length of a pause. The jitter is added to a delay that was asked for,
// because the attempt must not come before.
func (p *pauser) delay(asked time.Duration) time.Duration {
	if asked > 0 {
		asked = min(asked, longestAsked)
		return asked + rand.N(asked/10+1)
	}
	return backoff(p.level, min(minPause, p.longest), p.longest)
}

func (p *pauser) prolongLocked(now time.Time, asked time.Duration) {
	if p.trial != nil || p.due || asked <= 0 {
		return
	}
	if d := p.delay(asked); now.Add(d).After(p.until) {
		p.last = d
		p.startLocked(now, d)
	}
}

// startLocked lets an attempt try after d.
func (p *pauser) startLocked(now time.Time, d time.Duration) {
	if p.timer != nil {
		p.timer.Stop()
	}
	p.until = now.Add(d)
	until := p.until
	p.timer = time.AfterFunc(d, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.paused && p.trial == nil && p.until.Equal(until) {
			p.tryLocked()
		}
	})
}

// stop ends the pauser, and reports whether there was a pause. No new one begins.
func (p *pauser) stop() (paused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
	paused = p.paused
	p.stopped, p.paused = true, false
	return paused
}
