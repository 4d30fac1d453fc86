package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/internal/batch"
)

// The ways in which claimScript handles orphans.
const (
	leave = "leave"
	count = "count" // a process with this name died with them
	keep  = "keep"  // a reply was lost, so no handler has seen them
)

// A fetcher reads one stream as one consumer of its group. The fields without a comment
// belong to Fetch.
type fetcher struct {
	Config

	client goredis.UniversalClient
	reader reader
	acks   batch.Batcher[*ack]

	joined    bool   // the group was there
	rejoin    bool   // the group was there once
	orphans   string // leave, unless this consumer may have entries that it does not know
	cursor    string // where to go on to look for entries to take over
	nextClaim time.Time
	recheck   atomic.Bool // an entry was given back here, so look for it at once

	mu   sync.Mutex          // guards held
	held map[string]*receipt // the entries that this consumer knows, by ID
}

var _ broker.Fetcher = (*fetcher)(nil)

func newFetcher(c Config) *fetcher {
	f := &fetcher{
		Config:  c,
		client:  goredis.NewUniversalClient(&c.Redis),
		orphans: count,
		cursor:  "-",
		held:    map[string]*receipt{},
	}
	f.acks.Send, f.acks.Senders, f.acks.Most, f.acks.Time = f.sendAcks, ackers, maxAcks, ackTime
	f.reader = reader{node: f.node, limit: 2 * c.Poll, wake: make(chan struct{}, 1)}
	return f
}

// Fetch implements broker.Fetcher. It blocks for one or two Polls at most.
func (f *fetcher) Fetch(ctx context.Context, n int) ([]*broker.Message, error) {
	entries, err := f.fetch(ctx, n)
	if err != nil {
		err = f.failed(ctx, err)
	}
	messages := make([]*broker.Message, 0, len(entries))
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range entries {
		r := &receipt{f: f, entry: e}
		f.held[e.id] = r
		messages = append(messages, e.message(f.Config, r))
	}
	return messages, err
}

// fetch takes over entries when it is time for that, and reads new ones if there were none.
func (f *fetcher) fetch(ctx context.Context, n int) ([]entry, error) {
	if err := f.join(ctx); err != nil {
		return nil, err
	}
	for {
		if f.recheck.Swap(false) {
			f.cursor, f.nextClaim = "-", time.Time{}
		}
		if !time.Now().Before(f.nextClaim) {
			entries, err := f.claim(ctx, n)
			if err != nil || len(entries) > 0 {
				return entries, err
			}
		}
		entries, err := f.read(ctx, n)
		if err != nil || len(entries) > 0 || ctx.Err() != nil || !f.recheck.Load() {
			return entries, err
		}
	}
}

// join creates the group if it is missing. If it was there once, it begins with all that the
// stream still has. This may deliver entries again, but it loses none.
func (f *fetcher) join(ctx context.Context) error {
	if f.joined {
		return nil
	}
	node, err := f.node(ctx)
	if err != nil {
		return err
	}
	from := f.From
	if f.rejoin {
		from = "0"
	}
	err = node.XGroupCreateMkStream(ctx, f.Stream, f.Group, from).Err()
	switch {
	case err == nil && f.rejoin:
		f.Source.Logger.Warn("redis: the consumer group had vanished, and was created at the beginning of the stream",
			"stream", f.Stream, "group", f.Group)
	case err != nil && !strings.Contains(err.Error(), "BUSYGROUP"):
		return err
	}
	f.joined, f.rejoin = true, true
	err = sweepScript.Run(ctx, node, []string{f.Stream}, f.Group, prefix, stale.Milliseconds()).Err()
	if err != nil && !isReply(err) {
		return err
	}
	return nil // a server that forbids XINFO keeps the names of dead consumers
}

// claim takes over entries of dead consumers, entries that were given back, and orphans.
func (f *fetcher) claim(ctx context.Context, n int) ([]entry, error) {
	node, err := f.node(ctx)
	if err != nil {
		return nil, err
	}
	args := []any{f.Group, f.Consumer, f.AckTimeout.Milliseconds(), n, f.cursor, f.orphans}
	if f.orphans != leave {
		args = append(args, f.known()...)
	}
	reply, err := claimScript.Run(ctx, node, []string{f.Stream}, args...).Slice()
	if err != nil {
		return nil, err
	}
	if len(reply) != 3 {
		return nil, fmt.Errorf("redis: got %d values of a script, want 3", len(reply))
	}
	trimmed, _ := reply[1].(int64)
	if trimmed > 0 {
		f.Source.Logger.Warn("redis: entries were trimmed from the stream before they were consumed",
			"stream", f.Stream, "group", f.Group, "entries", trimmed)
	}
	f.cursor, _ = reply[0].(string)
	if f.cursor == "-" { // all pending entries were looked at
		f.orphans = leave
		f.nextClaim = time.Now().Add(f.Poll)
	}
	list, _ := reply[2].([]any)
	return parseEntries(list, 0)
}

// known returns the IDs of the entries that are held.
func (f *fetcher) known() []any {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids := make([]any, 0, len(f.held))
	for id := range f.held {
		ids = append(ids, id)
	}
	return ids
}

// read waits for new entries, for one Poll.
func (f *fetcher) read(ctx context.Context, n int) ([]entry, error) {
	reply, err := f.reader.do(ctx, "XREADGROUP", "GROUP", f.Group, f.Consumer, "COUNT", n,
		"BLOCK", f.Poll.Milliseconds(), "STREAMS", f.Stream, ">")
	if errors.Is(err, goredis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return readReply(reply)
}

// failed prepares for the next Fetch after an error.
func (f *fetcher) failed(ctx context.Context, err error) error {
	switch text := err.Error(); {
	case !isReply(err):
		// Redis may have delivered entries in a reply that was lost.
		if f.orphans == leave {
			f.orphans = keep
		}
		f.cursor, f.nextClaim = "-", time.Time{}
	case strings.Contains(text, "NOGROUP"):
		f.joined = false
		return fmt.Errorf("redis: the consumer group %q of stream %q has vanished: %w", f.Group, f.Stream, err)
	case strings.Contains(text, "WRONGTYPE"), strings.Contains(text, "unknown command"), strings.Contains(text, "syntax error"):
		return fmt.Errorf("%w: redis: stream %q: %w", broker.ErrPermanent, f.Stream, err)
	}
	f.refresh(ctx, err)
	return fmt.Errorf("redis: stream %q: %w", f.Stream, err)
}

// Close implements broker.Fetcher. It gives back entries that this consumer has without
// knowing them, and deletes the consumer from the group.
func (f *fetcher) Close(ctx context.Context) error {
	f.reader.close()
	f.acks.Wait()
	err := f.leave(ctx)
	if errClose := f.client.Close(); errClose != nil {
		err = errors.Join(err, fmt.Errorf("redis: close: %w", errClose))
	}
	return err
}

func (f *fetcher) leave(ctx context.Context) error {
	if !f.rejoin {
		return nil // never connected
	}
	for {
		node, err := f.node(ctx)
		if err != nil {
			return err
		}
		more, err := leaveScript.Run(ctx, node, []string{f.Stream}, f.Group, f.Consumer, givenBack, longIdle.Milliseconds()).Int()
		if err != nil && strings.Contains(err.Error(), "NOGROUP") {
			return nil
		}
		if err != nil {
			return fmt.Errorf("redis: leave the group: %w", err)
		}
		if more == 0 {
			return nil
		}
	}
}
