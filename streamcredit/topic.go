package streamcredit

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A Topic sends what one source publishes to many subscribers, each with a credit, an
// outbox and a policy of its own. A slow one loses elements, as its policy says, or its
// subscription: it slows nobody down, and takes no more memory than its outbox. Safe for
// concurrent use. The zero value is ready to use.
type Topic[T any] struct {
	mu          sync.Mutex // guards what follows; Publish holds it while it goes round
	subscribers map[*Outbox[T]]context.CancelCauseFunc
	closed      bool
	published   uint64
	dropped     uint64 // by subscribers that have left
}

// Serve sends what is published from now on to out, until the receiver cancels, ctx ends or
// the topic is closed, and closes out, as [Outbox.Close] does. Handlers return what it
// returns: nil if the topic was closed or the receiver has canceled, RESOURCE_EXHAUSTED if
// the policy is [Fail] and the outbox was full or an element was too large for the receiver,
// or the error that ended the stream. The policy cannot be [Block]; the default is
// [DropOldest].
func (t *Topic[T]) Serve(ctx context.Context, out *Sender[T], c OutboxConfig) error {
	switch c.Policy {
	case DefaultPolicy:
		c.Policy = DropOldest
	case Block:
		return invalid("got the policy Block, want one with which a slow subscriber slows nobody down")
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
	t.remove(box) // what end has dropped is counted
	return err
}

// end closes the outbox of a subscriber, and returns what its handler should.
func (*Topic[T]) end(ctx context.Context, box *Outbox[T]) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, ErrOutboxFull) {
		err := status.Error(codes.ResourceExhausted, cause.Error())
		var closed error
		if box.stop() {
			closed = inTime(ctx, func() error { return box.out.CloseWithError(err) })
		}
		_ = box.Close(ctx) // which has ended: it counts what is left
		switch {
		case errors.Is(closed, ErrCanceled):
			return nil
		case closed != nil && !errors.Is(closed, ctx.Err()): // else that is stuck
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
	stuck := false // in a write: whether that element was sent shows when the stream ends
	select {
	case <-box.ended: // looked at first: nothing is dropped after it
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

// Publish puts e into the outbox of each subscriber. It waits for none of them. e belongs to
// all of them then: do not change it. After Close it does nothing.
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
		case err != nil: // the subscriber is about to be removed, or e is no element
			t.dropped++
		}
	}
}

// Close ends all subscriptions once their outboxes are empty. It does not wait for that;
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
	Subscribers int    // that are there now
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
