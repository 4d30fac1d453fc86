package interceptors_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
)

// chain builds what grpc.ChainUnaryInterceptor does.
func chain(h grpc.UnaryHandler, is ...grpc.UnaryServerInterceptor) grpc.UnaryHandler {
	for _, i := range slices.Backward(is) {
		next := h
		h = func(ctx context.Context, req any) (any, error) { return i(ctx, req, workInfo, next) }
	}
	return h
}

// The same gate in a chain twice or three times, in two values or in one: each
// call takes one permit, from the very first on and with a limit of one, in
// every kind of interceptor.
func TestSameGateTwice(t *testing.T) {
	for _, c := range []struct {
		name    string
		install func(g *admit.Gate) ([]grpc.ServerOption, []grpc.DialOption)
	}{
		{"unary server, two values", func(g *admit.Gate) ([]grpc.ServerOption, []grpc.DialOption) {
			return unaryServers(interceptors.UnaryServer(g), interceptors.UnaryServer(g)), nil
		}},
		{"unary server, one value", func(g *admit.Gate) ([]grpc.ServerOption, []grpc.DialOption) {
			i := interceptors.UnaryServer(g)
			return unaryServers(i, i, i), nil
		}},
		{"stream server, two values", func(g *admit.Gate) ([]grpc.ServerOption, []grpc.DialOption) {
			return []grpc.ServerOption{grpc.ChainStreamInterceptor(interceptors.StreamServer(g), interceptors.StreamServer(g))}, nil
		}},
		{"stream server, one value", func(g *admit.Gate) ([]grpc.ServerOption, []grpc.DialOption) {
			i := interceptors.StreamServer(g)
			return []grpc.ServerOption{grpc.ChainStreamInterceptor(i, i, i)}, nil
		}},
		{"unary client, two values", func(g *admit.Gate) ([]grpc.ServerOption, []grpc.DialOption) {
			return nil, []grpc.DialOption{grpc.WithChainUnaryInterceptor(interceptors.UnaryClient(g), interceptors.UnaryClient(g))}
		}},
		{"unary client, one value", func(g *admit.Gate) ([]grpc.ServerOption, []grpc.DialOption) {
			i := interceptors.UnaryClient(g)
			return nil, []grpc.DialOption{grpc.WithChainUnaryInterceptor(i, i, i)}
		}},
		{"stream client, two values", func(g *admit.Gate) ([]grpc.ServerOption, []grpc.DialOption) {
			return nil, []grpc.DialOption{grpc.WithChainStreamInterceptor(interceptors.StreamClient(g), interceptors.StreamClient(g))}
		}},
		{"stream client, one value", func(g *admit.Gate) ([]grpc.ServerOption, []grpc.DialOption) {
			i := interceptors.StreamClient(g)
			return nil, []grpc.DialOption{grpc.WithChainStreamInterceptor(i, i, i)}
		}},
		{"all", func(g *admit.Gate) ([]grpc.ServerOption, []grpc.DialOption) {
			u, s := interceptors.UnaryServer(g), interceptors.StreamServer(g)
			return []grpc.ServerOption{
				grpc.ChainUnaryInterceptor(u, interceptors.UnaryServer(g), u),
				grpc.ChainStreamInterceptor(s, interceptors.StreamServer(g), s),
			}, nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, admit.WithLimit(fixed(1)))
				var most int
				look := func() { most = max(most, g.Stats().InFlight) }
				server, client := c.install(g)
				r := start(t, &service{
					OnWork: func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) {
						look()
						time.Sleep(time.Millisecond)
						return &demopb.WorkResponse{}, nil
					},
					OnExchange: func(demopb.DemoService_ExchangeServer) error { look(); return nil },
				}, server, client...)
				for range 3 {
					if _, err := r.Work(t.Context(), &demopb.WorkRequest{}); err != nil {
						t.Error("unary:", err)
					}
					if err := drainStream(t.Context(), r); err != nil {
						t.Error("stream:", err)
					}
				}
				if most != 1 {
					t.Errorf("permits of one call: got %d, want 1", most)
				}
				synctest.Wait()
				atRest(t, g)
				ended := g.Stats().Ended
				if got := ended[admit.Ignored] + ended[admit.Success]; got != 3 && c.name != "all" || ended[admit.Overload] != 0 {
					t.Errorf("ended: got %v, want 3 calls in all", ended)
				}
			})
		})
	}
}

// Many first calls at once: none may be counted as standing alone before one of
// them has been all the way through.
func TestSameGateTwiceFirstCallsTogether(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, admit.WithLimit(fixed(1)), admit.WithQueue(admit.QueueConfig{Policy: admit.Block}))
			i := interceptors.UnaryServer(g)
			call := chain(func(context.Context, any) (any, error) { time.Sleep(time.Millisecond); return nil, nil }, i, i)
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					if _, err := call(t.Context(), nil); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			atRest(t, g, 0, 100, 0)
		})
	}
}

// A chain that was cut short, or that failed, has proven nothing.
func TestSameGateTwiceAfterFailures(t *testing.T) {
	t.Parallel()
	fail := errors.New("not you")
	for kind, call := range map[string]func(*admit.Gate) func(known bool) error{
		"server": func(g *admit.Gate) func(bool) error {
			i := interceptors.UnaryServer(g)
			return func(known bool) error {
				_, err := chain(succeed, i, func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
					if !known {
						return nil, fail
					}
					return h(ctx, req)
				}, i)(t.Context(), nil)
				return err
			}
		},
		"client": func(g *admit.Gate) func(bool) error {
			i := interceptors.UnaryClient(g)
			return func(known bool) error {
				return i(t.Context(), work, nil, nil, nil, func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
					if !known {
						return fail
					}
					return i(ctx, work, nil, nil, nil, invokeNothing)
				})
			}
		},
	} {
		g := strict(t, 1)
		call := call(g)
		for range 100 {
			if err := call(false); !errors.Is(err, fail) {
				t.Fatalf("%s: got %v, want %v", kind, err, fail)
			}
		}
		for n := range 5000 {
			if err := call(true); err != nil {
				t.Fatalf("%s: call %d: got %v, want nil", kind, n, err)
			}
		}
		atRest(t, g, 100, 5000, 0)
	}
}

func invokeNothing(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
	return nil
}

// A curious is a context that counts how often it was searched.
type curious struct {
	context.Context
	searched *int
}

func (c curious) Value(key any) any { *c.searched++; return c.Context.Value(key) }

// Once an interceptor is known to stand alone, calls pass without a search
// through their context, but for those that are marked now and then.
func TestAloneIsCheap(t *testing.T) {
	t.Parallel()
	i, searched := interceptors.UnaryServer(newGate(t)), 0
	for range 10_000 {
		if _, err := i(curious{t.Context(), &searched}, nil, workInfo, succeed); err != nil {
			t.Fatal(err)
		}
	}
	if searched > 100 {
		t.Errorf("searches in 10,000 calls: got %d, want next to none", searched)
	}
}

// A gate that stood alone for long gets a second interceptor in its chain.
func TestSameGateTwiceLater(t *testing.T) {
	t.Parallel()
	g := strict(t, 1)
	i := interceptors.UnaryServer(g)
	alone := chain(succeed, i)
	calls := func(h grpc.UnaryHandler, n int) (refused int) {
		for range n {
			if _, err := h(t.Context(), nil); err != nil {
				refused++
			}
		}
		return refused
	}
	if got := calls(alone, 10_000); got != 0 {
		t.Fatalf("alone: got %d refused, want 0", got)
	}
	// The same value, twice: nothing tells but the calls that are marked now
	// and then. (1 - 1/1024) ^ 100,000 is below 1e-42.
	twice := chain(succeed, i, i)
	if got := calls(twice, 100_000); got == 100_000 {
		t.Error("one value twice: got all calls refused, want this to end")
	}
	if got := calls(twice, 10_000); got != 0 {
		t.Errorf("one value twice, once it was seen: got %d refused, want 0", got)
	}

	g = strict(t, 1)
	i = interceptors.UnaryServer(g)
	calls(chain(succeed, i), 10_000)
	if got := calls(chain(succeed, i, interceptors.UnaryServer(g)), 10_000); got != 0 {
		t.Errorf("a second value: got %d refused, want 0", got)
	}
}

// The mark ends with the call: what a handler left behind takes its own permit.
func TestMarkEndsWithCall(t *testing.T) {
	t.Parallel()
	g := strict(t, 1)
	outer, inner := interceptors.UnaryServer(g), interceptors.UnaryServer(g)
	var left context.Context
	keep := func(ctx context.Context, _ any) (any, error) { left = ctx; return nil, nil }
	if _, err := outer(t.Context(), nil, workInfo, keep); err != nil {
		t.Fatal(err)
	}
	fill(t, g)
	_, err := inner(left, nil, workInfo, succeed)
	wantCode(t, err, codes.Unavailable)
}

// A call that a handler makes through a client with the gate of its own server
// would wait for itself.
func TestGateOfBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := strict(t, 1)
		back := start(t, &service{}, nil, grpc.WithUnaryInterceptor(interceptors.UnaryClient(g)),
			grpc.WithStreamInterceptor(interceptors.StreamClient(g)))
		front := start(t, &service{
			OnWork: func(ctx context.Context, req *demopb.WorkRequest) (*demopb.WorkResponse, error) {
				return back.Work(ctx, req)
			},
			OnExchange: func(s demopb.DemoService_ExchangeServer) error {
				ctx, cancel := context.WithCancel(s.Context())
				defer cancel()
				_, err := back.Exchange(ctx)
				return err
			},
		}, []grpc.ServerOption{
			grpc.UnaryInterceptor(interceptors.UnaryServer(g)),
			grpc.StreamInterceptor(interceptors.StreamServer(g)),
		})
		if _, err := front.Work(t.Context(), &demopb.WorkRequest{}); err != nil {
			t.Error("unary:", err)
		}
		if err := drainStream(t.Context(), front); err != nil {
			t.Error("stream:", err)
		}
		synctest.Wait()
		atRest(t, g, 1, 1, 0)
	})
}

// Two gates in a chain are two permits, and a call beside a stream is another call.
func TestMarksOfOthers(t *testing.T) {
	t.Parallel()
	one, two := newGate(t), newGate(t)
	interceptors.UnaryServer(two) // another, so that all of them look out for marks
	seen := func(context.Context, any) (any, error) {
		if a, b := one.Stats().InFlight, two.Stats().InFlight; a != 1 || b != 1 {
			t.Errorf("in flight: got %d and %d, want 1 and 1", a, b)
		}
		return nil, nil
	}
	if _, err := chain(seen, interceptors.UnaryServer(one), interceptors.UnaryServer(two))(t.Context(), nil); err != nil {
		t.Fatal(err)
	}

	g := strict(t, 1)
	interceptors.UnaryClient(g) // as above
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stream context.Context
	_, err := interceptors.StreamClient(g)(ctx, &grpc.StreamDesc{ServerStreams: true}, nil, work,
		func(ctx context.Context, _ *grpc.StreamDesc, _ *grpc.ClientConn, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
			stream = ctx
			return nil, nil
		})
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, interceptors.UnaryClient(g)(stream, work, nil, nil, nil, nil), codes.ResourceExhausted)
}

// What gates share is forgotten with them.
func TestFamiliesAreForgotten(t *testing.T) {
	for range 1000 {
		interceptors.UnaryServer(newGate(t))
	}
	for range 100 {
		runtime.GC()
		if interceptors.Families() < 500 {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("families of 1000 gates that are gone: got %d, want most of them gone", interceptors.Families())
}
