package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Close implements Source.
func (p *pump) Close(ctx context.Context) error {
	p.mu.Lock()
	first := !p.closing
	p.closing = true
	p.mu.Unlock()
	if first {
		p.stop()
		signal(p.ready)
		go p.shutdown() //nolint:gosec // it outlives the context of one Close
	}
	select {
	case <-p.ended:
		return p.result
	case <-ctx.Done():
	}
	p.mu.Lock()
	if !p.forced {
		p.forced = true
		close(p.force)
	}
	p.mu.Unlock()
	<-p.ended
	return errors.Join(ctx.Err(), p.result)
}

// shutdown ends a source that is closing.
func (p *pump) shutdown() {
	defer close(p.ended)
	patient, cancel := context.WithCancel(context.Background())
	defer cancel()
	giving := make(chan struct{})
	go func() {
		defer close(giving)
		p.giveBack(patient, p.holdings(false))
	}()
	p.mu.Lock()
	p.buffer = nil
	p.checkIdleLocked()
	p.mu.Unlock()
	select {
	case <-p.idle:
	case <-p.force:
	}
	cancel()
	<-giving
	p.bid(p.holdings(true))
	p.result = errors.Join(p.abandon(), p.closeFetcher())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cfg.Meter.count(func(s *Stats) { s.Wanted -= p.wanted })
	p.wanted = 0
}

// closeFetcher closes the Fetcher once Fetch has returned. If Fetch does not return, the
// Fetcher is closed in the background as soon as it does.
func (p *pump) closeFetcher() error {
	end := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), farewell)
		defer cancel()
		await(ctx, &p.work)
		return guarded("fetcher", func() error { return p.fetcher.Close(ctx) })
	}
	timer := time.NewTimer(farewell)
	defer timer.Stop()
	select {
	case <-p.stopped:
		return end()
	case <-timer.C:
	}
	go func() {
		<-p.stopped
		_ = p.abandon()
		if err := end(); err != nil {
			p.report(err)
		}
	}()
	return fmt.Errorf("broker: source %q: Fetch has not returned %v after its context ended", p.cfg.Name, farewell)
}

// fetchedLast is called when Fetch has returned for the last time.
func (p *pump) fetchedLast() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.stopped)
	p.checkIdleLocked()
}

// checkIdleLocked closes idle once nothing is held and no message can come any more.
func (p *pump) checkIdleLocked() {
	if !p.closing || len(p.held) > 0 {
		return
	}
	select {
	case <-p.stopped:
	default:
		return
	}
	select {
	case <-p.idle:
	default:
		close(p.idle)
	}
}

// holdings returns the messages that are held. Without all, it leaves out the messages
// that Next has returned.
func (p *pump) holdings(all bool) (messages []*Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.held {
		if all || !h.delivered {
			messages = append(messages, h.message)
		}
	}
	return messages
}

// bid gives back messages within the time for a farewell.
func (p *pump) bid(messages []*Message) {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	p.giveBack(ctx, messages)
}

// giveBackers bounds the messages that are given back at the same time.
const giveBackers = 16

// giveBack requeues messages. It repeats failed attempts until ctx ends. Then it waits a
// little for a Settler that goes on, and leaves it alone.
func (p *pump) giveBack(ctx context.Context, messages []*Message) {
	todo := make(chan *Message, len(messages))
	for _, m := range messages {
		todo <- m
	}
	close(todo)
	var workers sync.WaitGroup
	for range min(giveBackers, len(messages)) {
		workers.Go(func() {
			for m := range todo {
				for failures := 1; ctx.Err() == nil; failures++ {
					err := m.Nack(ctx, Requeue())
					if err == nil || errors.Is(err, ErrSettled) {
						break
					}
					p.report(fmt.Errorf("broker: source %q cannot give back message %q: %w", p.cfg.Name, m.ID, err))
					pause(ctx, backoff(failures, minDelay, maxDelay))
				}
			}
		})
	}
	await(ctx, &workers)
}

// await waits for a group, at most until a second after the end of ctx.
func await(ctx context.Context, group *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		group.Wait()
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// abandon forgets the messages that could not be given back.
func (p *pump) abandon() error {
	left := p.holdings(true)
	for _, m := range left {
		m.settlement.end(Lost)
	}
	if len(left) == 0 {
		return nil
	}
	return fmt.Errorf("broker: source %q could not give back %d messages; the broker delivers them again after its own timeout",
		p.cfg.Name, len(left))
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
