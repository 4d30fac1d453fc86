package streamcredit

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/weir-go/weir/streamcredit/internal/queue"
)

// A Policy says what an [Outbox] does with an element when it is full.
type Policy uint8

const (
	// DefaultPolicy is Block in an [Outbox] and DropOldest in a [Topic].
	DefaultPolicy Policy = iota
	// Block has Put wait. Not for a [Topic].
	Block
	// DropOldest drops the element that has waited longest.
	DropOldest
	// DropNewest drops the element that was to be put.
	DropNewest
	// Latest keeps only the newest element, whatever the size: for values that replace
	// each other.
	Latest
	// Fail has Put return ErrOutboxFull; a [Topic] ends the subscription.
	Fail
)

// drops reports whether elements may be dropped.
func (p Policy) drops() bool { return p == DropOldest || p == DropNewest || p == Latest }

// ErrOutboxFull is what Put returns for an element that was not taken because of [Fail].
var ErrOutboxFull = errors.New("streamcredit: the outbox is full: the receiver asks for less than there is")

// OutboxConfig configures an [Outbox].
type OutboxConfig struct {
	// Size is how many elements wait at most; the default is 64.
	Size int
	// Policy decides what happens to an element beyond Size. The zero value is DefaultPolicy.
	Policy Policy
}

func (c *OutboxConfig) validate() error {
	if c.Size < 0 || c.Policy > Fail {
		return invalid("got an outbox of size %d and policy %d, want a positive size, and a policy up to %d", c.Size, c.Policy, Fail)
	}
	if c.Size == 0 {
		c.Size = 64
	}
	if c.Policy == DefaultPolicy {
		c.Policy = Block
	}
	if c.Policy == Latest {
		c.Size = 1
	}
	return nil
}

// An Outbox stands between a producer that cannot be slowed down and a [Sender]: it holds a
// bounded number of elements until the receiver asks for them, and its policy says what
// becomes of the others. What is dropped is counted, here and in the meter of the
// stream. An element leaves it only when there is demand for it, so that what a
// receiver gets is as new as its policy allows. Safe for concurrent use.
type Outbox[T any] struct {
	out    *Sender[T]
	config OutboxConfig
	cancel context.CancelFunc
	ended  chan struct{} // closed when the goroutine that sends has ended

	mu      sync.Mutex // guards what follows
	queue   queue.FIFO[T]
	put     uint64
	dropped uint64
	closed  bool
	err     error         // why nothing is sent any more
	changed chan struct{} // closed at the next change; nil: nobody waits
}

// NewOutbox returns an outbox that sends to out until ctx ends, the receiver cancels or it
// is closed. Nobody else should send to out. Close must be called.
func NewOutbox[T any](ctx context.Context, out *Sender[T], c OutboxConfig) (*Outbox[T], error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx) //nolint:gosec // Close calls it
	o := &Outbox[T]{out: out, config: c, cancel: cancel, ended: make(chan struct{})}
	go o.run(ctx) // Close waits for it
	return o, nil
}

// Put takes e, which it may drop as the policy says. Only with [Block] it waits, until there
// is room or ctx ends. It returns ErrOutboxFull, the context's error, ErrInvalid where e is
// not an element, ErrClosed after Close, or, once the receiver has ended, what Send returned.
// An element that is too large for the receiver ([ErrTooLarge]) is dropped and counted with
// the policies that drop; with Block and Fail it ends the outbox.
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
		case o.queue.Len() < o.config.Size:
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
		case Block, DefaultPolicy: // which validate has replaced
		}
		if err := o.waitLocked(ctx); err != nil {
			return err
		}
	}
}

// Close takes no more elements, waits until what is in the outbox was sent or ctx has
// ended, and closes the sender: with Close if everything was sent, with CloseGoingAway if
// ctx, or that of NewOutbox, had ended before, and else with the error. What was not sent
// counts as dropped. It returns nil, the context's error, or what Send returned. A write
// that the transport does not take ends only with the stream: Close leaves it a second after
// the end of ctx. Closing twice is closing once.
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
	if !stuck && (err == nil || left == 0 && !errors.Is(o.err, context.Canceled)) { // which it was by stop
		err = o.err
	}
	o.mu.Unlock()
	switch {
	case stuck: // so would be what closes the sender
		return err
	case err == nil:
		return inTime(ctx, o.out.Close)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		_ = inTime(ctx, o.out.CloseGoingAway) // there would have been more
	default: // if the stream has ended already, that is the error
		_ = inTime(ctx, func() error { return o.out.CloseWithError(err) })
	}
	return err
}

// inTime calls end, which closes a sender, and waits until that was written or ctx has ended,
// but a moment at least. If end is stuck in the write, it ends with the stream.
func inTime(ctx context.Context, end func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- end() }()
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

// stop ends the goroutine that sends. It reports false if that is stuck in a write, which
// ends with the stream.
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

// shut takes no more elements.
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

// run sends what is in the outbox.
func (o *Outbox[T]) run(ctx context.Context) {
	defer close(o.ended)
	err := o.drain(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
	o.wakeLocked()
}

func (o *Outbox[T]) drain(ctx context.Context) error {
	for {
		if open, err := o.await(ctx); !open || err != nil {
			return err
		}
		if err := o.out.Ready(ctx); err != nil {
			return err
		}
		o.mu.Lock()
		if o.queue.Len() == 0 { // the policy cannot have emptied it, but nobody need know that
			o.mu.Unlock()
			continue
		}
		e := o.queue.Pop()
		o.wakeLocked()
		o.mu.Unlock()
		if err := o.out.Send(ctx, e); err != nil {
			o.mu.Lock()
			o.dropLocked(1)
			o.mu.Unlock()
			if !errors.Is(err, ErrTooLarge) || !o.config.Policy.drops() {
				return err
			}
		}
	}
}

// await waits for an element. It returns false when there will be none.
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
