package rabbitmq

import (
	"context"
	"fmt"
	"time"

	"github.com/weir-go/weir/broker"
)

// ErrLost is the error of a message if its connection was lost before the broker knew of the
// settlement. The broker delivers it again. It wraps [broker.ErrSettled].
var ErrLost = fmt.Errorf("rabbitmq: the connection of the message is lost: %w", broker.ErrSettled)

var _ broker.Settler = (*delivery)(nil)

// Ack acknowledges the message.
func (d *delivery) Ack(ctx context.Context) error {
	if err := d.settle(ctx, func() error { return d.consumer.session.ch.Ack(d.tag, false) }); err != nil {
		return err
	}
	d.source.attempts.forget(&d.original)
	return nil
}

// Requeue gives the message back. A classic queue puts it where it was, so it may come
// again at once.
func (d *delivery) Requeue(ctx context.Context) error {
	if !d.noted { // before the broker can deliver it again
		d.noted = true
		d.source.attempts.note(&d.original)
	}
	return d.settle(ctx, func() error { return d.consumer.session.ch.Nack(d.tag, false, true) })
}

// DeadLetter publishes the message with its reason, waits until the broker has stored it,
// and acknowledges it then.
func (d *delivery) DeadLetter(ctx context.Context, reason string) error {
	if d.consumer.session.dead.Load() {
		return d.settle(ctx, nil)
	}
	if !d.copied {
		if err := d.source.publisher.publish(ctx, d, reason); err != nil {
			return err
		}
		d.copied = true
	}
	return d.Ack(ctx)
}

// Extend reports whether the message is still this consumer's. RabbitMQ has no way to ask
// for more time.
func (d *delivery) Extend(ctx context.Context) error {
	if d.consumer.session.dead.Load() {
		return d.settle(ctx, nil)
	}
	return nil
}

// settle calls send, which tells the broker of the settlement. It first makes sure that the
// broker cannot send more than is wanted then.
func (d *delivery) settle(ctx context.Context, send func() error) error {
	if err := d.begin(ctx); err != nil {
		return err
	}
	if err := send(); err != nil {
		d.source.lose(d.consumer.session, err)
	}
	return d.finish(ctx)
}

// begin waits until the settlement may be sent. A message of a lost connection is settled
// by that.
func (d *delivery) begin(ctx context.Context) error {
	s := d.source
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case d.consumer.session.dead.Load():
			s.window.EndStale()
			s.settledLocked()
			return ErrLost
		case d.consumer.canceled || !s.changing && s.window.Begin():
			return nil
		}
		if err := s.waitLocked(ctx, &s.crowded); err != nil {
			return err
		}
	}
}

// finish notes that the settlement was sent. If the broker could count more than is wanted
// until it has processed the settlement, finish waits for that.
func (d *delivery) finish(ctx context.Context) error {
	s, session := d.source, d.consumer.session
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case session.dead.Load():
		s.window.EndStale()
		s.settledLocked()
		return ErrLost
	case !d.consumer.canceled:
		s.window.EndActive()
		s.moved = time.Now()
		s.settledLocked()
		return nil
	}
	s.window.EndOrphan()
	s.settledLocked()
	session.written++
	own := session.written
	for session.proven < own && !s.window.Fits() {
		err := s.waitLocked(ctx, &s.unproven)
		if session.dead.Load() {
			return ErrLost
		}
		if err != nil {
			return nil // it was sent, and must not be sent again
		}
	}
	return nil
}

// settledLocked has drive look whether it can end.
func (s *subscription) settledLocked() {
	if s.closing {
		signal(s.wake)
	}
}

// waitLocked waits for drive. It is counted meanwhile, unless the consumer is about to be
// canceled in any case.
func (s *subscription) waitLocked(ctx context.Context, count *int) error {
	one := 1
	if s.changing {
		one = 0
	}
	*count += one
	changed := s.changesLocked()
	s.mu.Unlock()
	signal(s.wake)
	select {
	case <-changed:
	case <-ctx.Done():
	}
	s.mu.Lock()
	*count -= one
	return ctx.Err()
}
