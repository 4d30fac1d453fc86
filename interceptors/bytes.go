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

// Bytes bounds the bytes of messages that a server holds: requests from when they are
// decoded until their call has ended, and answers from when they are encoded until the
// transport has written them. A handler that has returned holds no permit, but its answer
// is in memory for as long as the client does not read.
//
// It is an [admit.Pressure] for [admit.WithPressure]: gates refuse classes below Default
// at 0.85 of the limit, Default at 0.92, and every call at twice the limit: the answers of
// calls that ran already can exceed the limit, and must not shut out critical calls.
// It is exact at every moment. While there is one message or none it refuses nothing,
// so that one call may
// always run, whatever its size. It is a signal of package pressure, too, for its metrics.
//
// Messages up to 1 KiB are not counted as answers, and of a compressed answer only the
// time until it is compressed. Of a stream the last message that it received counts.
// It is safe for concurrent use. Use [NewBytes]; a zero Bytes refuses nothing.
type Bytes struct {
	limit    int64
	used     atomic.Int64
	messages atomic.Int64
}

// BytesStats is a snapshot of [Bytes].
type BytesStats struct {
	// Limit is the limit, Used how many bytes are held, and Messages in how many messages.
	Limit, Used, Messages int64
}

// NewBytes returns a bound of limit bytes. A message takes its size on the wire once more
// when it is decoded, so a quarter of the memory is a good limit: see [Sizes]. It returns
// an error that wraps ErrConfig if limit is not positive.
func NewBytes(limit int64) (*Bytes, error) {
	if limit <= 0 {
		return nil, fmt.Errorf("%w: bytes: got a limit of %d, want more than 0", ErrConfig, limit)
	}
	return &Bytes{limit: limit}, nil
}

// ServerOptions returns what counts: a stats handler and the codec "proto" with a counter
// around it. The codec is forced, so use it for servers whose messages are all in proto.
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

// Read returns the share of the limit that is held.
func (b *Bytes) Read() (float64, error) {
	if b.limit == 0 {
		return 0, nil
	}
	return float64(b.used.Load()) / float64(b.limit), nil
}

// add changes how many messages of how many bytes are held.
func (b *Bytes) add(messages, bytes int64) {
	b.messages.Add(messages)
	b.used.Add(bytes)
}

// arrivals counts requests.
type arrivals struct{ bytes *Bytes }

// A received is the size of the last message that a call has received.
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

// one is 1 for what has a size.
func one(size int64) int64 { return min(size, 1) }

func (arrivals) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (arrivals) HandleConn(context.Context, stats.ConnStats)                       {}

// departures is a codec that counts answers.
type departures struct {
	encoding.CodecV2

	bytes *Bytes
}

// Marshal puts a counter around each buffer that gRPC gives back when it is written.
func (d departures) Marshal(v any) (mem.BufferSlice, error) {
	out, err := d.CodecV2.Marshal(v)
	for i, b := range out {
		data := b.ReadOnlyData()
		if mem.IsBelowBufferPoolingThreshold(cap(data)) {
			continue // gRPC does not give those back
		}
		c := &charge{bytes: d.bytes, size: int64(len(data)), inner: b}
		// When a connection breaks gRPC leaves what it has begun to write to the collector.
		runtime.AddCleanup(&data, func(u *unpaid) { u.settle() }, c.owe())
		out[i] = mem.NewBuffer(&data, c)
	}
	return out, err
}

// A charge is what an encoded message costs until gRPC gives its buffer back. It is the
// buffer's pool.
type charge struct {
	bytes  *Bytes
	size   int64
	inner  mem.Buffer
	unpaid *unpaid
}

// unpaid is a charge that is settled once. The collector's cleanup holds it, so it must
// not lead to the buffer.
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

// Get implements mem.BufferPool. Nothing asks a charge for a buffer.
func (*charge) Get(n int) *[]byte {
	b := make([]byte, n)
	return &b
}

// Put implements mem.BufferPool.
func (c *charge) Put(*[]byte) {
	c.unpaid.settle()
	c.inner.Free()
}
