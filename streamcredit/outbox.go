package streamcredit

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/weir-go/weir/internal/check"
	"github.com/weir-go/weir/streamcredit/internal/queue"
)

// A Policy says how an [Outbox] handles an element when it is full: Block, DropOldest, DropNewest,
// Latest or Fail. DefaultPolicy is one of them.
type Policy uint8

// The policies.
const (
	// DefaultPolicy is Block in an [Outbox] and DropOldest in a [Topic].
	DefaultPolicy Policy = iota
	// Block makes Put wait. A [Topic] does not accept it.
	Block
	// DropOldest drops the element that has waited longest.
	DropOldest
	// DropNewest drops the new element.
	DropNewest
	// Latest keeps only the newest element, whatever the Capacity. It suits values that replace each
	// other.
	Latest
	// Fail makes Put return ErrOutboxFull. A [Topic] ends the subscription.
	Fail
)

// drops reports whether elements may be dropped.
func (p Policy) drops() bool { return p == DropOldest || p == DropNewest || p == Latest }

// ErrOutboxFull is the error of Put for an element that [Fail] rejects.
var ErrOutboxFull = errors.New("streamcredit: the outbox is full because the receiver requests too little")

// defaultCapacity is the default of OutboxConfig.Capacity.
const defaultCapacity = 64

// OutboxConfig configures an [Outbox].
type OutboxConfig struct {
	// Capacity is the largest number of elements that wait. The default is 64.
	Capacity int
	// Policy handles elements beyond Capacity. The zero value is DefaultPolicy.
	Policy Policy
}

func (c OutboxConfig) validate(bad *check.Errors) {
	check.NotNegative(bad, "Capacity", c.Capacity, defaultCapacity)
	bad.That(c.Policy <= Fail, "Policy: got %d, want 0 (DefaultPolicy) to %d (Fail)", c.Policy, Fail)
}

func (c OutboxConfig) withDefaults() OutboxConfig {
	c.Capacity = cmp.Or(c.Capacity, defaultCapacity)
	if c.Policy == DefaultPolicy {
		c.Policy = Block
	}
	if c.Policy == Latest {
		c.Capacity = 1
	}
	return c
}

// An Outbox queues elements between a producer that cannot be slowed down and a [Sender]. It
// holds a bounded number of elements until the receiver requests them, and its policy handles
// elements beyond that number. Dropped elements are counted, here and in the meter of the stream.
// An element leaves the outbox only when there is demand for it, so the receiver gets elements as
// new as the policy allows. Safe for concurrent use.
type Outbox[T any] struct {
	out    *Sender[T]
	config OutboxConfig
	cancel context.CancelFunc
	ended  chan struct{} // closed when the goroutine that sends has ended

	mu      sync.Mutex // guards the fields below
	queue   queue.FIFO[T]
	put     uint64
	dropped uint64
	closed  bool
	err     error         // result of run, which has ended
	changed chan struct{} // closed at the next change; nil if no goroutine waits
}

// NewOutbox returns an outbox that sends to out until ctx ends, the receiver cancels or the
// outbox is closed. No other code should send to out. Close must be called. A nil or zero Sender,
// and a wrong configuration, are errors that wrap ErrInvalid.
func NewOutbox[T any](ctx context.Context, out *Sender[T], c OutboxConfig) (*Outbox[T], error) {
	var bad check.Errors
	bad.That(out.made(), "out: got none, want a Sender of ServeSend, DialSend or their variants")
	c.validate(&bad)
	if err := misused(bad); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx) //nolint:gosec // Close calls it
	o := &Outbox[T]{out: out, config: c.withDefaults(), cancel: cancel, ended: make(chan struct{})}
	go o.run(ctx) // Close waits for it
	return o, nil
}

// Put takes e, or drops an element as the policy says. It waits only with [Block], until there is
// room or ctx ends. Its errors are ErrOutboxFull, ctx.Err(), an error that wraps ErrInvalid if e
// is not an element, ErrClosed after Close, and, once the receiver has ended, the error of Send.
// If an element is too large for the receiver ([ErrTooLarge]), the policies that drop elements
// drop and count it. Block and Fail end the outbox.
func (o *Outbox[T]) Put(ctx context.Context, e T) error {
	if err := o.out.s.valid(e); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		switch {
		case o.err != nil:
			return o.err
		case o.closed:
			return ErrClosed
		case o.queue.Len() < o.config.Capacity:
			o.put++
			o.queue.Push(e)
			o.wakeLocked()
			return nil
		}
		switch o.config.Policy {
		case Fail:
			o.dropLocked(1)
			return ErrOutboxFull
		case DropNewest:
			o.dropLocked(1)
			return nil
		case DropOldest, Latest:
			o.queue.Pop()
			o.dropLocked(1)
			continue
		case Block, DefaultPolicy: // DefaultPolicy was replaced by validate
		}
		if err := o.waitLocked(ctx); err != nil {
			return err
		}
	}
}

// Close stops Put, waits until the queued elements are sent or ctx has ended, and closes the
// sender. It uses Sender.Close if everything was sent, CloseGoingAway if ctx or the context of
// NewOutbox ended before, and CloseWithError after an error of Send. Elements that were not sent
// count as dropped. Close returns nil, ctx.Err(), or the error of Send. A write that the
// transport does not take ends only with the stream. Close does not wait for it longer than a
// second after the end of ctx. Close may be called more than once.
func (o *Outbox[T]) Close(ctx context.Context) error {
	o.shut()
	var err error
	select {
	case <-o.ended:
	case <-ctx.Done():
		err = ctx.Err()
	}
	stuck := !o.stop()
	o.mu.Lock()
	left := o.queue.Len()
	o.dropLocked(left)
	o.queue.Clear()
	if !stuck && (err == nil || left == 0 && !errors.Is(o.err, context.Canceled)) { // stop canceled it
		err = o.err
	}
	o.mu.Unlock()
	switch {
	case stuck: // closing the sender would be stuck, too
		return err
	case err == nil:
		return inTime(ctx, o.out.Close)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		_ = inTime(ctx, o.out.CloseGoingAway) // more elements could have followed
	default: // if the stream has ended already, err says why
		_ = inTime(ctx, func() error { return o.out.CloseWithError(err) })
	}
	return err
}

// inTime calls end, which closes a sender. It waits until end has returned, but at most
// closeGrace after the end of ctx. If end is stuck in a write, its goroutine ends with the
// stream.
func inTime(ctx context.Context, end func() error) error {
	ended := make(chan error, 1)
	go shelter(end, func(err error) { ended <- err })
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	patience := time.NewTimer(closeGrace)
	defer patience.Stop()
	select {
	case err := <-ended:
		return err
	case <-patience.C:
		return ctx.Err()
	}
}

// stop ends the goroutine that sends. It returns false if the goroutine is stuck in a write,
// which ends with the stream.
func (o *Outbox[T]) stop() bool {
	o.cancel()
	patience := time.NewTimer(closeGrace)
	defer patience.Stop()
	select {
	case <-o.ended:
		return true
	case <-patience.C:
		return false
	}
}

// shut makes Put return ErrClosed. Queued elements are still sent.
func (o *Outbox[T]) shut() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.wakeLocked()
}

// OutboxStats is the state of an [Outbox].
type OutboxStats struct {
	Queued  int    // elements that wait
	Put     uint64 // elements that were taken
	Dropped uint64 // elements that were dropped, whether taken before or not
}

// Stats returns the state of the outbox. It does not block.
func (o *Outbox[T]) Stats() OutboxStats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return OutboxStats{Queued: o.queue.Len(), Put: o.put, Dropped: o.dropped}
}

// run sends the queued elements until drain ends.
func (o *Outbox[T]) run(ctx context.Context) {
	defer close(o.ended)
	shelter(func() error { return o.drain(ctx) }, func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.err = err
		o.wakeLocked()
	})
}

func (o *Outbox[T]) drain(ctx context.Context) error {
	for {
		if open, err := o.await(ctx); !open || err != nil {
			return err
		}
		if err := o.out.WaitCredit(ctx); err != nil {
			return err
		}
		o.mu.Lock()
		if o.queue.Len() == 0 { // no policy empties the queue, but this does not rely on it
			o.mu.Unlock()
			continue
		}
		e := o.queue.Pop()
		o.wakeLocked()
		o.mu.Unlock()
		if err := o.send(ctx, e); err != nil && (!errors.Is(err, ErrTooLarge) || !o.config.Policy.drops()) {
			return err
		}
	}
}

// send sends e, and counts it as dropped if that fails or does not return.
func (o *Outbox[T]) send(ctx context.Context, e T) error {
	sent := false
	defer func() {
		if !sent {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.dropLocked(1)
		}
	}()
	err := o.out.Send(ctx, e)
	sent = err == nil
	return err
}

// await waits for an element. It returns false if there will be none.
func (o *Outbox[T]) await(ctx context.Context) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.queue.Len() == 0 {
		if o.closed {
			return false, nil
		}
		if err := o.waitLocked(ctx); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (o *Outbox[T]) dropLocked(n int) {
	o.dropped += uint64(n)
	o.out.s.drop(n)
}

func (o *Outbox[T]) wakeLocked() {
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
}

// waitLocked waits for the next change, or the end of ctx or of the receiver.
func (o *Outbox[T]) waitLocked(ctx context.Context) error {
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	changed := o.changed
	o.mu.Unlock()
	defer o.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-o.out.Done():
		return o.out.s.ledger().why()
	case <-ctx.Done():
		return ctx.Err()
	}
}
