package brokertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-go/weir/broker"
)

// checkContent compares messages with the published ones.
func checkContent(tr *trial) {
	want := broker.Message{
		Body:       []byte("a body of " + tr.queue + ": <>&\" \\ ä €"),
		Attributes: map[string]string{"trace-id": "0af7651916cd43dd", "kind": "test message"},
	}
	tr.must("publish", tr.server.Publish(tr.ctx, tr.queue, want))
	c := tr.open("worker")
	c.request(1)
	m := c.next(tr.b.Patience)
	if !bytes.Equal(m.Body, want.Body) {
		tr.errorf("body = %q, want %q", m.Body, want.Body)
	}
	for k, v := range want.Attributes {
		if m.Attributes[k] != v {
			tr.errorf("attribute %s = %q, want %q (all: %v)", k, m.Attributes[k], v, maps.Clone(m.Attributes))
		}
	}
	if m.ID == "" {
		tr.errorf("the message has no ID")
	}
	if m.Attempt != 0 && m.Attempt != 1 {
		tr.errorf("attempt of the first delivery = %d, want 1, or 0 if the broker does not count", m.Attempt)
	}
	c.ack(m)
	tr.empty()
}

// checkEmpty consumes messages that have attributes or a body only, and acknowledges one, sets
// one aside and gives one back first.
func checkEmpty(tr *trial) {
	attributes := map[string]string{"kind": "test"}
	tr.must("publish", tr.server.Publish(tr.ctx, tr.queue,
		broker.Message{Attributes: attributes}, broker.Message{Body: []byte{}, Attributes: attributes}, broker.Message{Body: []byte("x")}))
	c := tr.open("worker")
	c.request(1)
	m := c.next(tr.b.Patience)
	tr.must("requeue", m.Nack(tr.ctx, broker.Requeue()))
	c.settled.Add(1)
	c.request(3)
	empty := 0
	for _, m := range c.take(3) {
		switch {
		case len(m.Body) > 0:
			if string(m.Body) != "x" || m.Attributes["kind"] != "" {
				tr.errorf("body = %q with attributes %v, want %q without attributes", m.Body, m.Attributes, "x")
			}
			c.ack(m)
		case m.Attributes["kind"] != "test":
			tr.errorf("attributes of a message without a body = %v, want %v", m.Attributes, attributes)
			c.ack(m)
		default:
			if empty++; empty == 2 {
				tr.must("dead letter", m.Nack(tr.ctx, broker.DeadLetter("it is empty")))
				c.settled.Add(1)
				continue
			}
			c.ack(m)
		}
	}
	tr.empty()
	dead, err := tr.server.DeadLetters(tr.ctx, tr.queue)
	tr.must("read the dead letters", err)
	if empty != 2 || len(dead) != 1 || len(dead[0].Body) != 0 {
		tr.errorf("got %d messages without a body and the dead letters %q, want 2 and one of them", empty, dead)
	}
}

// checkKeys consumes messages of few keys, each in its order.
func checkKeys(tr *trial) {
	const keys, each = 4, 15
	var msgs []broker.Message
	for i := range each {
		for k := range keys {
			msgs = append(msgs, broker.Message{Key: string(rune('a' + k)), Body: []byte{byte('A' + i)}})
		}
	}
	tr.must("publish", tr.server.Publish(tr.ctx, tr.queue, msgs...))
	c := tr.open("worker")
	c.request(5)
	last := map[string]byte{}
	for range msgs {
		m := c.next(tr.b.Patience)
		if m.Key == "" || len(m.Body) != 1 || m.Body[0] <= last[m.Key] {
			tr.fatalf("key %q: %q arrived after %q, want ascending bodies of the keys a to d", m.Key, m.Body, last[m.Key])
		}
		last[m.Key] = m.Body[0]
		c.request(1)
		c.ack(m)
	}
	tr.empty()
}

// checkAck holds messages for a while, and then acknowledges one and later the others.
func checkAck(tr *trial) {
	const n, held = 10, 5
	tr.publish(n)
	c := tr.open("worker")
	c.request(held)
	msgs := c.take(held)
	if !tr.during(2*quiet, func() bool { return tr.counts().Unacked >= held }) {
		tr.fatalf("the broker counts %+v while the consumer holds %d messages, want all of them unacknowledged", tr.counts(), held)
	}
	c.ack(msgs[held-1])
	// A broker that knows positions only may count the last one until the others are
	// acknowledged.
	if !tr.during(quiet, func() bool { return tr.counts().Unacked >= held-1 }) {
		tr.fatalf("one of %d messages was acknowledged, and the broker counts %+v, want the others unacknowledged", held, tr.counts())
	}
	c.ack(msgs[:held-1]...)
	tr.awaitCounts("none unacknowledged and 5 ready", tr.b.Patience, func(s Counts) bool {
		return s.Unacked <= tr.b.Slack && s.Ready+s.Unacked == n-held
	})
	c.request(n - held)
	c.ack(c.take(n - held)...)
	tr.empty()
}

// checkRequeue gives a message back several times, without demand for it.
func checkRequeue(tr *trial) {
	body := tr.publish(1)[0]
	c := tr.open("worker")
	c.request(1)
	m := c.next(tr.b.Patience)
	for range 3 {
		before := m.Attempt
		tr.must("requeue", m.Nack(tr.ctx, broker.Requeue()))
		c.settled.Add(1)
		if !tr.during(quiet/3, func() bool { s := tr.counts(); return s.Ready+s.Unacked == 1 }) {
			tr.fatalf("a message was given back, and the broker counts %+v, want one message", tr.counts())
		}
		c.request(1)
		m = c.next(tr.b.Patience)
		if string(m.Body) != body {
			tr.fatalf("after the requeue of %q, %q arrived", body, shown(m.Body))
		}
		if before > 0 && m.Attempt <= before {
			tr.errorf("attempt = %d after a delivery with attempt %d, want more", m.Attempt, before)
		}
	}
	tr.must("requeue", m.Nack(tr.ctx, broker.Requeue()))
	c.settled.Add(1)
	c.close()
	other := tr.open("worker-2")
	other.request(1)
	other.ack(other.next(tr.b.Patience))
	tr.empty()
}

// checkSettleOnce settles one message in many ways at once.
func checkSettleOnce(tr *trial) {
	tr.publish(2)
	c := tr.open("worker")
	c.request(2)
	before := tr.counts().Misuse
	msgs := c.take(2)
	var work sync.WaitGroup
	var done atomic.Int64
	for range 8 {
		work.Go(func() {
			switch err := msgs[0].Ack(tr.ctx); {
			case err == nil:
				done.Add(1)
			case !errors.Is(err, broker.ErrSettled):
				tr.errorf("a second acknowledgement returned %w, want %w", err, broker.ErrSettled)
			}
		})
	}
	work.Wait()
	c.settled.Add(1)
	if n := done.Load(); n != 1 {
		tr.errorf("%d of 8 acknowledgements of one message succeeded, want 1", n)
	}
	for name, err := range map[string]error{
		"Ack": msgs[0].Ack(tr.ctx), "Extend": msgs[0].Extend(tr.ctx),
		"Requeue": msgs[0].Nack(tr.ctx, broker.Requeue()), "DeadLetter": msgs[0].Nack(tr.ctx, broker.DeadLetter("none")),
	} {
		if !errors.Is(err, broker.ErrSettled) {
			tr.errorf("%s of an acknowledged message returned %w, want %w", name, err, broker.ErrSettled)
		}
	}
	c.ack(msgs[1])
	tr.empty()
	if n := tr.counts().Misuse - before; n != 0 {
		tr.errorf("the broker has refused %d settlements, want 0", n)
	}
	c.request(2)
	c.nothing(quiet, "all messages are settled")
}

// checkPoison gives up on a message after three attempts.
func checkPoison(tr *trial) {
	const attempts, reason = 3, "the amount is negative"
	bodies := tr.publish(3)
	c := tr.open("worker")
	c.request(1)
	tries := map[string]int{}
	for settled := 0; settled < len(bodies); {
		m := c.next(tr.b.Patience)
		tries[string(m.Body)]++
		c.request(1)
		switch n := tries[string(m.Body)]; {
		case string(m.Body) != bodies[1]:
			c.ack(m)
			settled++
		case n < attempts:
			tr.must("requeue", m.Nack(tr.ctx, broker.Requeue()))
			c.settled.Add(1)
		default:
			tr.must("dead letter", m.Nack(tr.ctx, broker.DeadLetter(reason)))
			c.settled.Add(1)
			settled++
		}
	}
	tr.empty()
	c.nothing(quiet, "all messages are settled")
	dead, err := tr.server.DeadLetters(tr.ctx, tr.queue)
	tr.must("read the dead letters", err)
	if len(dead) != 1 || string(dead[0].Body) != bodies[1] || !strings.Contains(dead[0].Reason, reason) {
		tr.errorf("dead letters = %q, want %q with the reason %q", dead, bodies[1], reason)
	}
	if n := tries[bodies[1]]; n != attempts {
		tr.errorf("the poison message was delivered %d times, want %d", n, attempts)
	}
}

// checkPanic consumes with a handler that panics for one of the messages.
func checkPanic(tr *trial) {
	const attempts, reason = 3, "division by zero"
	bodies := tr.publish(6)
	tries := map[string]int{}
	ctx, stop := context.WithCancel(tr.ctx)
	defer stop()
	c := tr.open("worker")
	consumed := make(chan error, 1)
	go func() {
		consumed <- broker.Consume(ctx, c.source, func(_ context.Context, m *broker.Message) error {
			tr.mu.Lock()
			tries[string(m.Body)]++
			tr.mu.Unlock()
			if string(m.Body) == bodies[2] {
				panic(reason) //nolint:forbidigo // the check is about panics
			}
			tr.noteConsumed(m.Body)
			return nil
		}, broker.ConsumeConfig{MaxAttempts: attempts, RetryDelay: time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	}()
	tr.consumedUntil(1)
	tr.empty()
	stop()
	tr.must("consume", tr.receive(consumed))
	dead, err := tr.server.DeadLetters(tr.ctx, tr.queue)
	tr.must("read the dead letters", err)
	if len(dead) != 1 || string(dead[0].Body) != bodies[2] || !strings.Contains(dead[0].Reason, reason) {
		tr.errorf("dead letters = %q, want %q with the reason %q", dead, bodies[2], reason)
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	// A broker may count more deliveries than there were.
	if n := tries[bodies[2]]; n < 2 || n > attempts {
		tr.failures = append(tr.failures, fmt.Errorf("the message was tried %d times, want 2 to %d", n, attempts))
	}
}

// checkExtend holds a message for several times the broker's timeout while another
// consumer waits for one.
func checkExtend(tr *trial) {
	if tr.b.AckTimeout == 0 {
		tr.t.Log("the broker has no timeout of acknowledgements, so nothing can run out")
	}
	tr.publish(1)
	c := tr.open("worker-1")
	c.request(1)
	m := c.next(tr.b.Patience)
	other := tr.open("worker-2")
	other.request(1)
	other.nothing(max(3*tr.b.AckTimeout, quiet), "another consumer holds the message")
	tr.must("extend", m.Extend(tr.ctx))
	c.ack(m)
	tr.empty()
	other.nothing(max(2*tr.b.AckTimeout, quiet), "the message was acknowledged")
}
