package streamcredit

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// pending is the control that waits to be written. Demand adds up here: whoever
// holds the session's write lock takes the sum.
type pending struct {
	waits atomic.Bool // there is some

	mu      sync.Mutex // guards what follows
	request *creditpb.Request
	cancel  *creditpb.Cancel
	beat    *creditpb.Heartbeat
	drained bool // a Drained is owed
	closed  bool // no Request any more
	half    bool // the stream is to be half-closed
}

// ask adds n and what is consumed to the next Request.
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

// stop has Cancel written instead of any Request, now or later.
func (p *pending) stop(c *creditpb.Cancel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.request, p.cancel, p.closed = nil, c, true
	p.waits.Store(true)
}

func (p *pending) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drained = true
	p.waits.Store(true)
}

func (p *pending) heartbeat(b *creditpb.Heartbeat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beat = b
	p.waits.Store(true)
}

func (p *pending) halfClose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.half = true
	p.waits.Store(true)
}

// take returns the next control to write, nil if there is none. The session's
// write lock is held, so that o's account of what was sent is what was written.
//
// It also says when, after all control, to half-close.
func (p *pending) take(o *outgoing) (c *creditpb.Control, half bool) {
	if !p.waits.Load() {
		return nil, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c = &creditpb.Control{}
	p.drained = p.drained && o != nil && !o.ended() // a terminal is an answer, too
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

// A lock is a mutex that a context can end the wait for, and that waits durably in
// a testing/synctest bubble.
type lock struct {
	held    atomic.Bool
	waiters atomic.Int32
	free    chan struct{} // of one place: the lock was let go, and somebody waits
}

func newLock() *lock { return &lock{free: make(chan struct{}, 1)} }

func (l *lock) tryLock() bool { return l.held.CompareAndSwap(false, true) }

func (l *lock) lock(ctx context.Context) error {
	if l.tryLock() {
		return nil
	}
	l.waiters.Add(1) // before the next look, so that unlock cannot miss both
	defer l.waiters.Add(-1)
	for !l.tryLock() {
		select {
		case <-l.free:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (l *lock) unlock() {
	l.held.Store(false)
	if l.waiters.Load() > 0 {
		signal(l.free)
	}
}

// The flood rule's bucket.
const (
	floodBurst = 1000
	floodRate  = 100 // a second
)

// bucket is the flood rule. A control message costs a token. Each element of either direction
// brings a token that never expires. Time brings floodRate tokens a second and fills the bucket
// up to its size. One goroutine at a time uses it. It reads the clock only when it is empty.
type bucket struct {
	most     int64 // the size, in tokens
	tokens   int64
	elements uint64 // that were counted already
	filled   time.Time
}

func newBucket(most int64) bucket { return bucket{most: most, tokens: most, filled: time.Now()} }

// spend takes a token and reports whether there was one. seen returns how many elements were
// seen, both ways.
func (b *bucket) spend(seen func() uint64) bool {
	if !b.fill(seen) {
		return false
	}
	b.tokens--
	return true
}

// fill reports whether there is a token.
func (b *bucket) fill(seen func() uint64) bool {
	if b.tokens > 0 {
		return true
	}
	elements := seen()
	b.tokens = int64(elements - b.elements)
	b.elements = elements
	if earned := int64(time.Since(b.filled).Seconds() * floodRate); earned > 0 {
		b.tokens += min(earned, b.most)
		b.filled = b.filled.Add(time.Duration(earned) * time.Second / floodRate)
	}
	return b.tokens > 0
}
