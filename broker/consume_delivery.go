package broker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/weir-go/weir/admit"
)

// A delivery is a message in the hands of a consumer. Only its goroutine uses it.
type delivery struct {
	*Message

	before  int           // failed attempts of earlier deliveries
	failed  int           // failed attempts of this delivery
	hold    time.Duration // until the next attempt
	refused bool          // an attempt was refused
	seen    uint64        // successes of others at that time
	alone   int           // refusals in a row while others succeeded
	failure Failure       // of the last attempt
	running bool          // the handler runs
}

// deliver starts the goroutine of a message, unless it has to wait for another one with
// the same key.
func (c *consumer) deliver(m *Message) {
	d := &delivery{Message: m, before: max(m.Attempt-1, 0)}
	if m.Attempt == 0 && m.ID != "" {
		d.before = c.failed.of(m.ID)
	}
	c.mu.Lock()
	c.requested = max(0, c.requested-1)
	c.inHand++
	if c.lookAgain == nil {
		c.lookAgain = time.AfterFunc(lookEvery, c.look)
	} else if c.inHand == 1 {
		c.lookAgain.Reset(lookEvery)
	}
	if c.cfg.Ordered && m.Key != "" {
		waiting, busy := c.chains[m.Key]
		if busy {
			c.chains[m.Key] = append(waiting, d)
			c.mu.Unlock()
			return
		}
		c.chains[m.Key] = nil
	}
	c.mu.Unlock()
	c.group.Go(func() { c.process(d) })
}

// process attempts a message until it is settled, and then the next one of its key.
func (c *consumer) process(d *delivery) {
	defer func() { // the handler has ended the goroutine
		if d != nil && d.running {
			d.running, d.failure = false, Failure{}
			c.group.Go(func() {
				if !c.conclude(d, errGoexit) {
					c.process(d)
					return
				}
				c.process(c.nextOf(d))
			})
		}
	}()
	for d != nil {
		for settled := false; !settled; {
			settled = c.conclude(d, c.attempt(d))
		}
		d = c.nextOf(d)
	}
}

// nextOf returns the message that has waited for d, or nil.
func (c *consumer) nextOf(d *delivery) *delivery {
	if !c.inPlace(d) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	waiting := c.chains[d.Key]
	if len(waiting) == 0 {
		delete(c.chains, d.Key)
		return nil
	}
	c.chains[d.Key] = waiting[1:]
	return waiting[0]
}

var (
	// errEnding is the end of an attempt because Consume ends.
	errEnding = errors.New("broker: consumption ends")
	// errLost is the end of an attempt because the broker has taken the message away.
	errLost   = errors.New("broker: the message is lost")
	errGoexit = errors.New("broker: the handler called runtime.Goexit")
)

// A gateRefusal is a refusal by the gate of the consumer.
type gateRefusal struct{ error }

// attempt waits for the end of a pause and for a permit, and runs the handler.
func (c *consumer) attempt(d *delivery) error {
	c.waitOut(d)
	if c.pause.enter(c.receiving.ctx, d) != nil {
		return errEnding
	}
	var call admit.Call
	if c.cfg.Call != nil {
		if err := c.protect(d, func() error { call = c.cfg.Call(d.Message); return nil }); err != nil {
			d.failure = Failure{}
			return err
		}
	}
	permit, err := c.cfg.Gate.Acquire(c.receiving.ctx, call)
	if err != nil {
		if c.receiving.ctx.Err() != nil {
			return errEnding
		}
		return gateRefusal{err}
	}
	outcome := admit.Ignored
	cost := c.holds(call.Cost)
	defer func() {
		c.releases(cost)
		permit.Release(outcome)
	}()
	if d.isSettled() {
		return errLost
	}
	err = c.protect(d, func() error { return c.handler(c.handling.ctx, d.Message) })
	d.failure = c.failureOf(d, err)
	if err == nil || c.handling.ctx.Err() == nil && !c.pause.isTrial(d) {
		outcome = outcomeOf(err, d.failure)
	}
	return err
}

// waitOut waits for the time that a message has to itself.
func (c *consumer) waitOut(d *delivery) {
	if d.hold <= 0 {
		return
	}
	apart := 0
	if d.alone >= mostAlone {
		apart = 1
	}
	c.mu.Lock()
	c.holding++
	c.apart += apart
	c.mu.Unlock()
	c.request()
	pause(c.receiving.ctx, d.hold)
	d.hold = 0
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holding--
	c.apart -= apart
}

// holds notes that a message has its permit.
func (c *consumer) holds(cost int) int {
	cost = min(max(cost, 1), c.cfg.Gate.Limit())
	c.cfg.Meter.count(func(s *Stats) { s.Running++ })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.permits += cost
	c.cost += (float64(cost) - c.cost) / 16
	return cost
}

func (c *consumer) releases(cost int) {
	c.cfg.Meter.count(func(s *Stats) { s.Running-- })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.permits -= cost
}

// A panicError is the error of a handler that panicked.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("broker: the handler panicked: %v", p.value) }

// protect runs a function of the program, and returns its panic as an error.
func (c *consumer) protect(d *delivery, f func() error) (err error) {
	d.running = true
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v, debug.Stack()}
		}
		if err != nil {
			d.running = false
		}
	}()
	err = f()
	d.running = false
	return err
}

// failureOf classifies an error of the handler. A panic of the classifier is a failed
// attempt.
func (c *consumer) failureOf(d *delivery, err error) (f Failure) {
	if err == nil {
		return Failure{}
	}
	if _, panicked := errors.AsType[*panicError](err); panicked {
		return Failure{}
	}
	if wrong := guarded("classifier of failures", func() error { f = c.cfg.FailureOf(err); return nil }); wrong != nil {
		c.report(d, wrong)
		return Failure{}
	}
	return f
}

// conclude decides about a message after an attempt. It returns true once the message is
// settled, and false for another attempt.
func (c *consumer) conclude(d *delivery, err error) (settled bool) {
	if err == nil {
		c.pause.passed(d)
		c.succeeded()
		c.failed.forget(d.ID)
		c.settle(d, func(ctx context.Context) error { return d.Ack(ctx) })
		return true
	}
	if refusal, ok := err.(gateRefusal); ok { //nolint:errorlint // it is never wrapped
		c.refusedByGate(d, refusal.error)
		return false
	}
	if err == errEnding || c.handling.ctx.Err() != nil { //nolint:errorlint // the error itself
		c.pause.leave(d)
		c.nack(d, Requeue())
		return true
	}
	if err == errLost { //nolint:errorlint // the error itself
		c.pause.leave(d)
		c.settle(d, func(context.Context) error { return ErrSettled })
		return true
	}
	f := d.failure
	if f.Kind == Refused {
		c.refusedByDependency(d, f.RetryAfter, err)
		return false
	}
	c.pause.passed(d)
	d.failed++
	c.tellFailed(d, err)
	if n := d.before + d.failed; f.Kind == Rejected || n >= c.cfg.MaxAttempts {
		c.failed.forget(d.ID)
		c.nack(d, DeadLetter(err.Error()))
		return true
	}
	return c.again(d)
}

// again prepares another attempt. It returns true if the broker delivers the message again.
func (c *consumer) again(d *delivery) (settled bool) {
	n := d.before + d.failed
	d.hold = backoff(n, c.cfg.RetryDelay, max(c.cfg.RetryDelay, maxRetryDelay))
	if c.inPlace(d) || d.Attempt == 0 && d.ID == "" {
		return false
	}
	if d.Attempt == 0 {
		c.failed.set(d.ID, n)
	}
	c.waitOut(d)
	c.nack(d, Requeue())
	return true
}

// inPlace reports whether a message keeps its place among the messages of its key.
func (c *consumer) inPlace(d *delivery) bool { return c.cfg.Ordered && d.Key != "" }

func (c *consumer) succeeded() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.successes++
}

// refusedByGate holds a message that the gate of the consumer refused. If only the tenant
// of the message has too much, the others go on.
func (c *consumer) refusedByGate(d *delivery, err error) {
	c.cfg.Meter.count(func(s *Stats) { s.Refused++ })
	var asked time.Duration
	if r, ok := errors.AsType[*admit.Refusal](err); ok {
		asked = r.RetryAfter
		if r.Reason == admit.OverShare || r.Reason == admit.OverQuota {
			c.pause.leave(d)
			d.hold = max(asked, minDelay)
			return
		}
	}
	c.pause.refused(d, asked, ByGate, err)
}

// mostAlone is the number of refusals of one message, with successes of others in between,
// after which the message itself is taken for their reason.
const mostAlone = 3

// refusedByDependency pauses consumption. A message that is refused again and again while
// others succeed waits by itself, so that it does not stop the others each time.
func (c *consumer) refusedByDependency(d *delivery, asked time.Duration, err error) {
	c.cfg.Meter.count(func(s *Stats) { s.Refused++ })
	c.mu.Lock()
	successes := c.successes
	c.mu.Unlock()
	if d.refused && successes > d.seen {
		d.alone++
		d.hold = backoff(d.alone, minDelay, max(c.cfg.MaxPause, minDelay))
	}
	d.refused, d.seen = true, successes
	if d.alone >= mostAlone && !c.pause.isTrial(d) {
		d.hold = max(d.hold, min(asked, longestAsked))
		return
	}
	c.pause.refused(d, asked, ByDependency, err)
	c.request()
}
