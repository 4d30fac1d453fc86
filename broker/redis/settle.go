package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/weir-go/weir/broker"
)

// ErrTrimmed is wrapped by the error of Nack with Requeue for an entry that the stream does
// not have any more. It cannot be delivered again. If there is a stream for dead letters, the
// entry goes there instead, and there is no error.
var ErrTrimmed = errors.New("redis: the entry was trimmed from the stream")

// A receipt settles one entry.
type receipt struct {
	f      *fetcher
	entry  entry
	unsure atomic.Bool // a settlement was sent and its reply is not known
}

var _ broker.Settler = (*receipt)(nil)

// Ack implements broker.Settler. It returns ErrSettled if the entry is not pending any more,
// because another consumer has taken it over and acknowledged it, or because the group has
// vanished.
func (r *receipt) Ack(ctx context.Context) error {
	return r.settle(ctx, func(ctx context.Context, node *goredis.Client) (int64, error) {
		if r.f.Delete {
			return ackScript.Run(ctx, node, []string{r.f.Stream}, r.f.Group, r.entry.id).Int64()
		}
		return r.f.ack(ctx, r.entry.id)
	})
}

// Requeue implements broker.Settler. The next consumer with demand takes over the entry,
// which counts as one more delivery.
func (r *receipt) Requeue(ctx context.Context) error {
	if !r.current() {
		return r.lost()
	}
	err := r.settle(ctx, func(ctx context.Context, node *goredis.Client) (int64, error) {
		return requeueScript.Run(ctx, node, []string{r.f.Stream},
			r.f.Group, r.f.Consumer, r.entry.id, givenBack, longIdle.Milliseconds()).Int64()
	})
	if errors.Is(err, ErrTrimmed) {
		return r.setAside(ctx, err)
	}
	if err == nil {
		r.f.recheck.Store(true)
		r.f.reader.interrupt()
	}
	return err
}

// setAside keeps a trimmed entry as a dead letter, from memory.
func (r *receipt) setAside(ctx context.Context, trimmed error) error {
	if r.f.DeadLetters != "" {
		return r.DeadLetter(ctx, "the entry was trimmed from the stream, so it cannot be delivered again")
	}
	if err := r.Ack(ctx); err != nil {
		return err
	}
	return fmt.Errorf("%w: %w", trimmed, broker.ErrSettled)
}

// DeadLetter implements broker.Settler. The copy has the fields of the entry and some that
// say where it comes from. Copy and acknowledgement are one step.
func (r *receipt) DeadLetter(ctx context.Context, reason string) error {
	c := r.f.Config
	if c.DeadLetters == "" {
		return errors.New("redis: Config.DeadLetters names no stream for dead letters")
	}
	if !r.current() {
		return r.lost()
	}
	args := []any{c.Group, c.Consumer, r.entry.id, "keep"}
	if c.Delete {
		args[3] = "delete"
	}
	for _, f := range r.entry.fields {
		args = append(args, f)
	}
	args = append(args, "weir-reason", reason, "weir-stream", c.Stream, "weir-group", c.Group,
		"weir-id", r.entry.id, "weir-attempt", strconv.Itoa(r.entry.attempt))
	return r.settle(ctx, func(ctx context.Context, node *goredis.Client) (int64, error) {
		return deadScript.Run(ctx, node, []string{c.Stream, c.DeadLetters}, args...).Int64()
	})
}

// Extend implements broker.Settler. It does nothing for a trimmed entry.
func (r *receipt) Extend(ctx context.Context) error {
	if !r.current() {
		return r.lost()
	}
	n, err := r.f.retry(ctx, func(ctx context.Context, node *goredis.Client) (int64, error) {
		return extendScript.Run(ctx, node, []string{r.f.Stream}, r.f.Group, r.f.Consumer, r.entry.id).Int64()
	})
	switch {
	case err != nil:
		return r.wrap(err)
	case n == notPending:
		r.f.forget(r)
		return r.lost()
	}
	return nil
}

// settle sends a settlement until Redis answers. A settlement that finds nothing to settle
// is lost, unless an earlier try may have settled it.
func (r *receipt) settle(ctx context.Context, send func(context.Context, *goredis.Client) (int64, error)) error {
	n, err := r.f.retry(ctx, func(ctx context.Context, node *goredis.Client) (int64, error) {
		n, err := send(ctx, node)
		if err != nil && !isReply(err) {
			r.unsure.Store(true)
		}
		return n, err
	})
	switch {
	case err != nil:
		return r.wrap(err)
	case n == wasTrimmed:
		return r.wrap(ErrTrimmed)
	}
	r.f.forget(r)
	if n == notPending && !r.unsure.Load() {
		return r.lost()
	}
	return nil
}

// current reports whether the entry was not delivered to this consumer again since.
func (r *receipt) current() bool {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.f.held[r.entry.id] == r
}

func (r *receipt) lost() error {
	return r.wrap(fmt.Errorf("it does not belong to this consumer any more: %w", broker.ErrSettled))
}

// wrap says which entry an error is about.
func (r *receipt) wrap(err error) error {
	return fmt.Errorf("redis: entry %s of stream %q: %w", r.entry.id, r.f.Stream, err)
}

func (f *fetcher) forget(r *receipt) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held[r.entry.id] == r {
		delete(f.held, r.entry.id)
	}
}

// Delays between two tries of a settlement.
const (
	minRetry = 10 * time.Millisecond
	maxRetry = time.Second
)

// retry calls send until Redis answers or ctx ends. A group that has vanished answers that
// the entry is not pending.
func (f *fetcher) retry(ctx context.Context, send func(context.Context, *goredis.Client) (int64, error)) (int64, error) {
	var last error // before the end of ctx
	for delay := minRetry; ; delay = min(2*delay, maxRetry) {
		node, err := f.node(ctx)
		var n int64
		if err == nil {
			n, err = send(ctx, node)
		}
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, goredis.ErrClosed):
			return 0, err
		case isReply(err) && strings.Contains(err.Error(), "NOGROUP"):
			return notPending, nil
		case isReply(err) && !isTemporary(err):
			return 0, err
		}
		f.refresh(ctx, err)
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return 0, errors.Join(ctx.Err(), last)
		case <-time.After(delay):
		}
	}
}
