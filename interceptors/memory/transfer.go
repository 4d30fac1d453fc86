package memory

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc/stats"

	"github.com/weir-go/weir/interceptors/internal/hold"
)

// calls is the stats handler of Bytes. It counts requests, tells which call has sent a message,
// and when calls and connections end.
type calls struct{ bytes *Bytes }

type connectionKey struct{}

func (c calls) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	conn, ok := ctx.Value(connectionKey{}).(*connection)
	if !ok {
		conn = new(connection)
	}
	return context.WithValue(ctx, hold.Key{}, &transfer{bytes: c.bytes, conn: conn})
}

func (calls) HandleRPC(ctx context.Context, s stats.RPCStats) {
	t, ok := ctx.Value(hold.Key{}).(*transfer)
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
		t.End()
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

// A transfer is a call as Bytes sees it.
type transfer struct {
	hold.Call // which waits for the responses

	bytes   *Bytes
	conn    *connection
	arrived atomic.Int64 // size of the last message that the call has received
}

// Held implements hold.Holder.
func (t *transfer) Held() *hold.Call { return &t.Call }

// arrive counts a message of a size in place of the one before.
func (t *transfer) arrive(size int64) {
	before := t.arrived.Swap(size)
	t.bytes.messages.Add(min(size, 1) - min(before, 1))
	t.bytes.change(before, size)
}
