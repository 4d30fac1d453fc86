package interceptors

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	encodingproto "google.golang.org/grpc/encoding/proto" // registers the codec
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/stats"
)

// Bytes counts the bytes of the messages that a server holds, and makes gates refuse calls
// while they are too many. A request counts from when it is decoded until its call ends. A
// response counts from when it is encoded until the transport has written it. Without Bytes a
// gate does not see a response whose client does not read, because the handler has returned
// its permit.
//
// Bytes is an [admit.Pressure] for [admit.WithPressure]. Gates refuse classes below Default
// from 0.85 of the limit, Default from 0.92, and every call from twice the limit. The limit
// can be exceeded, because admitted calls respond after the decision. Critical calls pass up
// to twice the limit, so that such responses do not shut them out. A single message refuses
// nothing, so one call can always run, whatever its size. Bytes is also a signal of package
// pressure. As a signal it is in the metrics, and up to one sample late.
//
// Responses up to 1 KiB do not count. A compressed response counts until it is compressed. A
// stream counts the last message that it received. Bytes is safe for concurrent use. Use
// [NewBytes]; a nil or zero Bytes refuses nothing.
type Bytes struct {
	limit    int64
	used     atomic.Int64
	messages atomic.Int64
}

// BytesStats is a snapshot of [Bytes].
type BytesStats struct {
	// Limit is the limit in bytes. Used is the number of bytes that are held, in a number of
	// Messages.
	Limit, Used, Messages int64
}

// NewBytes returns a Bytes with a limit in bytes, more than 0. A quarter of the memory is a
// good limit, because a decoded message takes its size once more; see [SizesFor]. The error
// wraps ErrConfig.
func NewBytes(limit int64) (*Bytes, error) {
	if limit <= 0 {
		return nil, fmt.Errorf("%w: bytes: got a limit of %d, want more than 0", ErrConfig, limit)
	}
	return &Bytes{limit: limit}, nil
}

// ServerOptions returns a stats handler, and the codec "proto" with a counter around it. The
// server then uses that codec for every message, so use Bytes only if all messages are
// protobuf. [Server] adds these options for ServerConfig.Bytes.
func (b *Bytes) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.StatsHandler(arrivals{b}),
		grpc.ForceServerCodecV2(departures{encoding.GetCodecV2(encodingproto.Name), b}),
	}
}

// Stats returns a snapshot. It does not block.
func (b *Bytes) Stats() BytesStats {
	return BytesStats{Limit: b.limit, Used: b.used.Load(), Messages: b.messages.Load()}
}

// Pressure implements [admit.Pressure].
func (b *Bytes) Pressure() (level uint8, signal string) {
	if b == nil || b.messages.Load() <= 1 {
		return 0, b.Name()
	}
	share, _ := b.Read()
	switch {
	case share >= 2:
		level = 3
	case share >= 0.92:
		level = 2
	case share >= 0.85:
		level = 1
	}
	return level, b.Name()
}

// Name returns "bytes".
func (*Bytes) Name() string { return "bytes" }

// Read returns the bytes that are held, divided by the limit.
func (b *Bytes) Read() (float64, error) {
	if b.limit == 0 {
		return 0, nil
	}
	return float64(b.used.Load()) / float64(b.limit), nil
}

// add adds to the messages and bytes that are held.
func (b *Bytes) add(messages, bytes int64) {
	b.messages.Add(messages)
	b.used.Add(bytes)
}

// arrivals counts requests.
type arrivals struct{ bytes *Bytes }

// A received holds the size of the last message that a call has received.
type received struct{ size atomic.Int64 }

type receivedKey struct{}

func (arrivals) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, receivedKey{}, new(received))
}

func (a arrivals) HandleRPC(ctx context.Context, s stats.RPCStats) {
	r, ok := ctx.Value(receivedKey{}).(*received)
	if !ok {
		return
	}
	var size int64
	switch s := s.(type) {
	case *stats.InPayload:
		size = int64(s.Length)
	case *stats.End:
	default:
		return
	}
	before := r.size.Swap(size)
	a.bytes.add(one(size)-one(before), size-before)
}

// one returns 1 for a size above 0.
func one(size int64) int64 { return min(size, 1) }

func (arrivals) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (arrivals) HandleConn(context.Context, stats.ConnStats)                       {}

// departures is a codec that counts answers.
type departures struct {
	encoding.CodecV2

	bytes *Bytes
}

// Marshal puts a counter around each buffer that gRPC frees once it is written.
func (d departures) Marshal(v any) (mem.BufferSlice, error) {
	out, err := d.CodecV2.Marshal(v)
	for i, b := range out {
		data := b.ReadOnlyData()
		if mem.IsBelowBufferPoolingThreshold(cap(data)) {
			continue // gRPC does not free small buffers
		}
		c := &charge{bytes: d.bytes, size: int64(len(data)), inner: b}
		// When a connection breaks, gRPC frees some buffers not at all.
		runtime.AddCleanup(&data, func(u *unpaid) { u.settle() }, c.owe())
		out[i] = mem.NewBuffer(&data, c)
	}
	return out, err
}

// A charge counts an encoded message until gRPC frees its buffer. It poses as the pool of the
// buffer.
type charge struct {
	bytes  *Bytes
	size   int64
	inner  mem.Buffer
	unpaid *unpaid
}

// An unpaid is the part of a charge that is settled once. A cleanup of the collector holds it,
// so it must not refer to the buffer.
type unpaid struct {
	bytes *Bytes
	size  int64
	done  atomic.Bool
}

func (c *charge) owe() *unpaid {
	c.unpaid = &unpaid{bytes: c.bytes, size: c.size}
	c.bytes.add(1, c.size)
	return c.unpaid
}

func (u *unpaid) settle() {
	if u.done.CompareAndSwap(false, true) {
		u.bytes.add(-1, -u.size)
	}
}

// Get implements mem.BufferPool. gRPC never calls it for a buffer that exists.
func (*charge) Get(n int) *[]byte {
	b := make([]byte, n)
	return &b
}

// Put implements mem.BufferPool.
func (c *charge) Put(*[]byte) {
	c.unpaid.settle()
	c.inner.Free()
}
