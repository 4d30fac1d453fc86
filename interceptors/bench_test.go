package interceptors_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/sony/gobreaker/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
)

// A quietStream does with a trailer what a call without a network can: nothing.
// (On a network, encoding it costs what encoding any trailer costs.)
type quietStream struct{ callStream }

func (*quietStream) SetTrailer(metadata.MD) error { return nil }

// callContext is a context as deep as that of a call on a server.
func callContext(b *testing.B) context.Context {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	ctx = metadata.NewIncomingContext(ctx, metadata.MD{})
	return grpc.NewContextWithServerTransportStream(ctx, &quietStream{})
}

var benchmarkGates = []struct {
	name string
	i    func(tb testing.TB) grpc.UnaryServerInterceptor
}{
	{"none", func(testing.TB) grpc.UnaryServerInterceptor {
		return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			return h(ctx, req)
		}
	}},
	{"semaphore", func(testing.TB) grpc.UnaryServerInterceptor {
		free := make(chan struct{}, 1000)
		return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			free <- struct{}{}
			defer func() { <-free }()
			return h(ctx, req)
		}
	}},
	{"gobreaker closed", func(testing.TB) grpc.UnaryServerInterceptor {
		circuit := gobreaker.NewCircuitBreaker[any](gobreaker.Settings{})
		return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			return circuit.Execute(func() (any, error) { return h(ctx, req) })
		}
	}},
	{"adaptive", func(tb testing.TB) grpc.UnaryServerInterceptor { return interceptors.UnaryServer(newGate(tb)) }},
	{"fixed", func(tb testing.TB) grpc.UnaryServerInterceptor {
		return interceptors.UnaryServer(newGate(tb, admit.WithLimit(fixed(1000))))
	}},
}

func BenchmarkUnaryServerAdmitted(b *testing.B) {
	for _, c := range benchmarkGates {
		b.Run(c.name, func(b *testing.B) {
			i, ctx := c.i(b), callContext(b)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := i(ctx, nil, workInfo, succeed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The handler does nothing, so the adaptive limit falls to one or two here and
// the calls queue; "fixed" is the cost without a queue.
func BenchmarkUnaryServerAdmittedParallel(b *testing.B) {
	for _, c := range benchmarkGates {
		b.Run(c.name, func(b *testing.B) {
			i := c.i(b)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				ctx := callContext(b)
				for pb.Next() {
					if _, err := i(ctx, nil, workInfo, succeed); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// A second interceptor of the same gate makes every call carry a mark.
func BenchmarkUnaryServerMarked(b *testing.B) {
	g := newGate(b)
	outer, inner := interceptors.UnaryServer(g), interceptors.UnaryServer(g)
	chain := func(ctx context.Context, req any) (any, error) { return inner(ctx, req, workInfo, succeed) }
	ctx := callContext(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := outer(ctx, nil, workInfo, chain); err != nil {
			b.Fatal(err)
		}
	}
}

// A refusal should cost about as much as that of an open circuit, which is here for
// comparison.
func BenchmarkUnaryServerRefused(b *testing.B) {
	b.Run("gobreaker open", func(b *testing.B) {
		circuit := gobreaker.NewCircuitBreaker[any](gobreaker.Settings{
			Timeout: time.Hour, ReadyToTrip: func(gobreaker.Counts) bool { return true },
		})
		_, _ = circuit.Execute(func() (any, error) { return nil, context.Canceled })
		b.ReportAllocs()
		for b.Loop() {
			if _, err := circuit.Execute(func() (any, error) { return nil, nil }); err == nil {
				b.Fatal("got no error from an open circuit")
			}
		}
	})
	for _, c := range []struct {
		name  string
		queue admit.Option
		wait  int
	}{
		{"no queue", admit.WithoutQueue(), 0},
		{"queue full", admit.WithQueue(admit.QueueConfig{Capacity: 1, Policy: admit.Reject, MaxWait: 1 << 50}), 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := newGate(b, admit.WithLimit(fixed(1)), c.queue)
			fill(b, g)
			i, ctx := interceptors.UnaryServer(g), callContext(b)
			for range c.wait {
				waiting, cancel := context.WithCancel(ctx)
				gone := make(chan struct{})
				go func() { defer close(gone); _, _ = i(waiting, nil, workInfo, succeed) }()
				defer func() { cancel(); <-gone }()
			}
			for g.Stats().Queue < c.wait {
				runtime.Gosched()
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := i(ctx, nil, workInfo, succeed); err == nil {
					b.Fatal("got no error from a full gate")
				}
			}
		})
	}
}

// BenchmarkUnaryServerNeighbours is an admitted call where classes have shares and calls have
// tenants, so many of them.
func BenchmarkUnaryServerNeighbours(b *testing.B) {
	for _, tenants := range []int{1, 1000, 100_000} {
		b.Run(strconv.Itoa(tenants), func(b *testing.B) {
			names := make([]string, tenants)
			for i := range names {
				names[i] = "tenant-" + strconv.Itoa(i)
			}
			i := interceptors.UnaryServer(
				newGate(b, admit.WithLimit(fixed(1000)), admit.WithClassConfig(admit.Critical, admit.ClassConfig{Share: 0.5})),
				interceptors.WithClassFor(admit.Critical, interceptors.Methods(work)),
				interceptors.WithTenant(func(context.Context, interceptors.CallMeta) string { return names[rand.IntN(tenants)] }))
			b.ReportAllocs()
			b.ResetTimer() // making the names takes longer than the calls
			b.RunParallel(func(pb *testing.PB) {
				ctx := callContext(b)
				for pb.Next() {
					if _, err := i(ctx, nil, workInfo, succeed); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkCall is a whole call in memory: bare, with the server's interceptor,
// with both sides', and refused.
func BenchmarkCall(b *testing.B) {
	full := strict(b, 1)
	fill(b, full)
	for _, c := range []struct {
		name    string
		server  *admit.Gate
		client  *admit.Gate
		refused bool
	}{
		{"bare", nil, nil, false},
		{"server", newGate(b), nil, false},
		{"both", newGate(b), newGate(b), false},
		{"refused", full, nil, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			var server []grpc.ServerOption
			var client []grpc.DialOption
			if c.server != nil {
				server = unaryServers(interceptors.UnaryServer(c.server))
			}
			if c.client != nil {
				client = append(client, grpc.WithUnaryInterceptor(interceptors.UnaryClient(c.client)))
			}
			r, req := start(b, &service{}, server, client...), &demopb.WorkRequest{}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Work(b.Context(), req); (err != nil) != c.refused {
					b.Fatal(err)
				}
			}
		})
	}
}
