// Package batch sends the requests of several callers to a broker together.
package batch

import (
	"context"
	"sync"
	"time"
)

// A Batcher sends entries of one kind in batches. An entry is sent at once if a sender is
// free. While all are busy, entries gather, so batches are full exactly when there is a lot
// to do. It is safe for concurrent use. Set the exported fields before the first Do.
type Batcher[T any] struct {
	// Send sends one batch and returns the error of each entry, nil for success.
	Send func(context.Context, []T) []error
	// Senders is the number of batches at the same time, and Most the number of entries of
	// a batch.
	Senders, Most int
	// Time bounds the time of a Send.
	Time time.Duration

	mu      sync.Mutex // guards the fields below
	waiting []*item[T]
	busy    int // running senders
	work    sync.WaitGroup
}

// An item is an entry on its way.
type item[T any] struct {
	entry T
	ctx   context.Context
	err   chan error // gets one element
}

// Do sends an entry, and returns its error once the broker has answered. If ctx ends before,
// it returns the error of ctx, and an entry that was not sent yet is not sent.
func (b *Batcher[T]) Do(ctx context.Context, entry T) error {
	it := &item[T]{entry: entry, ctx: ctx, err: make(chan error, 1)}
	b.mu.Lock()
	b.waiting = append(b.waiting, it)
	if b.busy < b.Senders {
		b.busy++
		b.work.Go(b.run)
	}
	b.mu.Unlock()
	select {
	case err := <-it.err:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Wait waits until nothing is on its way. Call it after the last Do.
func (b *Batcher[T]) Wait() { b.work.Wait() }

// run sends batches until nothing waits.
func (b *Batcher[T]) run() {
	for {
		items := b.take()
		if items == nil {
			return
		}
		b.deliver(items)
	}
}

// take returns the next batch, or nil when the sender is to end.
func (b *Batcher[T]) take() []*item[T] {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(b.Most, len(b.waiting))
	if n == 0 {
		b.busy--
		return nil
	}
	items := b.waiting[:n:n]
	b.waiting = b.waiting[n:]
	return items
}

// deliver sends the entries that a caller still waits for.
func (b *Batcher[T]) deliver(items []*item[T]) {
	var entries []T
	var sent []*item[T]
	for _, it := range items {
		if it.ctx.Err() == nil {
			entries = append(entries, it.entry)
			sent = append(sent, it)
		}
	}
	if len(sent) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), b.Time)
	defer cancel()
	errs := b.Send(ctx, entries)
	for i, it := range sent {
		it.err <- errs[i]
	}
}
