package streamcredit

import (
	"context"
	"errors"
	"sync"
)

// A Topic sends the elements of one source to many subscribers. Each subscriber has a credit, an
// outbox and a policy of its own. A slow subscriber loses elements or its subscription, as its
// policy says. It does not delay the others, and uses no more memory than its outbox. Safe for
// concurrent use. The zero value is ready to use.
type Topic[T any] struct {
	mu          sync.Mutex // guards the fields below; Publish holds it while it visits the subscribers
	subscribers map[*Outbox[T]]context.CancelCauseFunc
	closed      bool
	published   uint64
	dropped     uint64 // by subscribers that have left
}

// Serve sends the elements that are published from now on to out, until the receiver cancels, ctx
// ends or the topic is closed. It then closes out, as [Outbox.Close] does. A handler should
// return its result. That is nil if the topic was closed or the receiver has canceled. It is
// RESOURCE_EXHAUSTED if the policy is [Fail] and the outbox was full or an element was too large
// for the receiver. Otherwise it is the error that ended the stream. The policy must not be
// [Block]. The default is [DropOldest].
func (t *Topic[T]) Serve(ctx context.Context, out *Sender[T], c OutboxConfig) error {
	switch c.Policy {
	case DefaultPolicy:
		c.Policy = DropOldest
	case Block:
		return invalid("Policy: got Block, want one that does not wait for a slow subscriber")
	default:
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	box, err := NewOutbox(ctx, out, c)
	if err != nil {
		return err
	}
	if t.add(box, stop) {
		select {
		case <-ctx.Done():
		case <-box.ended:
		}
	}
	err = t.end(ctx, box)
	t.remove(box) // after end, which counts the elements that it drops
	return err
}

// end closes the outbox of a subscriber, and returns the result of Serve.
func (*Topic[T]) end(ctx context.Context, box *Outbox[T]) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, ErrOutboxFull) {
		err := fullError(cause)
		var closed error
		if box.stop() {
			closed = inTime(ctx, func() error { return box.out.CloseWithError(err) })
		}
		_ = box.Close(ctx) // counts the elements that are left, as the sender is closed
		switch {
		case errors.Is(closed, ErrCanceled):
			return nil
		case closed != nil && !errors.Is(closed, ctx.Err()): // else closing is stuck
			return closed
		}
		return err
	}
	err := box.Close(ctx)
	if errors.Is(err, ErrCanceled) {
		return nil
	}
	return err
}

func (t *Topic[T]) add(box *Outbox[T], stop context.CancelCauseFunc) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	if t.subscribers == nil {
		t.subscribers = map[*Outbox[T]]context.CancelCauseFunc{}
	}
	t.subscribers[box] = stop
	return true
}

func (t *Topic[T]) remove(box *Outbox[T]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.subscribers[box]; !ok {
		return
	}
	delete(t.subscribers, box)
	stuck := false // a write is stuck in the transport, and its element may still be dropped
	select {
	case <-box.ended: // looked at first, since nothing is dropped after it
	default:
		stuck = true
	}
	dropped := box.Stats().Dropped
	t.dropped += dropped
	if stuck {
		go func() {
			<-box.ended
			t.mu.Lock()
			defer t.mu.Unlock()
			t.dropped += box.Stats().Dropped - dropped
		}()
	}
}

// Publish puts e into the outbox of each subscriber. It waits for none of them. They share e, so
// do not change it. After Close, Publish does nothing.
func (t *Topic[T]) Publish(e T) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.published++
	for box, stop := range t.subscribers {
		switch err := box.Put(context.Background(), e); {
		case errors.Is(err, ErrOutboxFull):
			stop(err)
		case err != nil: // the subscriber is about to be removed, or e is not an element
			t.dropped++
		}
	}
}

// Close ends all subscriptions once their outboxes are empty. It does not wait for that, but
// their handlers do.
func (t *Topic[T]) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for box := range t.subscribers {
		box.shut()
	}
}

// TopicStats is the state of a [Topic].
type TopicStats struct {
	Subscribers int    // current ones
	Published   uint64 // elements
	Dropped     uint64 // elements, summed over subscribers
}

// Stats returns the state of the topic.
func (t *Topic[T]) Stats() TopicStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := TopicStats{Subscribers: len(t.subscribers), Published: t.published, Dropped: t.dropped}
	for box := range t.subscribers {
		s.Dropped += box.Stats().Dropped
	}
	return s
}
