package brokertest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-go/weir/broker"
)

// A trial is one run of one check, with a queue and a proxy of its own.
type trial struct {
	t      testing.TB
	check  Check
	b      Broker
	server Server
	ctx    context.Context // ends the check
	proxy  *Proxy
	queue  string
	config QueueConfig

	mu        sync.Mutex // guards the fields below
	failures  []error
	consumers []*consumer
	loads     []*load
	published []string       // bodies in order
	consumed  map[string]int // how often each body was consumed
}

// newTrial makes the queue and the proxy of a check.
func newTrial(t testing.TB, b Broker, server Server, c Check) (*trial, error) {
	proxy, err := NewProxy(server.Addr)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = proxy.Close() })
	tr := &trial{t: t, check: c, b: b.withDefaults(), server: server, proxy: proxy, consumed: map[string]int{}}
	tr.queue = fmt.Sprintf("%s-%s", c.Name, strings.ToLower(rand.Text()[:8]))
	tr.config = QueueConfig{AckTimeout: b.AckTimeout, Workers: max(1, c.workers)}
	if b.AckTimeout > 0 && !c.expires {
		tr.config.AckTimeout = max(b.AckTimeout, longAckTimeout)
	}
	return tr, nil
}

// longAckTimeout is the timeout of the broker in checks that it must not help to pass.
const longAckTimeout = 30 * time.Second

// do runs the check in a goroutine of its own, since a failure ends it with
// runtime.Goexit.
func (tr *trial) do() error {
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	tr.ctx = ctx
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer tr.end()
		tr.must("create the queue", tr.server.Create(ctx, tr.queue, tr.config))
		tr.check.run(tr)
	}()
	select {
	case <-done:
	case <-time.After(longest + hopeless):
		tr.errorf("the check has not ended %v after its context; a call of the source hangs:\n%s", hopeless, stacks())
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return errors.Join(tr.failures...)
}

const (
	// longest is the time after which the context of a check ends.
	longest = 2 * time.Minute
	// hopeless is how long a check may go on after that.
	hopeless = 15 * time.Second
)

// end ends the workers and closes the sources that the check has left.
func (tr *trial) end() {
	tr.proxy.Pass()
	for _, l := range tr.loads {
		l.end()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, c := range tr.consumers {
		_ = c.source.Close(ctx)
	}
}

// errorf notes a failure.
func (tr *trial) errorf(format string, args ...any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.failures = append(tr.failures, fmt.Errorf(format, args...))
}

// fatalf notes a failure and ends the check. Only the goroutine of the check calls it.
func (tr *trial) fatalf(format string, args ...any) {
	tr.errorf(format, args...)
	runtime.Goexit()
}

func (tr *trial) must(what string, err error) {
	if err != nil {
		tr.fatalf("%s: %w", what, err)
	}
}

// publish publishes n messages with unlike bodies, and returns the bodies.
func (tr *trial) publish(n int) []string {
	bodies := make([]string, n)
	msgs := make([]broker.Message, n)
	tr.mu.Lock()
	for i := range n {
		bodies[i] = fmt.Sprintf("%s %04d", tr.queue, len(tr.published)+i)
		msgs[i] = broker.Message{Body: []byte(bodies[i]), Key: fmt.Sprintf("key-%d", i)}
	}
	tr.published = append(tr.published, bodies...)
	tr.mu.Unlock()
	tr.must("publish", tr.server.Publish(tr.ctx, tr.queue, msgs...))
	return bodies
}

// noteConsumed writes down that a consumer has done its work on a message.
func (tr *trial) noteConsumed(body []byte) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.consumed[string(body)]++
}

// missing returns the bodies that were published and not consumed.
func (tr *trial) missing() (bodies []string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, body := range tr.published {
		if tr.consumed[body] == 0 {
			bodies = append(bodies, body)
		}
	}
	return bodies
}

// allConsumed waits until each message was consumed.
func (tr *trial) allConsumed() { tr.consumedUntil(0) }

// consumedUntil waits until at most n of the published messages are not consumed. It gives
// up when none was for the whole patience of the broker.
func (tr *trial) consumedUntil(n int) {
	left := tr.missing()
	for len(left) > n {
		before := len(left)
		if !tr.await(tr.b.Patience, func() bool { left = tr.missing(); return len(left) < before }) {
			tr.fatalf("%d of %d messages are missing, and none has arrived for %v; the first is %q; the broker counts %+v",
				len(left), len(tr.published), tr.b.Patience, left[0], tr.counts())
		}
	}
}

// counts asks the broker.
func (tr *trial) counts() Counts {
	c, err := tr.server.Counts(tr.ctx, tr.queue)
	tr.must("count the messages at the broker", err)
	return c
}

// awaitCounts waits until the broker's counts are as wanted.
func (tr *trial) awaitCounts(want string, limit time.Duration, ok func(Counts) bool) {
	var last Counts
	if !tr.await(limit, func() bool { last = tr.counts(); return ok(last) }) {
		tr.fatalf("after %v the broker counts %+v, want %s", limit, last, want)
	}
}

// empty waits until the broker has no message left.
func (tr *trial) empty() {
	tr.awaitCounts("none left", tr.b.Patience, func(c Counts) bool { return c.Ready == 0 && c.Unacked == 0 })
}

// await polls until ok returns true or the time is over.
func (tr *trial) await(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); ; tr.pause(5 * time.Millisecond) {
		if ok() {
			return true
		}
		if time.Now().After(end) || tr.ctx.Err() != nil {
			return false
		}
	}
}

// during calls ok again and again for some time. It returns false as soon as ok does.
func (tr *trial) during(d time.Duration, ok func() bool) bool {
	return !tr.await(d, func() bool { return !ok() })
}

// pause lets real time pass. A check does not rely on its exact length.
func (tr *trial) pause(d time.Duration) { pause(tr.ctx, d) }

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
