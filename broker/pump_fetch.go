package broker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"
)

// run fetches until the source is closed or fails for good.
func (p *pump) run() {
	returned := false
	defer func() {
		if !returned {
			p.fail(fmt.Errorf("%w: Fetch called runtime.Goexit", ErrPermanent))
		}
		p.fetchedLast()
	}()
	p.fetchAll()
	returned = true
}

func (p *pump) fetchAll() {
	var pace pace
	for {
		n := p.awaitDemand()
		if n == 0 {
			return
		}
		began := time.Now()
		messages, err := p.fetch(n)
		p.accept(messages)
		if len(messages) > 0 {
			// A fetch for few messages costs as much as one for many. Consumers that are quick
			// request the next messages before the next fetch begins.
			runtime.Gosched()
		}
		if p.ctx.Err() != nil {
			return
		}
		if err != nil && permanent(err) {
			p.fail(err)
			return
		}
		p.observe(&pace, err)
		pause(p.ctx, pace.after(len(messages), err, time.Since(began)))
	}
}

// awaitDemand returns the demand once there is some, or 0 when the source is closing.
func (p *pump) awaitDemand() int {
	for {
		p.mu.Lock()
		n := p.demandLocked()
		p.mu.Unlock()
		if p.ctx.Err() != nil {
			return 0
		}
		if n > 0 {
			return n
		}
		select {
		case <-p.more:
		case <-p.ctx.Done():
		}
	}
}

// fetch calls Fetch. A panic is an error.
func (p *pump) fetch(n int) (messages []*Message, err error) {
	err = guarded("fetcher", func() (err error) {
		messages, err = p.fetcher.Fetch(p.ctx, n)
		return err
	})
	return messages, err
}

// accept puts fetched messages into the buffer. It gives back messages beyond the demand,
// and all of them when the source is closing.
func (p *pump) accept(messages []*Message) {
	var back []*Message
	var wrong []error
	p.mu.Lock()
	closing := p.closing
	for _, m := range messages {
		if err := p.claimLocked(m); err != nil {
			wrong = append(wrong, err)
			continue
		}
		if p.held[m.settlement].surplus {
			back = append(back, m)
			continue
		}
		p.buffer = append(p.buffer, m)
		signal(p.ready)
	}
	if len(back) > 0 && !closing {
		p.work.Add(1)
	}
	p.mu.Unlock()
	for _, err := range wrong {
		p.report(err)
	}
	switch {
	case len(back) == 0:
	case closing:
		p.bid(back)
	default:
		p.report(fmt.Errorf("broker: the fetcher of source %q returned too many messages: got %d, want at most %d; the rest is given back",
			p.cfg.Name, len(messages), len(messages)-len(back)))
		go func() {
			defer p.work.Done()
			p.giveBack(p.ctx, back)
		}()
	}
}

// claimLocked makes the source the owner of a message.
func (p *pump) claimLocked(m *Message) error {
	if m == nil || m.settlement == nil {
		return fmt.Errorf("broker: the fetcher returned %v, want a message of NewMessage", m)
	}
	s := m.settlement
	if !s.owner.CompareAndSwap(nil, p) {
		return fmt.Errorf("broker: the fetcher returned message %q twice", m.ID)
	}
	if s.over.Load() { // before or while the owner was set
		return fmt.Errorf("broker: the fetcher returned message %q, which is settled already", m.ID)
	}
	h := &holding{message: m, received: time.Now(), surplus: p.closing || p.demandLocked() < 1}
	p.held[s] = h
	p.cfg.Meter.count(func(s *Stats) {
		s.Held++
		s.Fetched++
		if m.Attempt > 1 {
			s.Redelivered++
		}
	})
	if p.cfg.ExtendEvery > 0 {
		h.timer = time.AfterFunc(p.cfg.ExtendEvery, func() { p.extend(h) })
	}
	return nil
}

// observe logs and reports the errors of Fetch.
func (p *pump) observe(pace *pace, err error) {
	if err == nil {
		if pace.errors > 0 {
			p.cfg.Logger.Info("broker: fetching again", "source", p.cfg.Name, "errors", pace.errors)
		}
		return
	}
	if pace.errors == 0 {
		p.cfg.Logger.Warn("broker: cannot fetch, will try again", "source", p.cfg.Name, "err", err)
	}
	p.report(err)
}

// fail ends the source with a permanent error.
func (p *pump) fail(err error) {
	p.cfg.Logger.Error("broker: cannot fetch any more", "source", p.cfg.Name, "err", err)
	p.mu.Lock()
	p.failed = err
	p.mu.Unlock()
	signal(p.ready)
	p.report(err)
}

// extend asks for more time for a message, and sets the timer for the next time.
func (p *pump) extend(h *holding) {
	p.mu.Lock()
	if p.held[h.message.settlement] != h || time.Since(h.received) >= p.cfg.MaxHold {
		p.mu.Unlock()
		return
	}
	p.work.Add(1)
	p.mu.Unlock()
	defer p.work.Done()
	ctx, cancel := context.WithTimeout(context.Background(), min(p.cfg.ExtendEvery, maxExtend))
	defer cancel()
	next := p.cfg.ExtendEvery
	if err := h.message.Extend(ctx); err != nil {
		if errors.Is(err, ErrSettled) && h.message.settlement.over.Load() {
			return
		}
		p.report(fmt.Errorf("broker: source %q cannot extend message %q: %w", p.cfg.Name, h.message.ID, err))
		next = max(next/4, minExtend)
	} else {
		p.cfg.Meter.count(func(s *Stats) { s.Extended++ })
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[h.message.settlement] == h {
		h.timer.Reset(next)
	}
}

// A pace decides how long to wait between two calls of Fetch.
type pace struct{ errors, quick int }

// after returns the delay after a Fetch that has taken the given time.
func (p *pace) after(messages int, err error, took time.Duration) time.Duration {
	if err != nil {
		p.errors++
		return backoff(p.errors, minDelay, maxDelay)
	}
	p.errors = 0
	if messages > 0 || took >= quickFetch {
		p.quick = 0
		return 0
	}
	p.quick++
	return backoff(p.quick, quickFetch, maxQuick)
}

// backoff returns the delay after the given number of failures in a row, from 1. It is at
// least lo, doubles, and is at most hi, with a third of jitter.
func backoff(failures int, lo, hi time.Duration) time.Duration {
	d := hi
	if shift := failures - 1; shift < 30 && lo<<shift > 0 {
		d = min(lo<<shift*3/2, hi)
	}
	return d*2/3 + rand.N(d/3+1)
}
