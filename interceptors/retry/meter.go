package retry

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/weir-go/weir/interceptors/internal/places"
)

// A Meter counts the retries of gRPC, by target and method. gRPC keeps its retry budget private,
// so retries per call are the nearest number. Give one to interceptors.ClientConfig.Retries, or
// all three of Unary, Stream and Handler to a connection. Several connections may share one. It
// is safe for concurrent use. Use [NewMeter]. A nil or zero Meter counts nothing.
//
// gRPC reports each step of a call to a stats handler, which allocates. Leave the Meter out where
// that matters.
type Meter struct {
	name  string
	table *places.Table[*tally]
}

// NewMeter returns a meter. The page of package debug shows it under the name.
func NewMeter(name string) *Meter {
	return &Meter{name, places.New(func(p places.Place) *tally { return &tally{Place: p} })}
}

// Name returns the name of the meter. It is empty for nil and for the zero Meter.
func (m *Meter) Name() string {
	if m == nil {
		return ""
	}
	return m.name
}

func (m *Meter) isZero() bool { return m == nil || m.table == nil }

// MeterStats counts the calls of a method since the meter was made.
type MeterStats struct {
	// Target is the target of the connection, and Method the full name of the method. Both are
	// "*" for the methods beyond the first 1024.
	Target, Method string
	// Calls is the number of calls that gRPC began to send. Retries is the number of attempts
	// after the first ones. Transparent counts attempts that replaced one which no server had
	// seen. gRPC limits those by itself, and Retries leaves them out.
	Calls, Retries, Transparent uint64
}

// Stats returns the counts of the methods that were called, in the order of their first use.
func (m *Meter) Stats() (all []MeterStats) {
	if m.isZero() {
		return nil
	}
	for _, t := range m.table.All() {
		s := MeterStats{t.Target, t.Method, t.calls.Load(), t.retries.Load(), t.transparent.Load()}
		if s.Calls > 0 {
			all = append(all, s)
		}
	}
	return all
}

// A tally counts for one place.
type tally struct {
	places.Place
	calls, retries, transparent atomic.Uint64
}

// A metered is a call under way.
type metered struct {
	*tally
	begun atomic.Bool // its first attempt has begun
}

// with returns the context of a call that is counted.
func (m *Meter) with(ctx context.Context, cc *grpc.ClientConn, method string) context.Context {
	if m.isZero() {
		return ctx
	}
	return context.WithValue(ctx, m, &metered{tally: m.table.At(cc, method)})
}

// Unary returns an interceptor for the calls that are counted. It should be the last one of the
// chain, because an interceptor further in that retries makes one call look like several attempts.
func (m *Meter) Unary() grpc.UnaryClientInterceptor {
	return func(
		ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
		invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		return invoker(m.with(ctx, cc, method), method, req, reply, cc, opts...)
	}
}

// Stream is [Meter.Unary] for streams.
func (m *Meter) Stream() grpc.StreamClientInterceptor {
	return func(
		ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
		streamer grpc.Streamer, opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		return streamer(m.with(ctx, cc, method), desc, cc, method, opts...)
	}
}

// Handler returns the stats handler that counts attempts, for grpc.WithStatsHandler.
func (m *Meter) Handler() stats.Handler { return attempts{m} }

// attempts counts the attempts of calls that an interceptor of the meter has seen.
type attempts struct{ meter *Meter }

// HandleRPC implements stats.Handler.
func (a attempts) HandleRPC(ctx context.Context, s stats.RPCStats) {
	begin, ok := s.(*stats.Begin)
	if !ok {
		return
	}
	call, ok := ctx.Value(a.meter).(*metered)
	switch {
	case !ok: // the interceptor is missing
	case begin.IsTransparentRetryAttempt:
		call.transparent.Add(1)
	case call.begun.Swap(true):
		call.retries.Add(1)
	default:
		call.calls.Add(1)
	}
}

// TagRPC implements stats.Handler.
func (attempts) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn implements stats.Handler.
func (attempts) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (attempts) HandleConn(context.Context, stats.ConnStats) {}
