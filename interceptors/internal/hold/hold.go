// Package hold keeps the permits of a call until its responses have left the process.
package hold

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-go/weir/admit"
)

// A Call keeps the permits of one call. The zero Call is a call that runs. It is safe for
// concurrent use.
type Call struct {
	unsent atomic.Int64 // responses that have not left, less one when the call has ended

	mu       sync.Mutex   // guards the fields below
	kept     admit.Permit // of the first gate
	more     []*admit.Permit
	bound    time.Duration // for how long permits are kept after the end
	timer    *time.Timer
	keeps    bool
	released bool
}

// Key is the key under which the context of a call holds a [Holder].
type Key struct{}

// A Holder is a value that belongs to a [Call].
type Holder interface{ Held() *Call }

// Of returns the Call of a context, nil if nothing watches its responses.
func Of(ctx context.Context) *Call {
	if h, ok := ctx.Value(Key{}).(Holder); ok {
		return h.Held()
	}
	return nil
}

// Keep takes over a finished permit, for at most bound after the end of the call.
func (c *Call) Keep(p *admit.Permit, bound time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.released:
		p.Release(admit.Ignored)
	case c.keeps:
		another := new(admit.Permit)
		p.MoveTo(another)
		c.more = append(c.more, another)
	default:
		p.MoveTo(&c.kept)
		c.keeps, c.bound = true, bound
	}
}

// Sending counts a response that has not left.
func (c *Call) Sending() { c.unsent.Add(1) }

// Sent counts a response that has left. The last one releases the permits if the call has
// ended.
func (c *Call) Sent() {
	if c.unsent.Add(-1) < 0 {
		c.release()
	}
}

// End is called once, when gRPC is done with the call. Its responses may still wait in the
// transport.
func (c *Call) End() {
	if c.unsent.Add(-1) < 0 {
		c.release()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keeps && !c.released {
		c.timer = time.AfterFunc(c.bound, c.release)
	}
}

// release releases the permits. It does its work once.
func (c *Call) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.released {
		return
	}
	c.released = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.kept.Release(admit.Ignored)
	for _, p := range c.more {
		p.Release(admit.Ignored)
	}
}
