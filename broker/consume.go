package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/weir-go/weir/internal/check"
)

// Consume runs the handler for the messages of the source, under a gate, until ctx ends.
// It requests as many messages as the gate has room for, and at least one. A message takes
// its permit after it has arrived, so an idle queue holds none. When the limit of the gate
// falls, messages that were requested before still come, and wait for their permits. No
// others are requested until there is room. Giving messages back would cost each an attempt
// at most brokers.
//
// A message is acknowledged when the handler returns nil. ConsumeConfig.FailureOf decides
// about any other error. When something refuses work, consumption pauses. Messages are
// kept, for the delay that was asked for, or for longer with each refusal. Then one message
// tries. The others go on unless it is refused. When the gate itself refuses a call,
// consumption pauses in the same way. A panic of the handler is a failed attempt.
//
// When ctx ends, messages that no handler has are given back. The handlers get
// ConsumeConfig.Grace to end. Consume closes the source and returns nil, or an error about
// handlers and settlements that did not end. It returns nil too if the source was closed by others, and the
// source's error if the source can never deliver again. An error that wraps [ErrConfig]
// comes at once, and the source stays open.
func Consume(ctx context.Context, source Source, handler Handler, c ConsumeConfig) error {
	var bad check.Errors
	bad.That(source != nil, "source: got nil, want a Source")
	bad.That(handler != nil, "handler: got nil, want a function")
	bad.From("ConsumeConfig", c.validate(), ErrConfig)
	if err := bad.Err(ErrConfig); err != nil {
		return err
	}
	cfg, err := c.withDefaults()
	if err != nil {
		return err
	}
	return newConsumer(ctx, source, handler, cfg).run(ctx)
}

// A consumer is one Consume. One goroutine receives. Each message has a goroutine, which
// waits for a permit, runs the handler and settles the message.
type consumer struct {
	source  Source
	handler Handler
	cfg     ConsumeConfig
	pause   pauser
	failed  attempts // of messages that were given back

	// The contexts end one after the other. None has a deadline, because the gate would
	// refuse messages that cannot end before it.
	receiving, handling, settling contextOf
	group                         sync.WaitGroup // of messages

	mu        sync.Mutex // guards the fields below
	requested int        // and not delivered
	inHand    int        // delivered, and the handler has not ended
	unsettled int        // the handler has ended
	holding   int        // in hand, and waiting for a time of their own
	apart     int        // of these, taken for the reason of refusals
	permits   int        // that this consumer holds
	cost      float64    // mean cost of a message
	successes uint64
	chains    map[string][]*delivery // by key: the messages that wait for another one
	ending    bool
	lookAgain *time.Timer // while messages are in hand
}

// A contextOf is a context and the function that ends it.
type contextOf struct {
	ctx context.Context
	end context.CancelFunc
}

func newContext(parent context.Context) contextOf {
	ctx, end := context.WithCancel(parent)
	return contextOf{ctx, end}
}

func newConsumer(ctx context.Context, source Source, handler Handler, cfg ConsumeConfig) *consumer {
	c := &consumer{source: source, handler: handler, cfg: cfg, cost: 1, chains: map[string][]*delivery{}}
	c.pause.longest, c.pause.tell = cfg.MaxPause, c.tellPause
	ctx = context.WithoutCancel(ctx)
	c.receiving, c.handling, c.settling = newContext(ctx), newContext(ctx), newContext(ctx)
	return c
}

func (c *consumer) run(ctx context.Context) error {
	defer c.settling.end()
	defer c.handling.end()
	defer c.receiving.end()
	stop := context.AfterFunc(ctx, c.receiving.end)
	defer stop()
	c.request()
	for {
		m, err := c.source.Next(c.receiving.ctx)
		if err != nil {
			return c.end(err)
		}
		c.deliver(m)
	}
}

// end gives back the messages that no handler has, waits for the handlers, and closes the
// source.
func (c *consumer) end(cause error) error {
	c.receiving.end()
	c.mu.Lock()
	c.ending = true
	if c.lookAgain != nil {
		c.lookAgain.Stop()
	}
	c.mu.Unlock()
	if c.pause.stop() {
		c.cfg.Meter.resumed()
	}
	closing, force := context.WithCancel(context.Background())
	defer force()
	closed := make(chan error, 1)
	go func() { closed <- c.source.Close(closing) }()

	done := make(chan struct{})
	go func() {
		defer close(done)
		c.group.Wait()
	}()
	timer := time.AfterFunc(c.cfg.Grace, c.handling.end)
	defer timer.Stop()
	last := time.NewTimer(c.cfg.Grace + afterGrace)
	defer last.Stop()
	var late error
	select {
	case <-done:
		select {
		case err := <-closed:
			return errors.Join(reason(cause), err)
		case <-last.C:
		}
	case <-last.C:
		c.settling.end()
		late = c.late(done)
	}
	force()
	return errors.Join(reason(cause), late, without(<-closed, context.Canceled))
}

// late returns the error about messages that were not settled in time.
func (c *consumer) late(done <-chan struct{}) error {
	timer := time.NewTimer(afterGrace)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inHand == 0 && c.unsettled == 0 {
		return nil
	}
	return fmt.Errorf("broker: %d handlers and %d settlements did not end in time; their messages were given back", c.inHand, c.unsettled)
}

// reason returns the error that Consume returns for an error of Next.
func reason(cause error) error {
	if errors.Is(cause, context.Canceled) || errors.Is(cause, io.EOF) {
		return nil
	}
	return cause
}

// without removes an error from a joined one.
func without(err, removed error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		if errors.Is(err, removed) {
			return nil
		}
		return err
	}
	var rest []error
	for _, e := range joined.Unwrap() {
		rest = append(rest, without(e, removed))
	}
	return errors.Join(rest...)
}

// request asks for as many messages as the gate has room for. Messages that are asked for
// or in hand take up room already.
func (c *consumer) request() {
	c.mu.Lock()
	n := c.missingLocked()
	c.requested += n
	c.mu.Unlock()
	c.source.Request(n)
}

// missingLocked returns the number of messages to request now. A message does not count
// while its settlement is on the way, so that the next one comes in time. If many
// settlements hang, they count. Messages that wait apart do not count either, up to as many
// as there is room for.
func (c *consumer) missingLocked() int {
	if c.ending {
		return 0
	}
	room := c.roomLocked()
	if paused, refusals := c.pause.state(); paused {
		return c.trialsLocked(room, refusals)
	}
	return max(0, room-c.requested-(c.inHand-min(c.apart, room))-max(0, c.unsettled-room))
}

// sameAgain is the number of refusals in a row after which another message should try.
const sameAgain = 3

// trialsLocked returns the number of messages to request during a pause. One must be there
// to try. After some refusals there should be another one, because the first may be the
// reason of the refusals. Messages on hold cannot try.
func (c *consumer) trialsLocked(room, refusals int) int {
	want := 1
	if refusals >= sameAgain {
		want = 2
	}
	if c.requested+c.inHand >= 2*room {
		return 0
	}
	return max(0, want-c.requested-(c.inHand-c.holding))
}

// roomLocked returns the number of messages that the gate can run for this consumer at a
// time, beside its other users.
func (c *consumer) roomLocked() int {
	others := max(0, c.cfg.Gate.InFlight()-c.permits)
	return max(1, int(float64(c.cfg.Gate.Limit()-others)/c.cost))
}

// lookEvery is the time between two looks at the gate while messages are in hand. Other
// users of the gate may have left it.
const lookEvery = 250 * time.Millisecond

// look requests more messages if there is room, and looks again later.
func (c *consumer) look() {
	c.request()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inHand > 0 && !c.ending {
		c.lookAgain.Reset(lookEvery)
	}
}

// tellPause tells the meter, the log and the demand about a pause.
func (c *consumer) tellPause(e pauseEvent) {
	if e.began {
		c.cfg.Meter.paused(e.cause, e.err)
		c.cfg.Logger.Warn("broker: consumption pauses", "cause", e.cause.String(), "delay", e.delay, "err", e.err)
		return
	}
	c.cfg.Meter.resumed()
	c.cfg.Logger.Info("broker: consumption goes on", "paused", e.took)
	c.request()
}
