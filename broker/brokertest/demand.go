package brokertest

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/weir-go/weir/broker"
)

// quiet is how long a check watches that nothing happens.
const quiet = 300 * time.Millisecond

// watch asks the broker all the time whether it counts more unacknowledged messages than
// were requested. The function that it returns ends that.
func (tr *trial) watch(cs ...*consumer) (stop func()) {
	var work sync.WaitGroup
	ctx, cancel := context.WithCancel(tr.ctx)
	samples := 0
	work.Go(func() {
		for ctx.Err() == nil {
			// An acknowledgement that has returned before the broker is asked has
			// reached it, and a request that comes later may reach it meanwhile.
			settled := total(cs, (*consumer).settledSoFar)
			counts, err := tr.server.Counts(ctx, tr.queue)
			allowed := total(cs, (*consumer).requestedSoFar) - settled
			if err != nil {
				if ctx.Err() == nil {
					tr.errorf("count the messages at the broker: %w", err)
				}
				return
			}
			samples++
			if int64(counts.Unacked) > allowed+int64(tr.b.Slack) {
				tr.errorf("the broker counts %d unacknowledged messages, want at most the %d that are requested and not settled",
					counts.Unacked, allowed)
				return
			}
			pause(ctx, time.Millisecond)
		}
	})
	return func() {
		cancel()
		work.Wait()
		if samples == 0 {
			tr.errorf("the broker was never asked for its counts")
		}
	}
}

func (c *consumer) settledSoFar() int64   { return c.settled.Load() }
func (c *consumer) requestedSoFar() int64 { return c.requested.Load() }

func total(cs []*consumer, f func(*consumer) int64) (sum int64) {
	for _, c := range cs {
		sum += f(c)
	}
	return sum
}

// checkDemand moves the demand up and down, to zero each time.
func checkDemand(tr *trial) {
	steps := []int{1, 7, 40, 3, 16}
	for range steps {
		tr.publish(30)
	}
	c := tr.open("worker")
	stop := tr.watch(c)
	c.request(0)
	c.request(-5)
	c.nothing(quiet, "without demand")
	for _, n := range steps {
		c.request(n)
		msgs := c.take(n)
		c.nothing(quiet/4, "the demand is used up")
		c.ack(msgs...)
	}
	// Two requests add up.
	c.request(2)
	c.request(3)
	c.ack(c.take(5)...)
	c.nothing(quiet, "the demand is used up")
	if n := tr.counts().Unacked; n > tr.b.Slack {
		tr.errorf("the broker counts %d unacknowledged messages without demand, want at most %d", n, tr.b.Slack)
	}
	tr.swing(c, 60)
	stop()
}

// swing lets three workers ask for a few messages each, take them and acknowledge them,
// so that the demand of the source moves all the time.
func (tr *trial) swing(c *consumer, messages int) {
	var work sync.WaitGroup
	var mu sync.Mutex
	left := messages
	claim := func() int {
		mu.Lock()
		defer mu.Unlock()
		n := min(left, 1+rand.IntN(4))
		left -= n
		return n
	}
	for range 3 {
		work.Go(func() {
			for n := claim(); n > 0; n = claim() {
				c.request(n)
				for range n {
					m, err := c.source.Next(tr.ctx)
					if err == nil {
						err = m.Ack(tr.ctx)
					}
					if err != nil {
						tr.errorf("while the demand moves: %w", err)
						return
					}
					c.settled.Add(1)
				}
			}
		})
	}
	work.Wait()
}

// checkNext ends the context of Next while a message arrives.
func checkNext(tr *trial) {
	const n = 40
	c := tr.open("worker")
	over, cancel := context.WithCancel(tr.ctx)
	cancel()
	if _, err := c.source.Next(over); !errors.Is(err, context.Canceled) {
		tr.errorf("Next with a canceled context returned %w, want %w", err, context.Canceled)
	}
	c.request(n)
	got := map[string]int{}
	keep := func(m *broker.Message) {
		got[string(m.Body)]++
		c.ack(m)
	}
	for range n {
		tr.publish(1)
		ctx, cancel := context.WithTimeout(tr.ctx, rand.N(3*time.Millisecond))
		m, err := c.source.Next(ctx)
		cancel()
		switch {
		case err == nil:
			keep(m)
		case !errors.Is(err, context.DeadlineExceeded):
			tr.fatalf("Next returned %w, want %w", err, context.DeadlineExceeded)
		}
	}
	for len(got) < n {
		keep(c.next(tr.b.Patience))
	}
	tr.empty()
	c.close()
	if _, err := c.source.Next(tr.ctx); !errors.Is(err, io.EOF) {
		tr.errorf("Next after Close returned %w, want io.EOF", err)
	}
}

// checkShare lets two workers that need as long for a message consume one queue.
func checkShare(tr *trial) {
	const n, least = 400, 160
	tr.publish(n)
	slow := func(*broker.Message) { tr.pause(4 * time.Millisecond) }
	one, two := tr.open("worker-1"), tr.open("worker-2")
	stop := tr.watch(one, two)
	one.work(4, slow)
	two.work(4, slow)
	tr.allConsumed()
	stop()
	if a, b := one.handled.Load(), two.handled.Load(); min(a, b) < least {
		tr.errorf("the workers handled %d and %d of %d messages, want at least %d each", a, b, n, least)
	}
}
