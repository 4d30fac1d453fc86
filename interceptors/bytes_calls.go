package interceptors

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/stats"

	"github.com/weir-go/weir/admit"
)

// calls is the stats handler of Bytes. It counts requests, tells which call has sent a message,
// and when calls and connections end.
type calls struct{ bytes *Bytes }

type (
	transferKey   struct{}
	connectionKey struct{}
)

// transferOf returns the transfer of a call on a server that counts bytes, otherwise nil.
func transferOf(ctx context.Context) *transfer {
	t, _ := ctx.Value(transferKey{}).(*transfer)
	return t
}

func (c calls) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	conn, ok := ctx.Value(connectionKey{}).(*connection)
	if !ok {
		conn = new(connection)
	}
	t := &transfer{bytes: c.bytes, conn: conn}
	t.unsent.Store(1)
	return context.WithValue(ctx, transferKey{}, t)
}

func (calls) HandleRPC(ctx context.Context, s stats.RPCStats) {
	t, ok := ctx.Value(transferKey{}).(*transfer)
	if !ok {
		return
	}
	switch s := s.(type) {
	case *stats.InPayload:
		t.arrive(int64(s.Length))
	case *stats.OutPayload:
		if p := t.bytes.sending.take(s.Payload); p != nil {
			p.attach(t)
		}
	case *stats.End:
		t.arrive(0)
		t.end()
	}
}

func (calls) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, connectionKey{}, new(connection))
}

func (calls) HandleConn(ctx context.Context, s stats.ConnStats) {
	if _, ended := s.(*stats.ConnEnd); !ended {
		return
	}
	if conn, ok := ctx.Value(connectionKey{}).(*connection); ok {
		conn.end()
	}
}

// A transfer is a call as Bytes sees it. It keeps the permits of the call until its responses
// have left.
type transfer struct {
	bytes   *Bytes
	conn    *connection
	arrived atomic.Int64 // size of the last message that the call has received
	unsent  atomic.Int64 // responses that have not left, and one until the call ends

	mu       sync.Mutex   // guards the fields below
	kept     admit.Permit // of the first gate
	more     []*admit.Permit
	bound    time.Duration // for how long permits are kept after the end
	timer    *time.Timer
	keeps    bool
	released bool
}

// arrive counts a message of a size in place of the one before.
func (t *transfer) arrive(size int64) {
	before := t.arrived.Swap(size)
	t.bytes.messages.Add(min(size, 1) - min(before, 1))
	t.bytes.change(before, size)
}

// keep takes over a permit of a call whose handler has returned, for at most bound after the
// end of the call.
func (t *transfer) keep(p *admit.Permit, bound time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.released:
		p.Release(admit.Ignored)
	case t.keeps:
		another := new(admit.Permit)
		p.MoveTo(another)
		t.more = append(t.more, another)
	default:
		p.MoveTo(&t.kept)
		t.keeps, t.bound = true, bound
	}
}

// sent counts down unsent, and releases the permits after the last one.
func (t *transfer) sent() {
	if t.unsent.Add(-1) == 0 {
		t.release()
	}
}

// end is called when gRPC has done with the call. Its responses may still wait in the
// transport.
func (t *transfer) end() {
	if t.unsent.Add(-1) == 0 {
		t.release()
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keeps && !t.released {
		t.timer = time.AfterFunc(t.bound, t.release)
	}
}

// release releases the permits. It does its work once.
func (t *transfer) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.released {
		return
	}
	t.released = true
	if t.timer != nil {
		t.timer.Stop()
	}
	t.kept.Release(admit.Ignored)
	for _, p := range t.more {
		p.Release(admit.Ignored)
	}
}
