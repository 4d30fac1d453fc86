package broker

import (
	"context"
	"errors"
	"fmt"
)

// tellFailed tells the meter, the log and the hook of a failed attempt.
func (c *consumer) tellFailed(d *delivery, err error) {
	p, panicked := errors.AsType[*panicError](err)
	if panicked {
		c.cfg.Logger.Error("broker: a handler panicked", "message", d.ID, "panic", p.value, "stack", string(p.stack))
	}
	c.cfg.Meter.count(func(s *Stats) {
		s.Failed++
		if panicked || err == errGoexit { //nolint:errorlint // the error itself
			s.Panics++
		}
	})
	c.tell(d, err)
}

func (c *consumer) tell(d *delivery, err error) {
	if c.cfg.OnError != nil {
		_ = guarded("hook", func() error { c.cfg.OnError(d.Message, err); return nil })
	}
}

// report tells the meter and the hook of an error that is not the handler's.
func (c *consumer) report(d *delivery, err error) {
	c.cfg.Meter.errs(err)
	c.tell(d, err)
}

func (c *consumer) nack(d *delivery, to Disposition) {
	tries := 0
	c.settle(d, func(ctx context.Context) error {
		err := d.Nack(ctx, to)
		tries++
		if err != nil && to.kind == DeadLettered && tries >= deadTries && !c.inPlace(d) {
			to = Requeue() // better than a place in use for ever
		}
		return err
	})
}

// settle requests the next message, and then settles one. It repeats failed tries until
// Consume gives up.
func (c *consumer) settle(d *delivery, try func(context.Context) error) {
	c.mu.Lock()
	c.inHand--
	c.unsettled++
	c.mu.Unlock()
	c.request()
	for failures := 1; ; failures++ {
		ctx, cancel := context.WithTimeout(c.settling.ctx, settleTimeout)
		err := try(ctx)
		cancel()
		if err == nil || errors.Is(err, ErrSettled) {
			break
		}
		if c.settling.ctx.Err() != nil {
			return // Close gives it back
		}
		c.report(d, fmt.Errorf("broker: cannot settle message %q: %w", d.ID, err))
		pause(c.settling.ctx, backoff(failures, minDelay, maxDelay))
	}
	c.mu.Lock()
	c.unsettled--
	c.mu.Unlock()
	c.request()
}
