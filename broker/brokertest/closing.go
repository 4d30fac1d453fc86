package brokertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/weir-go/weir/broker"
)

// checkClose closes a source that holds messages in each state, and looks for them at
// another one.
func checkClose(tr *trial) {
	const n, taken, acked = 10, 4, 2
	tr.publish(n)
	c := tr.open("worker-1")
	c.request(n)
	msgs := c.take(taken)
	tr.awaitCounts("all delivered", tr.b.Patience, func(s Counts) bool { return s.Unacked >= n })
	c.ack(msgs[:acked]...)
	ctx, cancel := context.WithTimeout(tr.ctx, quiet)
	defer cancel()
	if err := c.source.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		tr.errorf("Close with messages that are not settled returned %w, want %w", err, context.DeadlineExceeded)
	}
	if err := msgs[acked].Ack(tr.ctx); !errors.Is(err, broker.ErrSettled) {
		tr.errorf("Ack after Close has given the message back returned %w, want %w", err, broker.ErrSettled)
	}
	if _, err := c.source.Next(tr.ctx); !errors.Is(err, io.EOF) {
		tr.errorf("Next after Close returned %w, want io.EOF", err)
	}
	other := tr.open("worker-2")
	other.request(2 * n)
	end := time.Now().Add(tr.b.GiveBack)
	for range n - acked {
		other.ack(other.next(max(time.Until(end), time.Millisecond)))
	}
	other.nothing(quiet, "each message was acknowledged")
	tr.empty()
}

// checkDrain closes a source while a consumer works on messages and another one waits.
func checkDrain(tr *trial) {
	const n, taken = 6, 2
	tr.publish(n)
	c := tr.open("worker-1")
	c.request(taken)
	msgs := c.take(taken)
	waiter := make(chan error, 1)
	go func() {
		_, err := c.source.Next(tr.ctx)
		waiter <- err
	}()
	closed := make(chan error, 1)
	go func() { closed <- c.source.Close(tr.ctx) }()
	select {
	case err := <-closed:
		tr.fatalf("Close returned %w while %d messages were not settled, want it to wait", err, taken)
	case <-time.After(quiet):
	}
	if s := tr.counts(); s.Unacked < taken {
		tr.errorf("during Close the broker counts %+v, want %d unacknowledged", s, taken)
	}
	c.ack(msgs...)
	tr.must("close, after each message was acknowledged", tr.receive(closed))
	if err := tr.receive(waiter); !errors.Is(err, io.EOF) {
		tr.errorf("Next returned %w when the source was closed, want io.EOF", err)
	}
	other := tr.open("worker-2")
	other.request(n)
	other.ack(other.take(n - taken)...)
	other.nothing(quiet, "each message was acknowledged")
	tr.empty()
}

// checkLeave closes sources that hold no message: before the first request, twice at the same
// time, while they wait for a message, and with a context that is over. Later messages are
// for others.
func checkLeave(tr *trial) {
	const n = 4
	tr.open("worker-1").close()

	waiting := tr.open("worker-2")
	waiting.request(n)
	waiting.nothing(quiet, "the queue is empty")
	twice := make(chan error, 2)
	for range 2 {
		go func() { twice <- waiting.source.Close(tr.ctx) }()
	}
	for range 2 {
		tr.must("close twice at the same time", tr.receive(twice))
	}

	hasty := tr.open("worker-3")
	hasty.request(n)
	hasty.nothing(quiet, "the queue is empty")
	over, cancel := context.WithCancel(tr.ctx)
	cancel()
	closed := make(chan error, 1)
	go func() { closed <- hasty.source.Close(over) }()
	if err := tr.receive(closed); err != nil && !errors.Is(err, context.Canceled) {
		tr.errorf("Close with a context that is over returned %w, want %w or nil", err, context.Canceled)
	}
	for _, c := range []*consumer{waiting, hasty} {
		c.source.Request(1)
		if _, err := c.source.Next(tr.ctx); !errors.Is(err, io.EOF) {
			tr.errorf("Next after Close returned %w, want io.EOF", err)
		}
	}
	tr.publish(n)
	other := tr.open("worker-4")
	other.request(n)
	for end := time.Now().Add(tr.b.GiveBack); len(tr.missing()) > 0; {
		m := other.next(max(time.Until(end), time.Millisecond))
		tr.noteConsumed(m.Body)
		other.ack(m)
	}
	tr.empty()
}

// receive returns the error that a goroutine reports.
func (tr *trial) receive(from <-chan error) error {
	select {
	case err := <-from:
		return err
	case <-time.After(tr.b.Patience):
		return fmt.Errorf("still waiting after %v", tr.b.Patience)
	}
}

// checkLeak opens and closes sources, and looks for goroutines, connections and messages
// that are left.
func checkLeak(tr *trial) {
	const rounds, n = 4, 6
	// The server's own connection may start goroutines when it is used first.
	tr.publish(rounds * n)
	tr.counts()
	before := goroutines()
	for i := range rounds {
		c := tr.open(fmt.Sprintf("worker-%d", i))
		c.request(n)
		msgs := c.take(n / 2)
		c.ack(msgs...)
		c.close()
		tr.must("close again", c.source.Close(tr.ctx))
	}
	// Messages that were given back are there for the next source at once, so none hangs
	// on a closed one.
	last, left := tr.open("worker-last"), rounds*(n-n/2)
	last.request(left + 1)
	for end := time.Now().Add(tr.b.GiveBack); left > 0; left-- {
		last.ack(last.next(max(time.Until(end), time.Millisecond)))
	}
	last.close()
	tr.empty()
	if !tr.await(tr.b.Patience, func() bool { return tr.proxy.Connections() == 0 }) {
		tr.errorf("%d connections are open after all sources were closed, want 0", tr.proxy.Connections())
	}
	var running []string
	if !tr.await(tr.b.Patience, func() bool { running = leaked(before, tr.b.Ignore); return len(running) == 0 }) {
		tr.errorf("%d goroutines are left after all sources were closed, the first is:\n%s", len(running), running[0])
	}
}
