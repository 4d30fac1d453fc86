package interceptors_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
)

const pushback = "grpc-retry-pushback-ms"

// refusing holds, for each reason, a way to a gate that refuses the next call
// for it. They are used in a bubble.
var refusing = []struct {
	why      admit.Reason
	gate     func(*testing.T) *admit.Gate
	deadline time.Duration
}{
	{why: admit.QueueFull, gate: func(t *testing.T) *admit.Gate {
		g := strict(t, 1)
		fill(t, g)
		return g
	}},
	{why: admit.Evicted, gate: func(t *testing.T) *admit.Gate {
		g := newGate(t, admit.WithLimit(fixed(1)), admit.WithQueue(admit.QueueConfig{Capacity: 1, MaxWait: time.Hour}))
		fill(t, g)
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		go func() { // a more important call takes its place
			time.Sleep(time.Second)
			_, _ = g.Acquire(ctx, admit.Call{Class: admit.Critical})
		}()
		return g
	}},
	{why: admit.OverShare, gate: func(t *testing.T) *admit.Gate {
		g := newGate(t, admit.WithLimit(fixed(1)), admit.WithQueue(admit.QueueConfig{Capacity: 3, Policy: admit.Reject, MaxWait: time.Hour}))
		fill(t, g)
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		for _, tenant := range []string{"another", "", ""} { // calls without a tenant are together one
			go func() { _, _ = g.Acquire(ctx, admit.Call{Tenant: tenant}) }()
		}
		time.Sleep(time.Millisecond)
		return g
	}},
	{why: admit.OverQuota, gate: func(t *testing.T) *admit.Gate {
		rate := admit.Rate{PerSecond: 2, Burst: 1}
		g := newGate(t, admit.WithQuotas(admit.QuotaConfig{Classes: map[admit.Class]admit.Rate{admit.Default: rate}}))
		hold(t, g)
		return g
	}},
	{why: admit.TooManyOpen, gate: func(t *testing.T) *admit.Gate {
		g := newGate(t, admit.WithMaxOpen(1))
		hold(t, g)
		return g
	}},
	{why: admit.MemoryPressure, gate: under("memory")},
	{why: admit.GCPressure, gate: under("gc")},
	{why: admit.ProcessorPressure, gate: under("processors")},
	{why: admit.UnderPressure, gate: under("pool")},
	{why: admit.WaitedTooLong, gate: func(t *testing.T) *admit.Gate {
		g := newGate(t, admit.WithLimit(fixed(1)), admit.WithQueue(admit.QueueConfig{MaxWait: time.Second}))
		fill(t, g)
		return g
	}},
	{why: admit.DeadlineTooClose, deadline: 500 * time.Millisecond, gate: func(t *testing.T) *admit.Gate {
		g := newGate(t, admit.WithLimit(fixed(1)), admit.WithQueue(admit.QueueConfig{MaxWait: time.Hour}))
		for range 20 { // calls take a second, it learns
			p, err := g.Acquire(context.Background(), admit.Call{})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			p.Release(admit.Success)
		}
		fill(t, g)
		return g
	}},
	{why: admit.Draining, gate: func(t *testing.T) *admit.Gate {
		g := newGate(t)
		g.Drain()
		return g
	}},
}

// details returns the ErrorInfo and RetryInfo of an error.
func details(t *testing.T, err error) (info *errdetails.ErrorInfo, retry *errdetails.RetryInfo) {
	t.Helper()
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		default:
			t.Errorf("detail: got a %T, want an ErrorInfo and a RetryInfo only", d)
		}
	}
	if info == nil || retry == nil {
		t.Fatalf("details of %v: got %v and %v, want an ErrorInfo and a RetryInfo", err, info, retry)
	}
	return info, retry
}

// wantRefusal checks what a caller sees.
func wantRefusal(t *testing.T, err error, why admit.Reason, code codes.Code) time.Duration {
	t.Helper()
	wantCode(t, err, code)
	info, retry := details(t, err)
	wantMeta := map[string]string{"gate": "default"}
	if want := strings.ToUpper(why.String()); info.GetReason() != want || info.GetDomain() != "weir" || !maps.Equal(info.GetMetadata(), wantMeta) {
		t.Errorf("ErrorInfo: got %v, want reason %s, domain weir and %v", info, want, wantMeta)
	}
	delay := retry.GetRetryDelay().AsDuration()
	if delay < 10*time.Millisecond || delay > time.Second {
		t.Errorf("RetryInfo: got %v, want 10ms to 1s", delay)
	}
	return delay
}

func wantPushback(t *testing.T, trailer metadata.MD, delay time.Duration) {
	t.Helper()
	want := []string{strconv.FormatInt(delay.Milliseconds(), 10)}
	if got := trailer[pushback]; !slices.Equal(got, want) {
		t.Errorf("trailer %s: got %q, want %q, the delay of RetryInfo", pushback, got, want)
	}
}

func TestServerRefuses(t *testing.T) {
	for _, c := range refusing {
		wantPushback := wantPushback
		if c.deadline > 0 { // the delay may be longer than that
			wantPushback = func(t *testing.T, trailer metadata.MD, _ time.Duration) {
				t.Helper()
				if got := trailer[pushback]; !slices.Equal(got, []string{"-1"}) {
					t.Errorf("trailer %s: got %q, want -1: the deadline comes first", pushback, got)
				}
			}
		}
		t.Run(c.why.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var unary, stream error // as interceptors further out see them
				g, want := c.gate(t), codes.Unavailable
				if c.why == admit.OverShare || c.why == admit.OverQuota || c.why == admit.TooManyOpen {
					want = codes.ResourceExhausted
				}
				r := start(t, &service{}, []grpc.ServerOption{
					grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (_ any, err error) {
						_, err = h(ctx, req)
						unary = err
						return nil, err
					}, interceptors.UnaryServer(g)),
					grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
						stream = h(srv, ss)
						return stream
					}, interceptors.StreamServer(g)),
				})
				ctx := t.Context()
				if c.deadline > 0 {
					var cancel func()
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				var trailer metadata.MD
				_, err := r.Work(ctx, &demopb.WorkRequest{}, grpc.Trailer(&trailer))
				wantPushback(t, trailer, wantRefusal(t, err, c.why, want))
				wantCause(t, unary, c.why)

				if c.why == admit.Evicted {
					return // its newcomer has come
				}
				s, err := r.Exchange(ctx)
				if err != nil {
					t.Fatal(err)
				}
				_, err = s.Recv()
				wantPushback(t, s.Trailer(), wantRefusal(t, err, c.why, want))
				wantCause(t, stream, c.why)
			})
		})
	}
}

// wantCause checks what the refusing process sees.
func wantCause(t *testing.T, err error, why admit.Reason) {
	t.Helper()
	var r *admit.Refusal
	if !errors.Is(err, admit.ErrRefused) || !errors.As(err, &r) || r.Reason != why {
		t.Errorf("got %v (%T), want one that wraps a refusal for %v", err, err, why)
	}
	if got, want := err.Error(), status.Convert(err).Err().Error(); got != want {
		t.Errorf("text: got %q, want %q, as of any status", got, want)
	}
}

func TestClientRefuses(t *testing.T) {
	for _, c := range refusing {
		t.Run(c.why.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				want := codes.ResourceExhausted
				if c.why == admit.Draining {
					want = codes.Unavailable
				}
				called := false
				r := start(t, &service{OnWork: func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) {
					called = true
					return nil, nil
				}}, nil, grpc.WithUnaryInterceptor(interceptors.UnaryClient(c.gate(t))),
					grpc.WithStreamInterceptor(interceptors.StreamClient(c.gate(t))))
				ctx := t.Context()
				if c.deadline > 0 {
					var cancel func()
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				if c.why != admit.Evicted { // the newcomer is for one call
					_, err := r.Work(ctx, &demopb.WorkRequest{})
					wantRefusal(t, err, c.why, want)
					wantCause(t, err, c.why)
				}
				_, err := r.Exchange(ctx)
				wantRefusal(t, err, c.why, want)
				wantCause(t, err, c.why)
				if called {
					t.Error("got a call at the server, want none: it was refused")
				}
			})
		})
	}
}

func TestWithCode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ set, want codes.Code }{
		{codes.ResourceExhausted, codes.ResourceExhausted},
		{codes.Aborted, codes.Aborted},
		{codes.Unauthenticated, codes.Unauthenticated},
		{codes.OK, codes.Unknown},
		{17, codes.Unknown},
		{1 << 31, codes.Unknown},
	} {
		g := strict(t, 1)
		fill(t, g)
		with := interceptors.WithCode(admit.QueueFull, c.set)
		other := interceptors.WithCode(admit.Evicted, codes.Internal)
		beyond := interceptors.WithCode(200, codes.Internal)

		_, err := interceptors.UnaryServer(g, with, other, beyond)(t.Context(), nil, workInfo, succeed)
		wantRefusal(t, err, admit.QueueFull, c.want)
		err = interceptors.UnaryClient(g, with, other, beyond)(t.Context(), work, nil, nil, nil, nil)
		wantRefusal(t, err, admit.QueueFull, c.want)
		_, err = interceptors.Tap(g, with, other, beyond)(t.Context(), tapInfo(work))
		wantCode(t, err, c.want)
	}
}

// Every reason there is has a code, and none is OK.
func TestEveryReasonHasACode(t *testing.T) {
	for _, c := range refusing {
		if c.why > admit.UnderPressure {
			t.Errorf("%v comes after UnderPressure, the last that has a code", c.why)
		}
	}
	if next := (admit.UnderPressure + 1).String(); !strings.HasPrefix(next, "reason(") {
		t.Errorf("reason %s: got no code and no test for it, want both", next)
	}
	if len(refusing) != int(admit.UnderPressure)+1 {
		t.Errorf("got tests for %d reasons, want %d", len(refusing), admit.UnderPressure+1)
	}
}

// A refusal must be cheaper than what it refuses: it is built once.
func TestRefusalsAreShared(t *testing.T) {
	t.Parallel()
	g := strict(t, 1)
	fill(t, g)
	one, two := interceptors.UnaryServer(g), interceptors.UnaryServer(g, interceptors.WithCode(admit.QueueFull, codes.Aborted))
	seen := map[*admit.Refusal]map[codes.Code]error{}
	for range 10_000 {
		for _, i := range []grpc.UnaryServerInterceptor{one, two} {
			_, err := i(t.Context(), nil, workInfo, succeed)
			var r *admit.Refusal
			if !errors.As(err, &r) {
				t.Fatalf("got %v, want a refusal", err)
			}
			code := status.Code(err)
			if seen[r] == nil {
				seen[r] = map[codes.Code]error{}
			}
			if before := seen[r][code]; before != nil && before != err {
				t.Fatalf("got two errors for %p and %v, want one", r, code)
			}
			seen[r][code] = err
		}
	}
	for r, errs := range seen {
		if len(errs) != 2 || errs[codes.Unavailable] == nil || errs[codes.Aborted] == nil {
			t.Errorf("codes of %v: got %v, want UNAVAILABLE and ABORTED", r, errs)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	full := strict(t, 1)
	fill(t, full)
	ctx := grpc.NewContextWithServerTransportStream(t.Context(), &quietStream{})
	for _, c := range []struct {
		name string
		gate *admit.Gate
		want error
	}{{"admitted", newGate(t), nil}, {"refused", full, admit.ErrRefused}} {
		i := interceptors.UnaryServer(c.gate)
		call := func() {
			if _, err := i(ctx, nil, workInfo, succeed); !errors.Is(err, c.want) {
				t.Errorf("%s: got %v, want %v", c.name, err, c.want)
			}
		}
		for range 1000 { // the refusals of all delays are built
			call()
		}
		if got := testing.AllocsPerRun(2000, call); got != 0 {
			t.Errorf("%s: got %v allocations a call, want 0", c.name, got)
		}
	}
}

// A second value would forbid the client to retry.
func TestOnePushback(t *testing.T) {
	t.Parallel()
	full := strict(t, 1)
	fill(t, full)
	i := interceptors.UnaryServer(full)

	t.Run("set by somebody further out", func(t *testing.T) {
		s := &callStream{}
		ctx := grpc.NewContextWithServerTransportStream(t.Context(), s)
		if err := grpc.SetTrailer(ctx, metadata.Pairs(pushback, "7")); err != nil {
			t.Fatal(err)
		}
		_, err := i(ctx, nil, workInfo, succeed)
		wantRefusal(t, err, admit.QueueFull, codes.Unavailable)
		wantPushback(t, s.trailer, 7*time.Millisecond)
	})
	t.Run("refused twice in one call", func(t *testing.T) {
		s := &callStream{}
		ctx := grpc.NewContextWithServerTransportStream(t.Context(), s)
		_, err := interceptors.UnaryServer(newGate(t))(ctx, nil, workInfo, func(ctx context.Context, req any) (any, error) {
			for range 10 {
				_, _ = i(ctx, nil, workInfo, succeed)
			}
			return i(ctx, nil, workInfo, succeed)
		})
		wantRefusal(t, err, admit.QueueFull, codes.Unavailable)
		if got := s.trailer[pushback]; len(got) != 1 {
			t.Errorf("trailer %s: got %q, want one value", pushback, got)
		}
	})
	t.Run("on a stream", func(t *testing.T) {
		s := &callStream{}
		ss := &serverStream{ctx: grpc.NewContextWithServerTransportStream(t.Context(), s)}
		info := &grpc.StreamServerInfo{FullMethod: demopb.DemoService_Exchange_FullMethodName}
		stream := interceptors.StreamServer(full)
		err := stream(nil, ss, info, nil)
		wantPushback(t, ss.trailer, wantRefusal(t, err, admit.QueueFull, codes.Unavailable))
		s.trailer, ss.trailer = ss.trailer, nil
		_ = stream(nil, ss, info, nil)
		if len(ss.trailer) != 0 {
			t.Errorf("trailer: got %v on top of %v, want nothing", ss.trailer, s.trailer)
		}
	})
	t.Run("without a call", func(t *testing.T) {
		_, err := i(t.Context(), nil, workInfo, succeed)
		wantRefusal(t, err, admit.QueueFull, codes.Unavailable)
	})
}

// The shared trailer must come to no harm from what is added to a call's.
func TestSharedTrailerStays(t *testing.T) {
	g := newGate(t)
	g.Drain()
	r := start(t, &service{}, unaryServers(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		resp, err := h(ctx, req)
		return resp, errors.Join(err, grpc.SetTrailer(ctx, metadata.Pairs("other", "x")))
	}, interceptors.UnaryServer(g)))
	for range 300 {
		var trailer metadata.MD
		_, err := r.Work(t.Context(), &demopb.WorkRequest{}, grpc.Trailer(&trailer))
		wantCode(t, err, codes.Unavailable)
		if len(trailer[pushback]) != 1 || len(trailer["other"]) != 1 {
			t.Fatalf("trailer: got %v, want one value of each", trailer)
		}
	}
}

func TestNilGate(t *testing.T) {
	t.Parallel()
	_, err := interceptors.UnaryServer(nil)(t.Context(), nil, workInfo, succeed)
	wantCode(t, err, codes.Internal)
	wantCode(t, interceptors.StreamServer(nil)(nil, nil, nil, nil), codes.Internal)
	wantCode(t, interceptors.UnaryClient(nil)(t.Context(), work, nil, nil, nil, nil), codes.Internal)
	_, err = interceptors.StreamClient(nil)(t.Context(), nil, nil, work, nil)
	wantCode(t, err, codes.Internal)
}
