package broker

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// A verdict is the way in which a message is to be settled, and the reason of a dead letter.
type verdict struct {
	kind   Settlement
	reason string
}

// A settlement is the state of a message. At most one call of its settler runs at a time,
// so an Extend on its way cannot arrive after a Requeue.
type settlement struct {
	settler Settler
	busy    chan struct{} // holds one element while a call of the settler runs
	over    atomic.Bool
	owner   atomic.Pointer[pump]
}

func (s *settlement) settle(ctx context.Context, v verdict) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	if s.over.Load() {
		return ErrSettled
	}
	err := s.tell(ctx, v)
	switch {
	case err == nil:
		s.end(v.kind)
	case errors.Is(err, ErrSettled):
		s.end(Lost)
	}
	return err
}

func (s *settlement) extend(ctx context.Context) error {
	if err := s.lock(ctx); err != nil {
		return fmt.Errorf("an earlier call for it has no answer yet: %w", err)
	}
	defer s.unlock()
	if s.over.Load() {
		return ErrSettled
	}
	err := guarded("settler", func() error { return s.settler.Extend(ctx) })
	if errors.Is(err, ErrSettled) {
		s.end(Lost)
	}
	return err
}

func (s *settlement) tell(ctx context.Context, v verdict) error {
	return guarded("settler", func() error {
		switch v.kind {
		case Acked:
			return s.settler.Ack(ctx)
		case DeadLettered:
			return s.settler.DeadLetter(ctx, v.reason)
		default:
			return s.settler.Requeue(ctx)
		}
	})
}

// end settles the message for good. Only the first call has an effect.
func (s *settlement) end(k Settlement) {
	if !s.over.CompareAndSwap(false, true) {
		return
	}
	if p := s.owner.Load(); p != nil {
		p.settled(s, k)
	}
}

func (s *settlement) lock(ctx context.Context) error {
	select {
	case s.busy <- struct{}{}:
		return nil
	default:
	}
	select {
	case s.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *settlement) unlock() { <-s.busy }

// guarded calls a part of an adapter and returns a panic of it as an error.
func guarded(part string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("broker: the %s panicked: %v", part, p)
		}
	}()
	return f()
}
