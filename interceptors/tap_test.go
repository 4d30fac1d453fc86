package interceptors_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/retry"
)

func tapInfo(method string) *tap.Info { return &tap.Info{FullMethodName: method} }

// A full or draining gate turns calls away before anything else sees them.
func TestTap(t *testing.T) {
	g := newGate(t, admit.WithLimit(fixed(1)), admit.WithoutQueue())
	reached := 0
	r := start(t, &service{}, append(unaryServers(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		reached++
		return h(ctx, req)
	}, interceptors.UnaryServer(g)), grpc.InTapHandle(interceptors.Tap(g))))
	call := func(want codes.Code) {
		t.Helper()
		var trailer metadata.MD
		_, err := r.Work(t.Context(), &demopb.WorkRequest{}, grpc.Trailer(&trailer))
		wantCode(t, err, want)
		if len(trailer[pushback]) != 0 {
			t.Errorf("trailer: got %v, want none from a tap", trailer)
		}
	}
	call(codes.OK)
	release := hold(t, g)
	call(codes.Unavailable)
	release()
	call(codes.OK)
	g.Drain()
	call(codes.Unavailable)
	if reached != 2 {
		t.Errorf("calls that reached the interceptors: got %d, want 2", reached)
	}
	s := g.Stats()
	if got, want := s.Refused, ([admit.MaxClasses][admit.NumReasons]uint64{{admit.QueueFull: 1, admit.Draining: 1}}); got != want {
		t.Errorf("refused: got %v, want %v: what the tap turns away counts", got, want)
	}
	atRest(t, g, 1, 2, 0)
}

// The tap runs in the connection's reader: it may not wait, even where the gate
// would let the call wait, nor may a panic get out of it.
func TestTapNeverWaits(t *testing.T) {
	for name, q := range map[string]admit.QueueConfig{
		"room in the queue": {Capacity: 100, MaxWait: time.Hour},
		"block":             {Policy: admit.Block},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, admit.WithLimit(fixed(1)), admit.WithQueue(q))
				fill(t, g)
				began := time.Now()
				ctx, err := interceptors.Tap(g)(t.Context(), tapInfo(work))
				if ctx != t.Context() || err != nil || time.Since(began) != 0 {
					t.Errorf("got %v after %v, want the same context and nil at once", err, time.Since(began))
				}
			})
		})
	}
	full := strict(t, 1)
	fill(t, full)
	for name, o := range map[string]interceptors.ServerOption{
		"matcher panics":    interceptors.WithMatcher(interceptors.MatchFunc(func(context.Context, interceptors.CallMeta) bool { panic("boom") })),
		"classifier panics": interceptors.WithClassifier(func(context.Context, interceptors.CallMeta) admit.Class { panic("boom") }),
	} {
		if _, err := interceptors.Tap(full, o)(t.Context(), tapInfo(work)); err != nil {
			t.Errorf("%s: got %v, want nil: the interceptors decide", name, err)
		}
	}
}

// Why Tap makes a status: gRPC takes a plain error for a lack of permission.
func TestTapPlainError(t *testing.T) {
	r := start(t, &service{}, []grpc.ServerOption{grpc.InTapHandle(func(ctx context.Context, _ *tap.Info) (context.Context, error) {
		return ctx, errors.New("full")
	})})
	_, err := r.Work(t.Context(), &demopb.WorkRequest{})
	wantCode(t, err, codes.PermissionDenied)
}

// A call that would take another's place is not turned away, whatever its class.
func TestTapKnowsClasses(t *testing.T) {
	const checkout = admit.Class(4)
	for _, c := range []struct {
		class, waits admit.Class
		option       admit.Option
		want         codes.Code
	}{
		{checkout, admit.Background, nil, codes.OK},
		{admit.Default, admit.Background, nil, codes.OK},
		{admit.Background, admit.Background, nil, codes.Unavailable},
		{admit.Background, admit.Default, nil, codes.Unavailable},
		{admit.Critical, checkout, nil, codes.Unavailable},
		{admit.Background, admit.Critical, admit.WithClassConfig(admit.Background, admit.ClassConfig{Share: 1}), codes.OK},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, admit.WithLimit(fixed(1)), admit.WithQueue(admit.QueueConfig{Capacity: 1, Policy: admit.Reject}),
				admit.WithClassConfig(checkout, admit.ClassConfig{Name: "checkout", Priority: 1000}))
			if c.option != nil {
				if err := g.Update(c.option); err != nil {
					t.Fatal(err)
				}
			}
			hold(t, g)
			ctx, cancel := context.WithCancel(t.Context())
			go func() { _, _ = g.Acquire(ctx, admit.Call{Class: c.waits}) }()
			synctest.Wait()
			_, err := interceptors.Tap(g, interceptors.WithClassFor(c.class, nil))(t.Context(), tapInfo(work))
			if got := status.Code(err); got != c.want {
				t.Errorf("a call of class %v while one of %v waits: got %v, want %v", c.class, c.waits, got, c.want)
			}
			cancel()
			synctest.Wait()
		})
	}
}

// Who is over its share is told so by the tap, too.
func TestTapOverShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admit.WithLimit(fixed(1)), admit.WithQueue(admit.QueueConfig{Capacity: 4, Policy: admit.Reject}))
		hold(t, g)
		ctx, cancel := context.WithCancel(t.Context())
		for _, tenant := range []string{"greedy", "greedy", "greedy", "polite"} {
			go func() { _, _ = g.Acquire(ctx, admit.Call{Tenant: tenant}) }()
		}
		synctest.Wait()
		for tenant, want := range map[string]codes.Code{"greedy": codes.ResourceExhausted, "polite": codes.OK} {
			h := interceptors.Tap(g, interceptors.WithTenant(func(context.Context, interceptors.CallMeta) string { return tenant }))
			_, err := h(t.Context(), tapInfo(work))
			wantCode(t, err, want)
		}
		cancel()
		synctest.Wait()
	})
}

// A breaker knows a tap's refusals, though they say little, for what they are; also
// when gRPC's retries are used up.
func TestTapRefusalsOpenNoCircuit(t *testing.T) {
	for _, retry := range []*retry.Config{nil, {BudgetTokens: 1000}} {
		synctest.Test(t, func(t *testing.T) {
			g := strict(t, 1)
			fill(t, g)
			b := newBreaker(t, breaker.Config{})
			server, err := interceptors.Server(interceptors.ServerConfig{Gate: g, Tap: true})
			if err != nil {
				t.Fatal(err)
			}
			r := start(t, &service{}, server, standBack(t, interceptors.ClientConfig{Breaker: b, Retry: retry})...)
			for range 50 {
				_, err := r.Work(t.Context(), &demopb.WorkRequest{})
				if retry == nil || !errors.Is(err, io.EOF) { // with retries gRPC sometimes forgets the status
					wantCode(t, err, codes.Unavailable)
				}
			}
			if s := circuit(t, b); s.State != breaker.Closed || s.Failed != 0 || s.Allowed != 50 {
				t.Errorf("retries %v: got %+v, want it closed, 50 allowed, none failed", retry != nil, s)
			}
		})
	}
}
