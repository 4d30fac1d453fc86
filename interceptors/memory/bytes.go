package memory

import (
	"errors"
	"sync/atomic"

	"google.golang.org/grpc"
	encodingproto "google.golang.org/grpc/encoding/proto" // registers the codec

	"github.com/weir-go/weir/internal/check"
)

// ErrConfig is wrapped by the errors of [NewBytes] and [SizesFor].
var ErrConfig = errors.New("memory: invalid configuration")

// Bytes counts the bytes of the messages that a server holds, and makes gates refuse calls
// while the number is close to its limit. A request counts from when it is decoded until its
// call ends. A response counts from when it is encoded until the transport has written it.
// Until then its call keeps the permit; see interceptors.WithHoldUntilSent. Without Bytes a
// gate does not see a response whose client does not read, because the handler has returned
// its permit.
//
// Bytes is an admit.Pressure for admit.WithPressure. Gates refuse classes below Default
// from 0.85 of the limit, Default from 0.92, and every call from twice the limit. The limit
// can be exceeded, because admitted calls respond after the decision. Critical calls pass up
// to twice the limit, so that such responses do not shut them out. Bytes is also a signal of
// package pressure. As a signal it is in the metrics, and up to one sample late.
//
// A message counts for at most half of the limit. So one large call can run beside small ones,
// whatever its size, and a second one is refused. A single message refuses nothing.
//
// Responses up to 1 KiB do not count. A compressed response counts until it is compressed. A
// stream counts the last message that it received. Bytes is safe for concurrent use. Use
// [NewBytes]; a nil or zero Bytes refuses nothing.
type Bytes struct {
	limit    int64
	counts   atomic.Int64 // bytes towards the limit
	beyond   atomic.Int64 // bytes of large messages that do not count
	messages atomic.Int64
	sending  sending
}

// Stats is a snapshot of [Bytes].
type Stats struct {
	// Limit is the limit in bytes. Used is the number of bytes that are held, in a number of
	// Messages.
	Limit, Used int64
	Messages    int
}

// NewBytes returns a Bytes with a limit in bytes, more than 0. A quarter of the memory is a
// good limit, because a decoded message takes its size once more; see [SizesFor]. The error
// wraps ErrConfig.
func NewBytes(limit int64) (*Bytes, error) {
	if limit <= 0 {
		return nil, check.One(ErrConfig, "bytes: got a limit of %d, want more than 0", limit)
	}
	return &Bytes{limit: limit}, nil
}

// ServerOptions returns the options that make a server count in b. They are a stats handler, and
// the codec "proto" with a counter around it. A nil Bytes returns none. The server then uses that
// codec for every message, so use Bytes only if all messages are protobuf. interceptors.Server
// adds these options for ServerConfig.Bytes.
func (b *Bytes) ServerOptions() []grpc.ServerOption {
	if b == nil {
		return nil
	}
	return []grpc.ServerOption{
		grpc.StatsHandler(calls{b}),
		grpc.ForceServerCodecV2(departures{codecOf(encodingproto.Name), b}),
	}
}

// Stats returns a snapshot. It does not block.
func (b *Bytes) Stats() Stats {
	if b == nil {
		return Stats{}
	}
	return Stats{Limit: b.limit, Used: b.counts.Load() + b.beyond.Load(), Messages: int(b.messages.Load())}
}

// Pressure implements admit.Pressure.
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

// Read returns the bytes that count, divided by the limit.
func (b *Bytes) Read() (float64, error) {
	if b == nil || b.limit == 0 {
		return 0, nil
	}
	return float64(b.counts.Load()) / float64(b.limit), nil
}

// change counts a message that grows or shrinks to a size, which is 0 when it is gone.
func (b *Bytes) change(from, to int64) {
	most := max(b.limit/2, 1)
	b.counts.Add(min(to, most) - min(from, most))
	if from > most || to > most {
		b.beyond.Add(max(to-most, 0) - max(from-most, 0))
	}
}
