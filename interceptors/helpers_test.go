package interceptors_test

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/internal/calltest"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/interceptors/throttle"
)

const work = calltest.Work

// The tests share these with those of the packages below.
type (
	service = calltest.Service
	rig     = calltest.Rig
	fixed   = calltest.Fixed
	deaf    = calltest.Deaf
	client  = calltest.Caller
)

var (
	start       = calltest.Start
	drainStream = calltest.DrainStream
	echo        = calltest.Echo
	serve       = calltest.Serve
	serveWith   = calltest.ServeWith
	works       = calltest.Works
	exponential = calltest.Exponential
	does        = calltest.Does
	newGate     = calltest.NewGate
	strict      = calltest.Strict
	fill        = calltest.Fill
	hold        = calltest.Hold
	atRest      = calltest.AtRest
	wantCode    = calltest.WantCode
	fails       = calltest.Fails
	aside       = calltest.Aside
	detailed    = calltest.Detailed
	errDown     = calltest.ErrDown
	always      = calltest.Always
	callers     = calltest.Callers
)

func newBreaker(tb testing.TB, c breaker.Config) *breaker.Breaker {
	tb.Helper()
	b, err := breaker.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func newThrottle(tb testing.TB, c throttle.Config) *throttle.Throttle {
	tb.Helper()
	th, err := throttle.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return th
}

func policy(tb testing.TB, c retry.Config) grpc.DialOption {
	tb.Helper()
	o, err := retry.DialOption(c)
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

var busy = fails(codes.Unavailable)

// circuit returns the only circuit of a breaker.
func circuit(tb testing.TB, b *breaker.Breaker) breaker.CircuitStats {
	tb.Helper()
	s := b.Stats()
	if len(s) != 1 {
		tb.Fatalf("circuits: got %v, want one", s)
	}
	return s[0]
}

func wantState(tb testing.TB, b *breaker.Breaker, want breaker.State) {
	tb.Helper()
	if got := circuit(tb, b); got.State != want {
		tb.Errorf("circuit: got %+v, want it %v", got, want)
	}
}

// wantConfigError checks that an error names all that is wrong.
func wantConfigError(t *testing.T, err error, want ...string) {
	t.Helper()
	calltest.WantConfigError(t, err, interceptors.ErrConfig, want...)
}

var workInfo = &grpc.UnaryServerInfo{FullMethod: work}

func unaryServers(i ...grpc.UnaryServerInterceptor) []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(i...)}
}

// A callStream is what gRPC keeps in the context of a call on a server.
type callStream struct{ trailer metadata.MD }

func (*callStream) Method() string               { return work }
func (*callStream) SetHeader(metadata.MD) error  { return nil }
func (*callStream) SendHeader(metadata.MD) error { return nil }
func (s *callStream) Trailer() metadata.MD       { return s.trailer }
func (s *callStream) SetTrailer(md metadata.MD) error {
	s.trailer = metadata.Join(s.trailer, md)
	return nil
}

// A serverStream is a grpc.ServerStream without a network.
type serverStream struct {
	grpc.ServerStream
	ctx     context.Context
	trailer metadata.MD
}

func (s *serverStream) Context() context.Context { return s.ctx }
func (s *serverStream) SetTrailer(md metadata.MD) {
	s.trailer = metadata.Join(s.trailer, md)
}

func succeed(context.Context, any) (any, error) { return "done", nil }
