package streamcredit

import (
	"sync"
	"sync/atomic"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// pending is the control that waits to be written. Demand adds up here. The holder of the write
// lock takes the sum.
type pending struct {
	waits atomic.Bool // there is some

	mu      sync.Mutex // guards the fields below
	request *creditpb.Request
	cancel  *creditpb.Cancel
	beat    *creditpb.Heartbeat
	drained bool // a Drained is owed
	closed  bool // no Request any more
	half    bool // the stream is to be half-closed
}

// ask adds n and the number of consumed elements to the next Request.
func (p *pending) ask(n int64, consumed uint64, drain bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if p.request == nil {
		p.request = &creditpb.Request{}
	}
	p.request.N = saturate(p.request.GetN(), n)
	p.request.Consumed = max(p.request.GetConsumed(), consumed)
	p.request.Drain = p.request.GetDrain() || drain
	p.waits.Store(true)
}

// cancelDirection makes Cancel the next control, instead of any Request now or later.
func (p *pending) cancelDirection(c *creditpb.Cancel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.request, p.cancel, p.closed = nil, c, true
	p.waits.Store(true)
}

// oweDrained schedules a Drained.
func (p *pending) oweDrained() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drained = true
	p.waits.Store(true)
}

// heartbeat schedules b.
func (p *pending) heartbeat(b *creditpb.Heartbeat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beat = b
	p.waits.Store(true)
}

// halfClose schedules the half-close of the stream, after all other control.
func (p *pending) halfClose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.half = true
	p.waits.Store(true)
}

// take returns the next control to write, or nil if there is none. half means that the stream is
// to be half-closed, which happens after all control. The caller holds the write lock, so that o
// counts exactly the elements that were written.
func (p *pending) take(o *outgoing) (c *creditpb.Control, half bool) {
	if !p.waits.Load() {
		return nil, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c = &creditpb.Control{}
	p.drained = p.drained && o != nil && o.state().Terminates() // a terminal is an answer, too
	switch {
	case p.drained:
		c.Kind = &creditpb.Control_Drained{Drained: o.burn()}
		p.drained = false
	case p.cancel != nil:
		c.Kind = &creditpb.Control_Cancel{Cancel: p.cancel}
		p.cancel = nil
	case p.beat != nil:
		c.Kind = &creditpb.Control_Heartbeat{Heartbeat: p.beat}
		p.beat = nil
	case p.request != nil:
		c.Kind = &creditpb.Control_Request{Request: p.request}
		p.request = nil
	default:
		c, half, p.half = nil, p.half, false
	}
	p.waits.Store(p.drained || p.cancel != nil || p.beat != nil || p.request != nil || p.half)
	return c, half
}
