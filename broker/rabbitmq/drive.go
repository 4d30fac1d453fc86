package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A step is something that drive does next.
type step int

const (
	wait      step = iota // nothing to do
	reconnect             // the session is dead
	cancel                // the consumer must end
	prove                 // a settlement waits for the broker
	consume               // a consumer must start, or a larger one
	giveBack              // the source is closing with messages in its buffer
	finish                // the source has ended
)

// drive makes one step after the other until the source has ended.
func (s *Source) drive() {
	defer close(s.done)
	defer s.work.Wait()
	defer s.leave()
	for {
		s.mu.Lock()
		next, current := s.nextLocked(), s.session
		s.mu.Unlock()
		var err error
		switch next {
		case wait:
			s.await(current)
		case reconnect:
			s.reconnect()
		case cancel:
			err = s.cancel(current)
		case prove:
			err = s.prove(current)
		case consume:
			err = s.consume(current)
		case giveBack:
			err = s.giveBack(current)
		case finish:
			return
		}
		if err != nil {
			s.lose(current, err)
		}
	}
}

// nextLocked decides what to do.
func (s *Source) nextLocked() step {
	ticked := s.ticked
	s.ticked = false
	switch {
	case s.life.Err() != nil:
		return finish
	case s.closing:
		return s.lastLocked()
	case s.session.dead.Load():
		return reconnect
	case s.crowded > 0 && s.consumer != nil:
		return cancel
	case s.unproven > 0:
		return prove
	case s.window.Urgent() || ticked && s.window.Tick():
		return consume
	}
	s.rearmLocked(ticked)
	return wait
}

// lastLocked decides what to do on the way to the end.
func (s *Source) lastLocked() step {
	switch {
	case s.session.dead.Load() && s.window.Held() == 0:
		return finish
	case s.session.dead.Load():
		return wait // for the settlements of messages that the broker has taken back
	case s.consumer != nil:
		return cancel
	case len(s.buffer) > 0:
		return giveBack
	case s.unproven > 0:
		return prove
	case s.window.Held() == 0:
		return finish
	}
	return wait
}

// rearmLocked goes on watching a surplus. After a tick the window remembers for how long it
// has lasted.
func (s *Source) rearmLocked(ticked bool) {
	if ticked && !s.ticking && s.window.Short() {
		s.ticking = true
		s.timer.Reset(tick)
	}
}

// await blocks until there may be something to do.
func (s *Source) await(current *session) {
	select {
	case <-s.wake:
	case <-s.life.Done():
	case err, ok := <-current.gone:
		// The channel stays closed, and is not read again once the session is dead.
		if ok {
			s.lose(current, err)
		} else {
			s.lose(current, amqp.ErrClosed)
		}
		current.gone = nil
	}
}

// call makes a call that the broker answers. The broker works off a channel in order, so
// its answer proves that it has processed the settlements that were sent before.
func (s *Source) call(current *session, f func() error) error {
	s.mu.Lock()
	sent := current.written
	s.mu.Unlock()
	if err := f(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !current.dead.Load() {
		s.window.Prove(sent - current.proven)
		current.proven = sent
	}
	s.announceLocked()
	return nil
}

// cancel ends the consumer and waits for the deliveries that the broker has sent
// meanwhile. They are part of its prefetch count.
func (s *Source) cancel(current *session) error {
	s.mu.Lock()
	c := s.consumer
	if c != nil {
		c.ending = true
	}
	s.mu.Unlock()
	if c == nil {
		return nil
	}
	if err := s.call(current, func() error { return current.ch.Cancel(c.tag, false) }); err != nil {
		return err
	}
	<-c.drained
	s.mu.Lock()
	defer s.mu.Unlock()
	if !current.dead.Load() {
		s.consumer = nil
		c.canceled = true
		s.window.Cancel()
	}
	s.announceLocked()
	return nil
}

// prove waits until the broker has processed the settlements that were sent. The call
// changes nothing, since a prefetch count holds for consumers that start later.
func (s *Source) prove(current *session) error {
	return s.call(current, func() error { return current.ch.Qos(1, 0, false) })
}

// consume starts a consumer whose prefetch count is the demand that no other message takes
// up. It cancels the running one first.
func (s *Source) consume(current *session) error {
	if err := s.cancel(current); err != nil {
		return err
	}
	s.consumers++
	c := &consumer{session: current, tag: s.cfg.Name + "-" + strconv.Itoa(s.consumers), drained: make(chan struct{})}
	s.mu.Lock()
	prefetch := 0
	if !current.dead.Load() && !s.closing {
		prefetch = s.window.Start()
	}
	if prefetch > 0 {
		s.consumer = c
	}
	s.mu.Unlock()
	if prefetch == 0 {
		return nil
	}
	if err := s.call(current, func() error { return current.ch.Qos(prefetch, 0, false) }); err != nil {
		return err
	}
	deliveries, err := current.ch.Consume(s.cfg.Queue, c.tag, false, false, false, false, s.cfg.Arguments)
	if err != nil {
		return err
	}
	s.work.Go(func() { s.receive(c, deliveries) })
	return nil
}

// giveBack returns the messages that Next has not.
func (s *Source) giveBack(current *session) error {
	s.mu.Lock()
	buffer := s.buffer
	s.buffer = nil
	s.mu.Unlock()
	for _, d := range buffer {
		if err := current.ch.Nack(d.tag, false, true); err != nil {
			return err
		}
		s.mu.Lock()
		if !current.dead.Load() {
			s.window.EndOrphan()
			current.written++
		}
		s.mu.Unlock()
	}
	return nil
}

// install makes a session the current one.
func (s *Source) install(next *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session = next
	s.consumer = nil
}

// lose notes that a session has ended. The broker delivers its messages again.
func (s *Source) lose(current *session, err error) {
	s.mu.Lock()
	first := !current.dead.Swap(true)
	if first {
		s.window.Lose(len(s.buffer))
		s.buffer = nil
		s.consumer = nil
		s.failures++
		if time.Since(current.began) > maxDelay {
			s.failures = 1
		}
		s.announceLocked()
	}
	quiet := s.life.Err() != nil
	s.mu.Unlock()
	current.kill()
	signal(s.wake)
	if !first || quiet {
		return
	}
	err = fmt.Errorf("rabbitmq: the connection to queue %q is lost, and its messages come again: %w", s.cfg.Queue, err)
	s.cfg.Logger.Warn("rabbitmq: connection lost", "queue", s.cfg.Queue, "err", err)
	s.report(err)
}

const (
	minDelay = 100 * time.Millisecond
	maxDelay = 10 * time.Second
)

// reconnect opens a new session after a delay. The delay grows with failed attempts, and
// with sessions that have ended soon.
func (s *Source) reconnect() {
	if !s.sleep(s.delay()) {
		return
	}
	ctx, stop := context.WithCancel(s.life)
	defer stop()
	go func() { // Close need not wait for a connection
		select {
		case <-s.closed:
			stop()
		case <-ctx.Done():
		}
	}()
	next, err := s.connect(ctx)
	if err == nil {
		s.cfg.Logger.Info("rabbitmq: connected again", "queue", s.cfg.Queue)
		s.install(next)
		return
	}
	s.mu.Lock()
	s.failures++
	s.mu.Unlock()
	if ctx.Err() == nil {
		s.report(err)
	}
}

// delay returns how long to wait before the next attempt to connect.
func (s *Source) delay() time.Duration {
	s.mu.Lock()
	failures := s.failures
	s.mu.Unlock()
	d := maxDelay
	if failures < 8 {
		d = min(minDelay<<max(0, failures-1), maxDelay)
	}
	return d*2/3 + rand.N(d/3) //nolint:gosec // jitter
}

// sleep waits for d. It returns false when the source is closing.
func (s *Source) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.closed:
		return false
	}
}

// leave ends the session and the publisher's connection. A graceful end lets the broker
// read what was sent.
func (s *Source) leave() {
	s.mu.Lock()
	current := s.session
	s.mu.Unlock()
	if !current.dead.Load() && s.life.Err() == nil {
		stop := context.AfterFunc(s.life, current.kill)
		err := errors.Join(current.ch.Close(), current.conn.CloseDeadline(time.Now().Add(handshake)))
		stop()
		_ = err // the messages are settled, and the connection ends either way
	}
	s.end()
	s.lose(current, amqp.ErrClosed)
	s.publisher.close()
}
