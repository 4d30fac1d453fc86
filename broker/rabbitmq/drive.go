package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A step is something that drive does next.
type step int

const (
	wait     step = iota // nothing to do
	cancel               // the consumer must end
	prove                // a settlement waits for the broker
	consume              // a consumer must start, or a larger one
	giveBack             // the buffer holds messages that are no longer wanted
	finish               // the subscription has ended
)

// drive makes one step after the other until the subscription has ended.
func (s *subscription) drive() {
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

// nextLocked returns the next step.
func (s *subscription) nextLocked() step {
	ticked := s.ticked
	s.ticked = false
	dead := s.session.dead.Load()
	switch {
	case s.life.Err() != nil, s.closing && (dead || s.consumer == nil && s.window.Held() == 0):
		return finish
	case dead:
		return wait // Fetch connects again
	case s.consumer != nil && (s.crowded > 0 || s.resting):
		return cancel
	case s.resting && len(s.buffer) > 0:
		return giveBack
	case s.unproven > 0:
		return prove
	case !s.resting && (s.window.Urgent() || ticked && s.window.Tick()):
		return consume
	}
	s.rearmLocked(ticked)
	return wait
}

// rearmLocked goes on watching a surplus. After a tick the window remembers for how long it
// has lasted.
func (s *subscription) rearmLocked(ticked bool) {
	if ticked && !s.ticking && s.window.Short() && !s.resting {
		s.ticking = true
		s.timer.Reset(tick)
	}
}

// await blocks until there may be something to do.
func (s *subscription) await(current *session) {
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
func (s *subscription) call(current *session, f func() error) error {
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

// cancel ends the consumer, if one runs.
func (s *subscription) cancel(current *session) error {
	s.mu.Lock()
	c := s.consumer
	s.mu.Unlock()
	if c == nil {
		return nil
	}
	defer s.stir()
	s.calm(current)
	return s.unsubscribe(current, c)
}

// retire ends the consumer so that a larger one can start. It reports whether it still runs,
// because deliveries are under way. There is time to try again.
func (s *subscription) retire(current *session) (running bool, err error) {
	s.mu.Lock()
	c := s.consumer
	s.mu.Unlock()
	if c == nil {
		return false, nil
	}
	defer s.stir()
	if s.calm(current) {
		return false, s.unsubscribe(current, c)
	}
	return true, nil
}

// unsubscribe cancels a consumer and waits for the deliveries that the broker has sent
// meanwhile. They are part of its prefetch count.
func (s *subscription) unsubscribe(current *session, c *consumer) error {
	s.mu.Lock()
	c.ending = true
	s.mu.Unlock()
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
	return nil
}

const (
	// still is the time after which nothing is expected to be under way.
	still = 10 * time.Millisecond
	// longCalm bounds the wait for that.
	longCalm = 50 * time.Millisecond
)

// calm stops the settlements of the running consumer and waits until no delivery is under
// way. It reports whether that is sure. A quorum queue takes back a delivery that crosses
// with the cancellation. It then counts a failed attempt, and the order is lost.
func (s *subscription) calm(current *session) bool {
	timer := time.NewTicker(time.Millisecond)
	defer timer.Stop()
	for end := time.Now().Add(longCalm); ; {
		s.mu.Lock()
		s.changing = true
		quiet := s.window.Quiet()
		over := time.Since(s.moved) > still
		s.mu.Unlock()
		if quiet || over || current.dead.Load() || time.Now().After(end) {
			return quiet
		}
		<-timer.C
	}
}

// stir ends calm.
func (s *subscription) stir() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changing = false
	s.announceLocked()
	s.rearmLocked(true)
}

// prove waits until the broker has processed the settlements that were sent. The call
// changes nothing, since a prefetch count holds for consumers that start later.
func (s *subscription) prove(current *session) error {
	return s.call(current, func() error { return current.ch.Qos(1, 0, false) })
}

// consume starts a consumer for the demand that no other message takes up. It cancels the
// running one first.
func (s *subscription) consume(current *session) error {
	if running, err := s.retire(current); running || err != nil {
		return err
	}
	s.consumers++
	c := &consumer{session: current, tag: s.cfg.Name + "-" + strconv.Itoa(s.consumers), drained: make(chan struct{})}
	s.mu.Lock()
	prefetch := 0
	if !current.dead.Load() && !s.resting {
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

// giveBack returns the messages in the buffer to the broker.
func (s *subscription) giveBack(current *session) error {
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

// lose notes that a session has ended. The broker delivers its messages again.
func (s *subscription) lose(current *session, err error) {
	s.mu.Lock()
	if !current.dead.Swap(true) {
		s.window.Lose(len(s.buffer))
		s.buffer = nil
		s.consumer = nil
		s.loss = fmt.Errorf("rabbitmq: the connection to queue %q is lost, and its messages come again: %w", s.cfg.Queue, err)
		s.announceLocked()
	}
	s.mu.Unlock()
	current.kill()
	signal(s.wake)
	signal(s.ready)
}

// leave ends the session and the publisher's connection. A graceful end lets the broker
// read all that was sent.
func (s *subscription) leave() {
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
