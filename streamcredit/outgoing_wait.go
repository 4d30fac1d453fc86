package streamcredit

import (
	"context"
	"time"
)

// wakeLocked wakes all goroutines that wait for a change. Every method that changes a condition
// in await, wait or beyond calls it. take is the exception. It makes none of the conditions true
// except that of beyond, which sets wakeAt.
func (o *outgoing) wakeLocked() {
	o.wakeAt = 0
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
}

// changesLocked returns a channel that the next change closes.
func (o *outgoing) changesLocked() <-chan struct{} {
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return o.changed
}

// await waits until an element may be sent. If stall is positive, the wait ends after it with a
// ProtocolError. await parks at once, because spinning would keep a processor from the goroutines
// that bring the demand. It returns how long it waited.
func (o *outgoing) await(ctx context.Context, stall time.Duration) (waited time.Duration, err error) {
	var stalled <-chan time.Time
	if stall > 0 {
		timer := time.NewTimer(stall)
		defer timer.Stop()
		stalled = timer.C
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.ledger.State().Sends() && !o.ledger.Free() {
		parked, err := o.parkLocked(ctx, stalled)
		waited += parked
		if err != nil {
			return waited, err
		}
	}
	return waited, o.ledger.Why()
}

// parkLocked waits for the next change, and measures the wait.
func (o *outgoing) parkLocked(ctx context.Context, stalled <-chan time.Time) (time.Duration, error) {
	began := time.Now()
	if o.waiting++; o.waiting == 1 {
		o.since = began
	}
	changed := o.changesLocked()
	o.mu.Unlock()
	var err error
	select {
	case <-changed:
	case <-ctx.Done():
		err = ctx.Err()
	case <-stalled:
		err = violation(CreditStarved, "credit in time", "none")
	}
	o.mu.Lock()
	now := time.Now()
	if o.waiting--; o.waiting == 0 {
		o.starved += now.Sub(o.since)
	}
	return now.Sub(began), err
}

// wait waits until cond returns true. It calls cond with o.mu held.
func (o *outgoing) wait(ctx context.Context, cond func() bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !cond() {
		changed := o.changesLocked()
		o.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		o.mu.Lock()
		if err := ctx.Err(); err != nil && !cond() {
			return err
		}
	}
	return nil
}

// beyond waits until the receiver wants more than the first asked elements, and returns how
// many more. Demand is passed on at once up to a bound on the elements ahead of sent, because a
// stage holds what it has asked for, and its receiver may ask for anything. The bound is the
// largest credit, mostAhead, or pipeAhead where demand is unbounded. Beyond it demand is passed on
// in steps of half of the bound.
func (o *outgoing) beyond(ctx context.Context, asked int64) (more int64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		if !o.ledger.State().Sends() {
			return 0, o.ledger.Why()
		}
		more, wakeAt := o.beyondLocked(asked)
		if more > 0 {
			return more, nil
		}
		changed := o.changesLocked()
		o.wakeAt = wakeAt
		o.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		o.mu.Lock()
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
}

// beyondLocked returns how much the receiver wants beyond asked. If that is nothing, it returns
// the number of sent elements at which it may change without a Request.
func (o *outgoing) beyondLocked(asked int64) (more int64, wakeAt uint64) {
	ahead, granted, sent := min(o.ledger.Credit(), mostAhead), o.ledger.Granted(), int64(o.ledger.Sent())
	switch {
	case o.ledger.Credit() == unbounded:
		ahead = pipeAhead
	case granted-sent == ahead && granted != unbounded:
		return max(0, granted-asked), 0
	}
	step := max(1, ahead/2)
	if more = saturate(sent, ahead) - asked; more >= step {
		return more, 0
	}
	wake := asked - ahead + step
	if granted != unbounded {
		wake = min(wake, granted-ahead) // beyond that, the granted demand bounds it
	}
	return 0, uint64(max(1, wake))
}
