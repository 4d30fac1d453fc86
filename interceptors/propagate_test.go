package interceptors_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
)

// guarded are server options with a gate, for both kinds of calls.
func guarded(g *admit.Gate, opts ...interceptors.ServerOption) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(interceptors.UnaryServer(g, opts...)),
		grpc.ChainStreamInterceptor(interceptors.StreamServer(g, opts...)),
	}
}

func trustUpTo(c admit.Class) interceptors.ServerOption {
	return interceptors.WithPropagation(func(context.Context) (admit.Class, bool) { return c, true })
}

var propagating = []grpc.DialOption{
	grpc.WithChainUnaryInterceptor(interceptors.UnaryPropagation(0)),
	grpc.WithChainStreamInterceptor(interceptors.StreamPropagation(0)),
}

// asks is a service that calls another.
func asks(next *rig) *service {
	return does(func(ctx context.Context) error {
		_, err := next.Work(ctx, &demopb.WorkRequest{})
		return err
	})
}

// classOf makes one call to a server behind a full gate and returns the class as
// which it was refused.
func classOf(t *testing.T, ctx context.Context, opt interceptors.ServerOption, dial ...grpc.DialOption) (class string) {
	t.Helper()
	g := strict(t, 1)
	fill(t, g)
	if err := g.Update(admit.WithHooks(admit.Hooks{Refused: func(_ context.Context, c admit.Call, _ admit.Reason, _ time.Duration) {
		class = c.Class.String()
	}})); err != nil {
		t.Fatal(err)
	}
	r := start(t, &service{}, guarded(g, opt), dial...)
	_, err := r.Work(ctx, &demopb.WorkRequest{})
	wantCode(t, err, codes.Unavailable)
	return class
}

// A server believes what a call says of its class if it is told whom to trust, and not more.
func TestClassTravels(t *testing.T) {
	t.Parallel()
	trusting := func(highest admit.Class, ok bool) interceptors.ServerOption {
		return interceptors.WithPropagation(func(context.Context) (admit.Class, bool) { return highest, ok })
	}
	ctx := interceptors.ContextWithClass(t.Context(), admit.Critical)
	for _, c := range []struct {
		name, want string
		got        string
	}{
		{"trusted", "critical", classOf(t, ctx, trusting(admit.Critical, true), propagating...)},
		{"trusted up to sheddable", "sheddable", classOf(t, ctx, trusting(admit.Sheddable, true), propagating...)},
		{"not trusted", "default", classOf(t, ctx, trusting(admit.Critical, false), propagating...)},
		{"nobody is trusted", "default", classOf(t, ctx, interceptors.WithPropagation(nil), propagating...)},
		{"without the option", "default", classOf(t, ctx, interceptors.WithRetriesBelow(), propagating...)},
		{"from a client that does not say", "default", classOf(t, ctx, trusting(admit.Critical, true))},
		{"lower than what is trusted", "background", classOf(t,
			interceptors.ContextWithClass(t.Context(), admit.Background), trusting(admit.Critical, true), propagating...)},
	} {
		if c.got != c.want {
			t.Errorf("%s: got class %s, want %s", c.name, c.got, c.want)
		}
	}
}

// Whatever a caller writes by itself, one good name counts and everything else does not.
func TestSpoofedClass(t *testing.T) {
	t.Parallel()
	for _, values := range [][]string{
		{"CRITICAL"}, {"class(9)"}, {"class(200)"}, {""}, {"critical", "critical"}, {"critical,critical"}, {strings.Repeat("x", 5000)},
	} {
		ctx := t.Context()
		for _, v := range values {
			ctx = metadata.AppendToOutgoingContext(ctx, "weir-class", v)
		}
		if got := classOf(t, ctx, trustUpTo(admit.Critical)); got != "default" {
			t.Errorf("weir-class %.20q: got class %s, want default", values, got)
		}
	}
	// One's own metadata does not add up with what travels.
	ctx := metadata.AppendToOutgoingContext(t.Context(), "weir-class", "critical")
	if got := classOf(t, interceptors.ContextWithClass(ctx, admit.Sheddable), trustUpTo(admit.Critical), propagating...); got != "sheddable" {
		t.Errorf("got class %s, want sheddable", got)
	}
}

// A class goes on from hop to hop by the context of the handler alone.
func TestClassTravelsOn(t *testing.T) {
	t.Parallel()
	var got atomic.Value
	last := newGate(t, admit.WithHooks(admit.Hooks{}))
	third := start(t, does(func(ctx context.Context) error {
		md, _ := metadata.FromIncomingContext(ctx)
		got.Store(fmt.Sprint(md["weir-class"]))
		return nil
	}), guarded(last, trustUpTo(admit.Critical)), propagating...)
	second := start(t, asks(third), guarded(newGate(t), trustUpTo(admit.Critical)), propagating...)
	first := start(t, asks(second), guarded(newGate(t), trustUpTo(admit.Critical)), propagating...)
	if _, err := first.Work(interceptors.ContextWithClass(t.Context(), admit.Background), &demopb.WorkRequest{}); err != nil {
		t.Fatal(err)
	}
	if got.Load() != "[background]" {
		t.Errorf("class at the third service: got %v, want [background]", got.Load())
	}
}

// loop is two services: the first calls the second, which calls the first again for each
// level of depth.
func loop(t *testing.T, g *admit.Gate, opts ...interceptors.ServerOption) (first *rig) {
	t.Helper()
	var second *rig
	svc := &service{}
	first = start(t, svc, guarded(g, opts...), propagating...)
	second = start(t, does(func(ctx context.Context) error {
		_, err := first.Work(ctx, &demopb.WorkRequest{Name: "back"})
		return err
	}), guarded(newGate(t, admit.WithLimit(fixed(100))), opts...), propagating...)
	svc.OnWork = func(ctx context.Context, req *demopb.WorkRequest) (*demopb.WorkResponse, error) {
		if req.GetName() == "back" {
			return &demopb.WorkResponse{Message: "and back"}, nil
		}
		time.Sleep(time.Second) // until all permits are taken
		return second.Work(ctx, req)
	}
	return first
}

// A -> B -> A with every permit taken, by calls that all do so: without the option all wait
// for one another until they give up; with it all get through.
func TestNestedCallsAcrossProcesses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		opts []interceptors.ServerOption
		want codes.Code
	}{
		{"without propagation", nil, codes.Unavailable}, // the first; its permit lets others through
		{"with it", []interceptors.ServerOption{interceptors.WithPropagation(nil)}, codes.OK},
	} {
		synctest.Test(t, func(t *testing.T) {
			const permits = 5
			g := newGate(t, admit.WithLimit(fixed(permits)))
			first := loop(t, g, c.opts...)
			results := make(chan error, permits)
			for range permits {
				go func() {
					_, err := first.Work(t.Context(), &demopb.WorkRequest{})
					results <- err
				}()
			}
			for i := range permits {
				if err := <-results; (i == 0 || c.want == codes.OK) && status.Code(err) != c.want {
					t.Errorf("%s: got %v, want %v", c.name, err, c.want)
				}
			}
			atRest(t, g)
		})
	}
}

// A permit lets 8 calls come back at once, and all permits together as many as the limit;
// and none when it is released, or of somebody who guesses.
func TestComingBackIsBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ limit, held, callers, want int }{
		{20, 1, 12, 8}, // by the permit
		{3, 1, 12, 3},  // by the limit
		{10, 3, 24, 10},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, admit.WithLimit(fixed(c.limit)), admit.WithoutQueue())
			var inside, refused atomic.Int64
			proceed := make(chan struct{})
			var together sync.WaitGroup // those who hold a permit come first
			together.Add(c.held)
			svc := &service{}
			r := start(t, svc, guarded(g, interceptors.WithPropagation(nil)), propagating...)
			svc.OnWork = func(ctx context.Context, req *demopb.WorkRequest) (*demopb.WorkResponse, error) {
				if req.GetName() == "back" {
					inside.Add(1)
					<-proceed
					return &demopb.WorkResponse{}, nil
				}
				together.Done()
				together.Wait()
				var back sync.WaitGroup
				for range c.callers / c.held {
					back.Go(func() {
						if _, err := r.Work(ctx, &demopb.WorkRequest{Name: "back"}); err != nil {
							refused.Add(1)
						}
					})
				}
				back.Wait()
				return &demopb.WorkResponse{}, nil
			}
			fillers := make([]func(), c.limit-c.held)
			for i := range fillers {
				fillers[i] = hold(t, g)
			}
			var calls sync.WaitGroup
			for range c.held {
				calls.Go(func() { _, _ = r.Work(t.Context(), &demopb.WorkRequest{}) })
			}
			synctest.Wait()
			if got, no := int(inside.Load()), int(refused.Load()); got != c.want || no != c.callers-c.want {
				t.Errorf("limit %d, %d permits: got %d inside and %d refused, want %d and %d", c.limit, c.held, got, no, c.want, c.callers-c.want)
			}
			close(proceed)
			calls.Wait()
			for _, release := range fillers {
				release()
			}
			atRest(t, g)
		})
	}
}

func TestPassesEndWithTheirPermit(t *testing.T) {
	t.Parallel()
	g := strict(t, 1)
	var pass atomic.Value
	watch := start(t, does(func(ctx context.Context) error {
		pass.Store(metadata.ValueFromIncomingContext(ctx, "weir-permit"))
		return nil
	}), nil, propagating...)
	r := start(t, asks(watch), guarded(g, interceptors.WithPropagation(nil)))
	if _, err := r.Work(t.Context(), &demopb.WorkRequest{}); err != nil {
		t.Fatal(err)
	}
	stolen, _ := pass.Load().([]string)
	if len(stolen) != 1 {
		t.Fatalf("passes on the way: got %q, want one", stolen)
	}
	fill(t, g)
	for _, p := range []string{stolen[0], strings.Repeat("A", len(stolen[0])), ""} {
		_, err := r.Work(metadata.AppendToOutgoingContext(t.Context(), "weir-permit", p), &demopb.WorkRequest{})
		wantCode(t, err, codes.Unavailable)
	}
}

// The holder of the only permit is of a low class, and a critical call waits for it. What the
// holder asks of another service must not wait behind that one's ordinary calls.
func TestPriorityIsInherited(t *testing.T) {
	t.Parallel()
	for _, critical := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			behind := newGate(t, admit.WithLimit(fixed(1)), admit.WithQueue(admit.QueueConfig{MaxWait: time.Hour}))
			backend := start(t, works(time.Second), guarded(behind, trustUpTo(admit.Critical)), propagating...)
			ready := make(chan struct{})
			g := newGate(t, admit.WithLimit(fixed(1)), admit.WithQueue(admit.QueueConfig{MaxWait: time.Hour}))
			front := start(t, does(func(ctx context.Context) error {
				<-ready
				_, err := backend.Work(ctx, &demopb.WorkRequest{})
				return err
			}), guarded(g, trustUpTo(admit.Critical)), propagating...)

			var calls sync.WaitGroup
			var took time.Duration
			call := func(r *rig, class admit.Class, timed bool) {
				calls.Go(func() {
					begin := time.Now()
					if _, err := r.Work(interceptors.ContextWithClass(t.Context(), class), &demopb.WorkRequest{}); err != nil {
						t.Error(err)
					}
					if timed {
						took = time.Since(begin)
					}
				})
				synctest.Wait()
			}
			call(front, admit.Background, true)
			for range 10 {
				call(backend, admit.Default, false)
			}
			if critical {
				call(front, admit.Critical, false)
			}
			close(ready)
			calls.Wait()
			want := 11 * time.Second
			if critical {
				want = 2 * time.Second // after the one that runs
			}
			if took != want {
				t.Errorf("critical call waits: %v: the background call took %v, want %v", critical, took, want)
			}
		})
	}
}

const retrying = `{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.01s",
	"maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

// Three services in a row, all clients retry, and the last one always refuses: the one next to
// it tries four times, and nobody else. Without the advice it is 4 x 4 x 4.
func TestOnlyTheNextServiceRetries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		with bool
		want int64
	}{{"with the advice", true, 4}, {"without", false, 64}} {
		synctest.Test(t, func(t *testing.T) {
			var opts []interceptors.ServerOption
			dial := []grpc.DialOption{grpc.WithDefaultServiceConfig(retrying)}
			if c.with {
				opts, dial = append(opts, interceptors.WithPropagation(nil)), append(dial, propagating...)
			}
			var attempts atomic.Int64
			leaf := start(t, does(func(context.Context) error {
				attempts.Add(1)
				return status.Error(codes.Unavailable, "full")
			}), nil, dial...)
			second := start(t, asks(leaf), guarded(newGate(t), opts...), dial...)
			first := start(t, asks(second), guarded(newGate(t), opts...), dial...)
			_, err := first.Work(t.Context(), &demopb.WorkRequest{})
			wantCode(t, err, codes.Unavailable)
			if got := attempts.Load(); got != c.want {
				t.Errorf("%s: got %d attempts at the last service for one call, want %d", c.name, got, c.want)
			}
		})
	}
}

// A service that fails by itself is retried by its caller.
func TestOwnFailuresAreRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var attempts atomic.Int64
		r := start(t, does(func(context.Context) error {
			attempts.Add(1)
			return status.Error(codes.Unavailable, "the database is away")
		}), guarded(newGate(t), interceptors.WithPropagation(nil)), append(propagating, grpc.WithDefaultServiceConfig(retrying))...)
		_, err := r.Work(t.Context(), &demopb.WorkRequest{})
		wantCode(t, err, codes.Unavailable)
		if got := attempts.Load(); got != 4 {
			t.Errorf("got %d attempts, want 4", got)
		}
	})
}

// A second attempt is of the class below.
func TestRetriesBelow(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{"": "default", "1": "sheddable", "x": "default", "-1": "default", "99999999999": "default"} {
		ctx := t.Context()
		if header != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "x-attempts", header)
		}
		g := strict(t, 1)
		fill(t, g)
		class := ""
		if err := g.Update(admit.WithHooks(admit.Hooks{Refused: func(_ context.Context, c admit.Call, _ admit.Reason, _ time.Duration) { class = c.Class.String() }})); err != nil {
			t.Fatal(err)
		}
		// gRPC does not let a test write grpc- headers.
		rename := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			md = md.Copy()
			md["grpc-previous-rpc-attempts"] = md["x-attempts"]
			return h(metadata.NewIncomingContext(ctx, md), req)
		}
		r := start(t, &service{}, unaryServers(rename, interceptors.UnaryServer(g, interceptors.WithRetriesBelow())))
		_, err := r.Work(ctx, &demopb.WorkRequest{})
		wantCode(t, err, codes.Unavailable)
		if class != want {
			t.Errorf("grpc-previous-rpc-attempts %q: got class %s, want %s", header, class, want)
		}
	}
}

// Each hop leaves less of the deadline, and what cannot be done in time is not sent.
func TestDeadlinesShrink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dial := []grpc.DialOption{grpc.WithChainUnaryInterceptor(interceptors.UnaryPropagation(100 * time.Millisecond))}
		var left, calls atomic.Int64
		third := start(t, does(func(ctx context.Context) error {
			calls.Add(1)
			deadline, _ := ctx.Deadline()
			left.Store(int64(time.Until(deadline)))
			time.Sleep(200 * time.Millisecond)
			return nil
		}), nil, dial...)
		second := start(t, asks(third), nil, dial...)
		call := func(timeout time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			_, err := second.Work(ctx, &demopb.WorkRequest{})
			return err
		}
		err := call(time.Second)
		if got := time.Duration(left.Load()); err != nil || got < 790*time.Millisecond || got > 800*time.Millisecond {
			t.Errorf("after two hops: got %v of the deadline left and %v, want 800ms and no error", got, err)
		}
		begin := time.Now()
		err = call(350 * time.Millisecond) // 150 ms are left for what takes 200
		wantCode(t, err, codes.DeadlineExceeded)
		if took := time.Since(begin); calls.Load() != 1 || took != 0 {
			t.Errorf("a call that cannot be met: got it sent (%d calls) and an answer after %v, want neither", calls.Load(), took)
		}
		if !errors.Is(func() error { _, e := second.Work(expired(t), &demopb.WorkRequest{}); return e }(), admit.ErrRefused) {
			t.Error("a deadline that has passed: got no refusal, want one")
		}
		time.Sleep(21 * time.Second) // what was measured is forgotten
		if err := call(350 * time.Millisecond); status.Code(err) != codes.DeadlineExceeded || calls.Load() != 2 {
			t.Errorf("later: got %d calls and %v, want it tried again", calls.Load(), err)
		}
	})
}

type middlewareMeta = interceptors.CallMeta

func expired(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // less than the margin
	t.Cleanup(cancel)
	return ctx
}

// Streams carry the same, and hold a permit that calls can come back under.
func TestStreamsPropagate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admit.WithLimit(fixed(1)))
		svc := &service{}
		r := start(t, svc, guarded(g, interceptors.WithPropagation(nil)), propagating...)
		svc.OnExchange = func(s demopb.DemoService_ExchangeServer) error {
			_, err := r.Work(s.Context(), &demopb.WorkRequest{})
			return err
		}
		s, err := r.Exchange(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err == nil || status.Code(err) != codes.Unknown && err.Error() != "EOF" {
			t.Errorf("a stream whose handler calls back: got %v, want its end", err)
		}
		atRest(t, g)
	})
}

// A client's gate takes the class of the call for which a call is made.
func TestClientGatesKnowTheClass(t *testing.T) {
	t.Parallel()
	g := strict(t, 1)
	fill(t, g)
	class := ""
	if err := g.Update(admit.WithHooks(admit.Hooks{Refused: func(_ context.Context, c admit.Call, _ admit.Reason, _ time.Duration) { class = c.Class.String() }})); err != nil {
		t.Fatal(err)
	}
	err := interceptors.UnaryClient(g)(interceptors.ContextWithClass(t.Context(), admit.Critical), work, nil, nil, nil, nil)
	wantRefusal(t, err, admit.QueueFull, codes.ResourceExhausted)
	if class != "critical" {
		t.Errorf("got class %s, want critical", class)
	}
}

// Classes by name, tenants and costs reach the gate.
func TestWhatTheGateIsTold(t *testing.T) {
	t.Parallel()
	g := newGate(t, admit.WithLimit(fixed(10)), admit.WithClassConfig(admit.Critical, admit.ClassConfig{Share: 0.5}))
	var during admit.Stats
	r := start(t, does(func(context.Context) error { during = g.Stats(); return nil }), guarded(g,
		interceptors.WithClassFor(admit.Background, interceptors.Methods("/nothing.Like/This")),
		interceptors.WithClassFor(admit.Critical, interceptors.Methods("/weir.demo.v1.DemoService/")),
		interceptors.WithClassFor(admit.Sheddable, nil),
		interceptors.WithTenant(func(context.Context, middlewareMeta) string { return "acme" }),
		interceptors.WithCost(func(_ context.Context, c middlewareMeta) int {
			return len(c.ReqOrNil.(*demopb.WorkRequest).GetName())
		}),
	))
	if _, err := r.Work(t.Context(), &demopb.WorkRequest{Name: "four"}); err != nil {
		t.Fatal(err)
	}
	if during.InFlight != 4 || during.Held[admit.Critical] != 4 || during.Tenants != 1 {
		t.Errorf("got %d permits in use, %v by class, %d tenants; want 4, all of critical, 1", during.InFlight, during.Held, during.Tenants)
	}
	atRest(t, g)
}

// What a stranger sends as a pass is not sent on, or nothing could be sent with it.
func TestHostilePass(t *testing.T) {
	t.Parallel()
	var passes []string
	backend := start(t, does(func(ctx context.Context) error {
		passes = metadata.ValueFromIncomingContext(ctx, "weir-permit")
		return nil
	}), nil, propagating...)
	front := interceptors.UnaryServer(newGate(t), interceptors.WithPropagation(nil))
	for _, hostile := range []string{
		strings.Repeat("\xff", 26), strings.Repeat("\n", 26), strings.Repeat("a", 26), strings.Repeat("A", 27), "", strings.Repeat("A", 1<<20),
	} {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.MD{"weir-permit": {hostile}})
		_, err := front(ctx, nil, workInfo, func(ctx context.Context, _ any) (any, error) {
			return backend.Work(ctx, &demopb.WorkRequest{})
		})
		if err != nil || len(passes) != 1 || passes[0] == hostile {
			t.Errorf("after the pass %.30q: got %v and passes %q, want the one of the permit", hostile, err, passes)
		}
	}
}

// A call that goes through two gates comes back through both.
func TestComingBackThroughTwoGates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outer, inner := newGate(t, admit.WithLimit(fixed(1))), newGate(t, admit.WithLimit(fixed(1)))
		p := interceptors.WithPropagation(nil)
		svc := &service{}
		r := start(t, svc, unaryServers(interceptors.UnaryServer(outer, p), interceptors.UnaryServer(inner, p)), propagating...)
		svc.OnWork = func(ctx context.Context, req *demopb.WorkRequest) (*demopb.WorkResponse, error) {
			if req.GetName() == "back" {
				return &demopb.WorkResponse{}, nil
			}
			return r.Work(ctx, &demopb.WorkRequest{Name: "back"})
		}
		if _, err := r.Work(t.Context(), &demopb.WorkRequest{}); err != nil {
			t.Errorf("a call that comes back through two gates: got %v, want none", err)
		}
		atRest(t, outer)
		atRest(t, inner)
	})
}

// Twice around eight services, each with one permit; a ninth service would be one too many for
// the passes that travel.
func TestARingOfEight(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]codes.Code{8: codes.OK, 9: codes.Unavailable} {
		synctest.Test(t, func(t *testing.T) {
			rigs := make([]*rig, n)
			for i := range rigs {
				rigs[i] = start(t, does(func(ctx context.Context) error {
					step := len(metadata.ValueFromIncomingContext(ctx, "x-step"))
					if step == 2*n-1 {
						return nil
					}
					out := metadata.NewOutgoingContext(ctx, metadata.MD{"x-step": make([]string, step+1)})
					_, err := rigs[(i+1)%n].Work(out, &demopb.WorkRequest{})
					return err
				}), guarded(newGate(t, admit.WithLimit(fixed(1))), interceptors.WithPropagation(nil)), propagating...)
			}
			if _, err := rigs[0].Work(t.Context(), &demopb.WorkRequest{}); status.Code(err) != want {
				t.Errorf("twice around %d services: got %v, want %v", n, err, want)
			}
		})
	}
}

// A class that waits for itself does not make other calls urgent.
func TestInheritsNothingFromABoundedClass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		got := ""
		back := start(t, does(func(ctx context.Context) error {
			got = metadata.ValueFromIncomingContext(ctx, "weir-class")[0]
			return nil
		}), nil, propagating...)
		g := newGate(t, admit.WithLimit(fixed(8)), admit.WithClassConfig(admit.Critical, admit.ClassConfig{Max: 0.125}))
		p, err := g.Acquire(t.Context(), admit.Call{Class: admit.Critical})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = g.Acquire(ctx, admit.Call{Class: admit.Critical}) }() // waits for p; 7 are free
		synctest.Wait()
		front := start(t, asks(back), guarded(g, trustUpTo(admit.Critical)), propagating...)
		if _, err = front.Work(t.Context(), &demopb.WorkRequest{}); err != nil || got != "default" {
			t.Errorf("got %v, class %q, want default", err, got)
		}
		cancel()
		synctest.Wait()
		p.Release(admit.Ignored)
	})
}

// A call that failed and then succeeded is not why its caller fails.
func TestAdviceAfterASecondAttempt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, trailer, want string }{
		{"the last attempt succeeds", "", "[]"},
		{"the last attempt fails", "", "[-1]"},
		{"the last attempt fails", "25", "[25]"}, // the handler knows better
	} {
		attempts := 0
		bad := start(t, does(func(context.Context) error {
			if attempts++; attempts == 2 && c.name == "the last attempt succeeds" {
				return nil
			}
			return status.Error(codes.Unavailable, "away")
		}), nil, propagating...)
		r := start(t, does(func(ctx context.Context) error {
			for range 2 {
				_, _ = bad.Work(ctx, &demopb.WorkRequest{})
			}
			if c.trailer != "" {
				_ = grpc.SetTrailer(ctx, metadata.Pairs(pushback, c.trailer))
			}
			return status.Error(codes.Unavailable, "something else")
		}), guarded(newGate(t), interceptors.WithPropagation(nil)))
		var trailer metadata.MD
		_, err := r.Work(t.Context(), &demopb.WorkRequest{}, grpc.Trailer(&trailer))
		wantCode(t, err, codes.Unavailable)
		if got := fmt.Sprint(trailer[pushback]); got != c.want {
			t.Errorf("%s: got pushback %s, want %s", c.name, got, c.want)
		}
	}
}

// A failure that was not got over counts, whatever has been got over since.
func TestAdviceAfterOneOfTwoFailures(t *testing.T) {
	client := interceptors.UnaryPropagation(0)
	server := interceptors.UnaryServer(newGate(t), interceptors.WithPropagation(nil))
	for calls, want := range map[string][]string{
		"A!":           {"-1"},
		"A! B":         {"-1"},
		"A! B! B":      {"-1"},
		"A! B! B A":    nil,
		"A! B! A! B A": nil,
	} {
		sent := &callStream{}
		ctx := grpc.NewContextWithServerTransportStream(t.Context(), sent)
		_, err := server(ctx, nil, workInfo, func(ctx context.Context, _ any) (any, error) {
			for call := range strings.FieldsSeq(calls) {
				method, fails := strings.CutSuffix(call, "!")
				_ = client(ctx, "/s/"+method, nil, nil, nil, // the handler ends with an error in any case
					func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
						if fails {
							return status.Error(codes.Unavailable, "busy")
						}
						return nil
					})
			}
			return nil, status.Error(codes.Unavailable, "busy")
		})
		wantCode(t, err, codes.Unavailable)
		if got := sent.trailer["grpc-retry-pushback-ms"]; !slices.Equal(got, want) {
			t.Errorf("calls %q (! fails): got pushback %v, want %v", calls, got, want)
		}
	}
}

// Where no rule says otherwise a client's gate goes by the context.
func TestContextClassBesideRules(t *testing.T) {
	t.Parallel()
	g := strict(t, 1)
	fill(t, g)
	class := ""
	if err := g.Update(admit.WithHooks(admit.Hooks{Refused: func(_ context.Context, c admit.Call, _ admit.Reason, _ time.Duration) { class = c.Class.String() }})); err != nil {
		t.Fatal(err)
	}
	c := interceptors.UnaryClient(g, interceptors.WithClassFor(admit.Background, interceptors.Methods("/other.Service/")))
	ctx := interceptors.ContextWithClass(t.Context(), admit.Critical)
	for method, want := range map[string]string{work: "critical", "/other.Service/Do": "background"} {
		if _ = c(ctx, method, nil, nil, nil, nil); class != want {
			t.Errorf("%s: got class %s, want %s", method, class, want)
		}
	}
}

// How a stream ended is heard before its context is ended, so a breaker further in
// does not take the margin's end for a caller's.
func TestMarginHidesNoEnd(t *testing.T) {
	for _, margin := range []time.Duration{0, time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			b := newBreaker(t, breaker.Config{})
			svc := &service{OnExchange: func(demopb.DemoService_ExchangeServer) error {
				return status.Error(codes.DeadlineExceeded, "my database did not answer")
			}}
			r := start(t, svc, nil, standBack(t, interceptors.ClientConfig{
				Breaker: b, Propagate: true, DeadlineMargin: margin,
			})...)
			for range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				s, err := r.Exchange(ctx)
				if err == nil {
					_, err = s.Recv()
				}
				wantCode(t, err, codes.DeadlineExceeded)
				cancel()
			}
			wantState(t, b, breaker.Open)
		})
	}
}

// An interceptor that does not return leaves no timer behind.
func TestMarginEndsWithItsOpening(t *testing.T) {
	for name, leave := range map[string]func(){"panic": func() { panic("x") }, "Goexit": runtime.Goexit} {
		var inside context.Context
		aside(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			t.Cleanup(cancel)
			_, _ = interceptors.StreamPropagation(time.Second)(ctx, &grpc.StreamDesc{}, nil, work,
				func(ctx context.Context, _ *grpc.StreamDesc, _ *grpc.ClientConn, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
					inside = ctx
					leave()
					return nil, nil
				})
		})
		if inside.Err() == nil {
			t.Errorf("%s: the context of the call goes on, want it cancelled", name)
		}
	}
}

// What a call waited for the client's own limit is not what the server takes: when the
// wait is over, calls with enough time for the server are sent.
func TestShortestTimeIsWithoutWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := interceptors.ClientConfig{
			Propagate: true,
			Gate:      newGate(t, admit.WithLimit(fixed(4)), admit.WithQueue(admit.QueueConfig{Policy: admit.Block, Capacity: 1000})),
		}
		r := start(t, works(10*time.Millisecond), nil, standBack(t, c)...)
		busy, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		var batch sync.WaitGroup
		for range 400 { // each waits for a second, all the time
			batch.Go(func() {
				for busy.Err() == nil {
					_, _ = r.Work(t.Context(), &demopb.WorkRequest{})
				}
			})
		}
		batch.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, err := r.Work(ctx, &demopb.WorkRequest{}); err != nil {
			t.Errorf("a call with 500 ms for a server that takes 10: got %v, want no error", err)
		}
		late, cancel := context.WithTimeout(t.Context(), 9*time.Millisecond)
		defer cancel()
		if _, err := r.Work(late, &demopb.WorkRequest{}); status.Convert(err).Message() != "weir: this client did not send the call: its deadline is too close" {
			t.Errorf("a call with 9 ms: got %v, want it not sent", err)
		}
	})
}
