package brokertest

import (
	"bytes"
	"time"

	"github.com/weir-go/weir/broker"
)

// brief is how long a handler of a check works on a message.
const brief = 2 * time.Millisecond

// faulty consumes messages and breaks something three times meanwhile. Then no message may
// be missing.
func (tr *trial) faulty(fault func()) {
	const n, faults = 240, 3
	tr.publish(n)
	c := tr.open("worker")
	c.work(8, func(*broker.Message) { tr.pause(brief) })
	for i := range faults {
		tr.consumedUntil(n - (i+1)*n/(faults+3))
		fault()
	}
	tr.allConsumed()
	tr.empty()
	// The source is as good as new.
	tr.publish(20)
	tr.allConsumed()
	tr.empty()
}

// checkCut closes the connections.
func checkCut(tr *trial) { tr.faulty(tr.proxy.Cut) }

// checkStall lets the network drop everything for a while, and then cuts the connections
// or lets everything arrive late.
func checkStall(tr *trial) {
	cut := true
	tr.faulty(func() {
		tr.proxy.Hold()
		tr.pause(quiet)
		if cut {
			tr.proxy.Cut()
		}
		cut = !cut
		tr.proxy.Pass()
	})
}

// frozen is longer than the heartbeats and the timeouts of most clients.
const frozen = 6 * time.Second

// checkFreeze lets the server be silent while its connections stay open, as a machine does
// that is out of memory. Its answers arrive late.
func checkFreeze(tr *trial) {
	freezes := 0
	tr.faulty(func() {
		if freezes++; freezes > 1 {
			return
		}
		tr.proxy.Hold()
		tr.pause(frozen)
		tr.proxy.Pass()
	})
}

// checkForget lets the network forget the connections, which stay open and silent.
func checkForget(tr *trial) {
	forgets := 0
	tr.faulty(func() {
		if forgets++; forgets == 1 { // a client may need its whole patience to notice
			tr.proxy.Forget()
		}
	})
}

// checkRefuse lets the server be out of reach for a while.
func checkRefuse(tr *trial) {
	tr.faulty(func() {
		tr.proxy.Refuse()
		tr.publish(10)
		tr.pause(2 * quiet)
		tr.proxy.Pass()
	})
}

// checkRestart crashes the server and starts it again.
func checkRestart(tr *trial) {
	restarts := 0
	tr.faulty(func() {
		if restarts++; restarts > 1 { // a server may need a long time to start
			return
		}
		tr.must("stop the server", tr.server.Stop())
		tr.pause(quiet)
		tr.must("restart the server", tr.server.Restart())
	})
}

// checkLarge sends a message that is larger than the byte window between small ones.
func checkLarge(tr *trial) {
	large := bytes.Repeat([]byte("0123456789abcdef"), tr.b.LargeBody/16)
	tr.publish(3)
	tr.must("publish a large message", tr.server.Publish(tr.ctx, tr.queue, broker.Message{Key: "large", Body: large}))
	tr.publish(3)
	as := tr.consumer("worker")
	as.ByteWindow = max(1, int64(len(large))/4)
	c := tr.openAs(as)
	stop := tr.watch(c)
	c.request(2)
	seen := false
	for range 7 {
		m := c.next(tr.b.Patience)
		if len(m.Body) > 1000 {
			seen = true
			if !bytes.Equal(m.Body, large) {
				tr.errorf("the large message has arrived with %d bytes and another content, want %d", len(m.Body), len(large))
			}
		}
		c.request(1)
		c.ack(m)
	}
	if !seen {
		tr.errorf("the large message has not arrived")
	}
	stop()
	tr.empty()
}

// checkIdle counts the requests of a source with demand at an empty queue, and of a source
// without demand at a queue with messages.
func checkIdle(tr *trial) {
	const watched = 5 * time.Second
	rest, err := newTrial(tr.t, tr.b, tr.server, tr.check)
	tr.must("make a second queue", err)
	rest.ctx = tr.ctx
	defer rest.end()
	tr.must("make a second queue", tr.server.Create(tr.ctx, rest.queue, rest.config))
	waiting, resting := tr.open("worker-1"), rest.open("worker-2")
	for _, c := range []*consumer{waiting, resting} {
		c.tr.publish(1)
		c.request(1)
		c.ack(c.next(tr.b.Patience))
	}
	rest.publish(5)
	waiting.request(5)
	tr.pause(2 * quiet) // until the last acknowledgement and its echo are over
	idle, none := tr.proxy.Requests(), rest.proxy.Requests()
	waiting.nothing(watched, "the queue is empty")
	if n := tr.proxy.Requests() - idle; n > int64(tr.b.IdleRequests) {
		tr.errorf("a source with demand has sent %d requests in %v to an empty queue, want at most %d", n, watched, tr.b.IdleRequests)
	}
	if n := rest.proxy.Requests() - none; n > int64(tr.b.RestRequests) {
		tr.errorf("a source without demand has sent %d requests in %v, want at most %d", n, watched, tr.b.RestRequests)
	}
	if s := rest.counts(); s.Unacked > tr.b.Slack {
		tr.errorf("the broker counts %+v for a source without demand, want none unacknowledged", s)
	}
	tr.publish(5)
	for range 5 {
		waiting.ack(waiting.next(3 * time.Second)) // a source that waits wakes up soon
	}
	resting.request(5)
	resting.ack(resting.take(5)...)
	tr.mu.Lock()
	tr.failures = append(tr.failures, rest.failures...)
	tr.mu.Unlock()
}
