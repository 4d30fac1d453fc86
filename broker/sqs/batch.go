package sqs

import (
	"context"
	"sync"
	"time"
)

// senders is the number of requests of a batcher at the same time. While all are under way,
// entries gather, so batches are full exactly when there is a lot to do.
const senders = 4

// A batcher sends entries of one kind in batches of ten at most. An entry is sent at once if
// a sender is free.
type batcher[T any] struct {
	// send sends one batch and returns the error of each entry, nil for success.
	send func(context.Context, []T) []error

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

// do sends an entry, and returns its error once SQS has answered. An entry whose ctx ends
// before it was sent is not sent.
func (b *batcher[T]) do(ctx context.Context, entry T) error {
	it := &item[T]{entry: entry, ctx: ctx, err: make(chan error, 1)}
	b.mu.Lock()
	b.waiting = append(b.waiting, it)
	if b.busy < senders {
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

// run sends batches until nothing waits.
func (b *batcher[T]) run() {
	for {
		batch := b.take()
		if batch == nil {
			return
		}
		b.deliver(batch)
	}
}

// take returns the next batch, or nil when the sender is to end.
func (b *batcher[T]) take() []*item[T] {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(most, len(b.waiting))
	if n == 0 {
		b.busy--
		return nil
	}
	batch := b.waiting[:n:n]
	b.waiting = b.waiting[n:]
	return batch
}

// deliver sends a batch for as long as one of its callers waits, or for a request's time.
func (b *batcher[T]) deliver(batch []*item[T]) {
	var entries []T
	var sent []*item[T]
	for _, it := range batch {
		if it.ctx.Err() == nil {
			entries = append(entries, it.entry)
			sent = append(sent, it)
		}
	}
	if len(sent) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	errs := b.send(ctx, entries)
	for i, it := range sent {
		it.err <- errs[i]
	}
}

// patience bounds a request beyond the time for which SQS itself waits.
const patience = 20 * time.Second
