package interceptors_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
)

// sides starts svc with a gate that never refuses, once on the server and once in the
// client.
func sides(t *testing.T, svc *service, f func(t *testing.T, r *rig, g *admit.Gate)) {
	t.Helper()
	for _, side := range []string{"server", "client"} {
		t.Run(side, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, admit.WithLimit(fixed(10_000)))
				var server []grpc.ServerOption
				var dial []grpc.DialOption
				if side == "server" {
					server = unaryServers(interceptors.UnaryServer(g))
				} else {
					dial = append(dial, grpc.WithUnaryInterceptor(interceptors.UnaryClient(g)))
				}
				f(t, start(t, svc, server, dial...), g)
			})
		})
	}
}

// asDeadline has a service end its calls with DEADLINE_EXCEEDED when their context does.
// A server may hear of the caller's end, which is CANCELED, a moment before the deadline.
func asDeadline(svc *service) *service {
	return &service{OnWork: func(ctx context.Context, req *demopb.WorkRequest) (*demopb.WorkResponse, error) {
		resp, err := svc.OnWork(ctx, req)
		if ctx.Err() != nil {
			err = status.Error(codes.DeadlineExceeded, "")
		}
		return resp, err
	}}
}

// Deadlines that could not be met are no overload, whatever the method takes.
func TestOutcomeOfDeadlinesTooShort(t *testing.T) {
	ms := time.Millisecond
	patient := client{Period: 10 * ms, Gives: always(2 * time.Second), Patient: true}
	for name, c := range map[string]struct {
		svc       *service
		impatient client
		most      uint64 // overloads
	}{
		"10 ms for a method of 20 ms":    {works(20 * ms), client{Period: 10 * ms, Gives: always(10 * ms)}, 0},
		"19 ms for a method of 20 ms":    {works(20 * ms), client{Period: 2 * ms, Gives: always(19 * ms)}, 0},
		"2 ms for a method of 20 ms":     {works(20 * ms), client{Period: 1 * ms, Gives: always(2 * ms)}, 0},
		"240 ms for a method of 500 ms":  {works(500 * ms), client{Period: 10 * ms, Gives: always(240 * ms)}, 5},
		"25 ms for an exponential 20 ms": {exponential(20 * ms), client{Period: 10 * ms, Gives: always(25 * ms)}, 80},
	} {
		t.Run(name, func(t *testing.T) {
			sides(t, asDeadline(c.svc), func(t *testing.T, r *rig, g *admit.Gate) {
				callers(t, r.DemoServiceClient, 8*time.Second, patient, c.impatient)
				synctest.Wait()
				if got := g.Stats().Ended; got[admit.Overload] > c.most || got[admit.Success] < 790 {
					t.Errorf("ended (ignored, success, overload): got %v, want at most %d overloads", got, c.most)
				}
			})
		})
	}
}

// Deadlines that used to be met, or that nothing ever met, are overloads.
func TestOutcomeOfLateCalls(t *testing.T) {
	ms := time.Millisecond
	for name, c := range map[string]struct {
		before  time.Duration // for how long calls take 20 ms
		slow    time.Duration // what they take then
		callers []client
	}{
		"ten times slower":           {3 * time.Second, 200 * ms, []client{{Period: 10 * ms, Gives: always(100 * ms)}}},
		"three times slower":         {3 * time.Second, 60 * ms, []client{{Period: 10 * ms, Gives: always(50 * ms)}}},
		"hangs, little time":         {3 * time.Second, time.Hour, []client{{Period: 10 * ms, Gives: always(30 * ms)}}},
		"hangs among the impatient":  {3 * time.Second, time.Hour, []client{{Period: 10 * ms, Gives: always(100 * ms)}, {Period: 20 * ms, Gives: always(5 * ms)}}},
		"never answers":              {0, time.Hour, []client{{Period: 10 * ms, Gives: always(100 * ms)}}},
		"is too slow from the start": {0, 300 * ms, []client{{Period: 10 * ms, Gives: always(100 * ms)}}},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Time{}
			svc := &service{OnWork: func(ctx context.Context, req *demopb.WorkRequest) (*demopb.WorkResponse, error) {
				if time.Since(began) < c.before {
					return works(20*ms).OnWork(ctx, req)
				}
				return works(c.slow).OnWork(ctx, req)
			}}
			sides(t, asDeadline(svc), func(t *testing.T, r *rig, g *admit.Gate) {
				began = time.Now()
				callers(t, r.DemoServiceClient, c.before+2*time.Second, c.callers...)
				synctest.Wait()
				if got := g.Stats().Ended[admit.Overload]; got < 150 {
					t.Errorf("overloads of 200 late calls: got %d, want at least 150 (%v)", got, g.Stats().Ended)
				}
			})
		})
	}
}

// What a RESOURCE_EXHAUSTED means depends on who says it.
func TestOutcomeOfResourceExhausted(t *testing.T) {
	t.Parallel()
	says := func(domain, reason string) error { return detailed(codes.ResourceExhausted, domain, reason) }
	for name, c := range map[string]struct {
		err  error
		want admit.Outcome
	}{
		"a quota":                {status.Error(codes.ResourceExhausted, "quota"), admit.Ignored},
		"of another domain":      {says("example.com", "QUEUE_FULL"), admit.Ignored},
		"a tenant's share":       {says("weir", "OVER_SHARE"), admit.Ignored},
		"a reason to come":       {says("weir", "OVER_QUOTA"), admit.Ignored},
		"a queue that was full":  {says("weir", "QUEUE_FULL"), admit.Overload},
		"evicted":                {says("weir", "EVICTED"), admit.Overload},
		"waited too long":        {says("weir", "WAITED_TOO_LONG"), admit.Overload},
		"draining":               {says("weir", "DRAINING"), admit.Overload},
		"a tap":                  {status.Error(codes.ResourceExhausted, `weir: the server is full (gate "far")`), admit.Overload},
		"a tap that drains":      {status.Error(codes.ResourceExhausted, `weir: the server is shutting down (gate "far")`), admit.Overload},
		"a tap, a share":         {status.Error(codes.ResourceExhausted, `weir: the caller's share of the server is used up (gate "far")`), admit.Ignored},
		"too large":              {status.Error(codes.ResourceExhausted, "grpc: received message larger than max (2 vs. 1)"), admit.Ignored},
		"wrapped by the handler": {fmt.Errorf("orders: %w", status.Error(codes.ResourceExhausted, "quota")), admit.Ignored},
	} {
		g := newGate(t)
		_, _ = interceptors.UnaryServer(g)(t.Context(), nil, workInfo, func(context.Context, any) (any, error) { return nil, c.err })
		_ = interceptors.UnaryClient(g)(t.Context(), work, nil, nil, nil,
			func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return c.err })
		var want [3]uint64
		want[c.want] = 2
		if got := g.Stats().Ended; got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

// A call that found no connection was none too many for the server.
func TestOutcomeWithoutAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		gone := errors.New("nobody listens")
		r := start(t, &service{}, nil, grpc.WithUnaryInterceptor(interceptors.UnaryClient(g)),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return nil, gone }))
		for range 10 {
			_, err := r.Work(t.Context(), &demopb.WorkRequest{})
			wantCode(t, err, codes.Unavailable)
		}
		atRest(t, g, 10, 0, 0)
	})
}

// An admitted call allocates nothing, whether the gate learns from it or not.
func TestOutcomeAllocatesNothing(t *testing.T) {
	g := newGate(t)
	call := interceptors.UnaryServer(g)
	ctx := t.Context()
	for range 1000 {
		_, _ = call(ctx, nil, workInfo, succeed)
	}
	if n := testing.AllocsPerRun(2000, func() { _, _ = call(ctx, nil, workInfo, succeed) }); n != 0 {
		t.Errorf("allocations: got %v, want 0", n)
	}
}
