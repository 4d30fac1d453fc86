package interceptors_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/internal/racetest"
)

// A quickStream takes messages at once. It computes their size as gRPC does.
type quickStream struct{ serverStream }

func (*quickStream) SendMsg(m any) error {
	if m, ok := m.(proto.Message); ok {
		_ = proto.Size(m)
	}
	return nil
}

var sendBounds = []struct {
	name  string
	bound time.Duration
}{{"without", -1}, {"with", 0}}

// BenchmarkStreamSend is a SendMsg without a network, without the bound and with it.
func BenchmarkStreamSend(b *testing.B) {
	many := &demopb.ExchangeResponse{Text: "many of these"}
	for name, m := range map[string]any{
		"bytes": wrapperspb.Bytes(make([]byte, 64)), "message": many, "unknown": struct{}{},
	} {
		for _, c := range sendBounds {
			b.Run(name+"/"+c.name, func(b *testing.B) {
				inStream(b, c.bound, func(stream grpc.ServerStream) {
					b.ReportAllocs()
					for b.Loop() {
						if err := stream.SendMsg(m); err != nil {
							b.Fatal(err)
						}
					}
				})
			})
		}
	}
}

// inStream calls f with a stream of a server.
func inStream(tb testing.TB, bound time.Duration, f func(grpc.ServerStream)) {
	tb.Helper()
	ctx := grpc.NewContextWithServerTransportStream(context.Background(), &endable{})
	i := interceptors.StreamServer(strict(tb, 1), interceptors.WithStreams(interceptors.StreamRule{SendStall: bound}, nil))
	err := i(nil, &quickStream{serverStream{ctx: ctx}}, &grpc.StreamServerInfo{FullMethod: downMethod},
		func(_ any, stream grpc.ServerStream) error { f(stream); return nil })
	if err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkStreamOpen is a stream that does nothing, without a network.
func BenchmarkStreamOpen(b *testing.B) {
	for _, c := range sendBounds {
		b.Run(c.name, func(b *testing.B) {
			i := interceptors.StreamServer(strict(b, 1), interceptors.WithStreams(interceptors.StreamRule{SendStall: c.bound}, nil))
			ss, info := &quickStream{serverStream{ctx: callContext(b)}}, &grpc.StreamServerInfo{FullMethod: downMethod}
			b.ReportAllocs()
			for b.Loop() {
				if err := i(nil, ss, info, func(any, grpc.ServerStream) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A Send allocates nothing for its bound.
func TestSendsAllocateNothing(t *testing.T) {
	if racetest.Enabled {
		t.Skip("the race detector allocates")
	}
	m := wrapperspb.Bytes(make([]byte, 64))
	inStream(t, 0, func(stream grpc.ServerStream) {
		if got := testing.AllocsPerRun(1000, func() { _ = stream.SendMsg(m) }); got != 0 {
			t.Errorf("allocations of a Send: got %v, want 0", got)
		}
	})
}
