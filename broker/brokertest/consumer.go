package brokertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-go/weir/broker"
)

// A consumer is a source with counters of the requested and the settled messages.
type consumer struct {
	tr        *trial
	source    broker.Source
	requested atomic.Int64
	settled   atomic.Int64
	handled   atomic.Int64 // deliveries that a load has worked on
}

// open makes a source through the proxy.
func (tr *trial) open(name string) *consumer { return tr.openAs(tr.consumer(name)) }

func (tr *trial) consumer(name string) Consumer {
	return Consumer{Addr: tr.proxy.Addr(), Queue: tr.queue, Name: name, AckTimeout: tr.config.AckTimeout}
}

func (tr *trial) openAs(as Consumer) *consumer {
	source, err := tr.b.Open(tr.ctx, as)
	tr.must("open a source", err)
	c := &consumer{tr: tr, source: source}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.consumers = append(tr.consumers, c)
	return c
}

// request raises the demand. The ledger is written first, so that it is never behind the
// broker.
func (c *consumer) request(n int) {
	c.requested.Add(int64(max(0, n)))
	c.source.Request(n)
}

// next returns the next message. It fails the check if none comes.
func (c *consumer) next(limit time.Duration) *broker.Message {
	ctx, cancel := context.WithTimeout(c.tr.ctx, limit)
	defer cancel()
	m, err := c.source.Next(ctx)
	if err != nil {
		c.tr.fatalf("no message within %v, although the demand is %d: %w", limit, c.requested.Load()-c.settled.Load(), err)
	}
	return m
}

// take returns the next n messages.
func (c *consumer) take(n int) []*broker.Message {
	msgs := make([]*broker.Message, n)
	for i := range msgs {
		msgs[i] = c.next(c.tr.b.Patience)
	}
	return msgs
}

// nothing fails the check if a message arrives while there is time.
func (c *consumer) nothing(limit time.Duration, why string) {
	ctx, cancel := context.WithTimeout(c.tr.ctx, limit)
	defer cancel()
	m, err := c.source.Next(ctx)
	switch {
	case err == nil:
		c.tr.fatalf("%s: message %s was delivered (%q)", why, m.ID, shown(m.Body))
	case !errors.Is(err, context.DeadlineExceeded):
		c.tr.fatalf("%s: Next returned %w, want %w", why, err, context.DeadlineExceeded)
	}
}

// ack acknowledges messages. They must not have been settled before.
func (c *consumer) ack(msgs ...*broker.Message) {
	for _, m := range msgs {
		c.tr.must("acknowledge message "+m.ID, m.Ack(c.tr.ctx))
		c.settled.Add(1)
	}
}

// close closes the source, which is to have nothing left to wait for.
func (c *consumer) close() {
	ctx, cancel := context.WithTimeout(c.tr.ctx, c.tr.b.Patience)
	defer cancel()
	c.tr.must("close the source", c.source.Close(ctx))
}

// A load is a number of workers that consume from one source.
type load struct {
	c    *consumer
	stop context.CancelFunc
	work sync.WaitGroup
}

// work starts as many goroutines as the demand is to be. Each handles and acknowledges one
// message after the other.
func (c *consumer) work(demand int, handle func(*broker.Message)) *load {
	ctx, cancel := context.WithCancel(c.tr.ctx)
	l := &load{c: c, stop: cancel}
	c.tr.loads = append(c.tr.loads, l)
	c.request(demand)
	for range demand {
		l.work.Go(func() {
			for {
				m, err := c.source.Next(ctx)
				if err != nil {
					if ctx.Err() == nil {
						c.tr.errorf("Next failed: %w", err)
					}
					return
				}
				handle(m)
				c.tr.noteConsumed(m.Body)
				c.handled.Add(1)
				c.request(1)
				c.ackSoon(ctx, m)
			}
		})
	}
	return l
}

// ackSoon acknowledges a message, also if the connection is lost meanwhile. When it is
// lost, the consumer cannot know whether the broker has heard it. So the message may come
// again, and the check counts it as consumed in any case.
func (c *consumer) ackSoon(ctx context.Context, m *broker.Message) {
	for {
		try, cancel := context.WithTimeout(ctx, time.Second)
		err := m.Ack(try)
		cancel()
		if err == nil || errors.Is(err, broker.ErrSettled) {
			c.settled.Add(1)
			return
		}
		if ctx.Err() != nil {
			return
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// end stops the workers. Messages that a worker holds are acknowledged or stay
// unacknowledged.
func (l *load) end() {
	l.stop()
	l.work.Wait()
}

// shown shortens a body for an error message.
func shown(body []byte) string {
	const most = 60
	if len(body) > most {
		return fmt.Sprintf("%s... (%d bytes)", body[:most], len(body))
	}
	return string(body)
}
