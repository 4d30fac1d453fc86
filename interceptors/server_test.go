package interceptors_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
)

func TestOutcome(t *testing.T) {
	t.Parallel()
	full := strict(t, 1)
	fill(t, full)
	inner, client := interceptors.UnaryServer(full), interceptors.UnaryClient(full)
	_, refusal := full.Acquire(t.Context(), admit.Call{})
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	ofInner := func(ctx context.Context) error { _, err := inner(ctx, nil, workInfo, succeed); return err }
	ofClient := client(t.Context(), work, nil, nil, nil, nil)

	cases := []struct {
		name string
		err  error
		want admit.Outcome
	}{
		{"nil", nil, admit.Success},
		{"context's deadline", context.DeadlineExceeded, admit.Overload},
		{"wrapped deadline", fmt.Errorf("db: %w", context.DeadlineExceeded), admit.Overload},
		{"context canceled", context.Canceled, admit.Ignored},
		{"plain", errors.New("plain"), admit.Ignored},
		{"wrapped status", fmt.Errorf("db: %w", status.Error(codes.Unavailable, "")), admit.Overload},
		{"refused further in", ofInner(t.Context()), admit.Ignored},
		{"refused further in, wrapped", fmt.Errorf("handler: %w", ofInner(t.Context())), admit.Ignored},
		{"ended in the queue further in", ofInner(late), admit.Ignored},
		{"ended in the queue further in, wrapped", fmt.Errorf("handler: %w", ofInner(late)), admit.Ignored},
		{"refused by a client", ofClient, admit.Ignored},
		{"a bare refusal", fmt.Errorf("own gate: %w", refusal), admit.Ignored},
		{"refused by another process", status.FromProto(status.Convert(ofInner(t.Context())).Proto()).Err(), admit.Overload},
	}
	for c := codes.Canceled; c <= codes.Unauthenticated; c++ {
		want := admit.Ignored
		if slices.Contains([]codes.Code{codes.DeadlineExceeded, codes.Unavailable}, c) {
			want = admit.Overload
		}
		cases = append(cases, struct {
			name string
			err  error
			want admit.Outcome
		}{c.String(), status.Error(c, ""), want})
	}
	for _, c := range cases {
		var want [3]uint64
		want[c.want] = 1
		g := newGate(t)
		_, err := interceptors.UnaryServer(g)(t.Context(), nil, workInfo, func(context.Context, any) (any, error) { return nil, c.err })
		if err != c.err {
			t.Errorf("%s: got %v, want the handler's error %v as it is", c.name, err, c.err)
		}
		if got := g.Stats().Ended; got != want {
			t.Errorf("%s on the server: got %v, want %v", c.name, got, c.want)
		}
		g = newGate(t)
		err = interceptors.UnaryClient(g)(t.Context(), work, nil, nil, nil,
			func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return c.err })
		if err != c.err {
			t.Errorf("%s: got %v, want the invoker's error %v as it is", c.name, err, c.err)
		}
		if got := g.Stats().Ended; got != want {
			t.Errorf("%s on the client: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestWithOutcome(t *testing.T) {
	t.Parallel()
	full := strict(t, 1)
	fill(t, full)
	g := newGate(t)
	var told []error
	i := interceptors.UnaryServer(g, interceptors.WithOutcome(func(err error) admit.Outcome {
		told = append(told, err)
		return admit.Overload
	}))
	fail := errors.New("plain")
	for _, h := range []grpc.UnaryHandler{
		succeed,
		func(context.Context, any) (any, error) { return nil, fail },
		chain(succeed, interceptors.UnaryServer(full)), // refused: never an outcome
		func(ctx context.Context, _ any) (any, error) { // the same, without an interceptor
			_, err := full.Acquire(ctx, admit.Call{})
			return nil, err
		},
	} {
		_, _ = i(t.Context(), nil, workInfo, h)
	}
	if !slices.Equal(told, []error{nil, fail}) {
		t.Errorf("told: got %v, want [nil %v]", told, fail)
	}
	atRest(t, g, 2, 0, 2)
}

// Whatever ends a call, and however, its permit comes free and the limit learns
// nothing. Nothing is taken before a matcher or a classifier has spoken.
func TestPanicsAndGoexit(t *testing.T) {
	t.Parallel()
	explode := func() { panic("boom") }
	for name, end := range map[string]func(){"panic": explode, "goexit": runtime.Goexit} {
		for _, c := range []struct {
			where   string
			option  interceptors.Option
			handler func(context.Context, any) (any, error)
			ignored uint64
			unary   bool // no use of it on streams
		}{
			{where: "handler", ignored: 1, handler: func(context.Context, any) (any, error) { end(); return nil, nil }},
			{
				where: "outcome", ignored: 1, unary: true, handler: succeed,
				option: interceptors.WithOutcome(func(error) admit.Outcome { end(); return admit.Success }),
			},
			{
				where: "matcher", handler: succeed,
				option: interceptors.WithMatcher(interceptors.MatchFunc(func(context.Context, interceptors.CallMeta) bool { end(); return true })),
			},
			{
				where: "classifier", handler: succeed,
				option: interceptors.WithClassifier(func(context.Context, interceptors.CallMeta) admit.Class { end(); return admit.Default }),
			},
		} {
			option := c.option
			if option == nil {
				option = interceptors.WithMatcher(nil)
			}
			for kind, call := range map[string]func(*admit.Gate){
				"unary server": func(g *admit.Gate) {
					_, _ = interceptors.UnaryServer(g, option)(t.Context(), nil, workInfo, c.handler)
				},
				"stream server": func(g *admit.Gate) {
					_ = interceptors.StreamServer(g, option)(nil, &serverStream{ctx: t.Context()}, &grpc.StreamServerInfo{FullMethod: work},
						func(any, grpc.ServerStream) error { _, err := c.handler(t.Context(), nil); return err })
				},
				"unary client": func(g *admit.Gate) {
					_ = interceptors.UnaryClient(g, option)(t.Context(), work, nil, nil, nil,
						func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
							_, err := c.handler(t.Context(), nil)
							return err
						})
				},
				"stream client": func(g *admit.Gate) {
					_, _ = interceptors.StreamClient(g, option)(t.Context(), &grpc.StreamDesc{}, nil, work,
						func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption) (grpc.ClientStream, error) {
							_, err := c.handler(t.Context(), nil)
							return nil, err
						})
				},
			} {
				if c.unary && (kind == "stream server" || kind == "stream client") {
					continue
				}
				g, ended, back := strict(t, 2), make(chan any), false
				go func() {
					defer func() { ended <- recover() }()
					call(g)
					back = true
				}()
				if got := <-ended; back || (got != nil) != (name == "panic") {
					t.Errorf("%s in the %s, %s: got %v (returned: %t), want it to go on", name, c.where, kind, got, back)
				}
				atRest(t, g, c.ignored, 0, 0)
			}
		}
	}
}

// A stream whose handler ends badly after k messages, over a real connection.
func TestStreamEndsBadly(t *testing.T) {
	for name, end := range map[string]func(){"panic": func() { panic("boom") }, "goexit": runtime.Goexit} {
		for _, k := range []int{0, 1, 5} {
			t.Run(fmt.Sprintf("%s after %d", name, k), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g := strict(t, 1)
					r := start(t, &service{OnExchange: func(s demopb.DemoService_ExchangeServer) error {
						for range k {
							if _, err := s.Recv(); err != nil {
								return err
							}
						}
						if got := g.Stats().InFlight; got != 1 {
							t.Errorf("in flight: got %d, want 1", got)
						}
						end()
						return nil
					}}, []grpc.ServerOption{grpc.ChainStreamInterceptor(
						recovery.StreamServerInterceptor(recovery.WithRecoveryHandler(func(any) error { return status.Error(codes.Internal, "") })),
						interceptors.StreamServer(g))})
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // nobody answers after Goexit
					defer cancel()
					s, err := r.Exchange(ctx)
					if err != nil {
						t.Fatal(err)
					}
					for range k {
						if err := s.Send(&demopb.ExchangeRequest{}); err != nil {
							t.Fatal(err)
						}
					}
					synctest.Wait()
					atRest(t, g, 1, 0, 0)
					want := codes.Internal
					if name == "goexit" {
						want = codes.DeadlineExceeded
					}
					_, err = s.Recv()
					wantCode(t, err, want)
				})
			})
		}
	}
}

func TestExemptions(t *testing.T) {
	t.Parallel()
	g := strict(t, 1)
	fill(t, g)
	for _, c := range []struct {
		method string
		exempt bool
	}{
		{"/grpc.health.v1.Health/Check", true},
		{"/grpc.health.v1.Health/Watch", true},
		{"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", true},
		{"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", true},
		{"/grpc.channelz.v1.Channelz/GetServers", true},
		{"/weir.debug.v1.DebugService/GetSnapshot", true},
		{"/weir.debug.v1.DebugServices/GetSnapshot", false},
		{"/weir.debug.v2.DebugService/GetSnapshot", false},
		{"/grpc.health.v1.Healthy/Check", false},
		{"/grpc.health.v2.Health/Check", false},
		{"/grpc.testing.TestService/UnaryCall", false},
		{"/my.grpc.health.v1.Health/Check", false},
		{"grpc.health.v1.Health/Check", false},
		{"/grpc.", false},
		{"", false},
		{work, false},
	} {
		for _, all := range []bool{false, true} {
			var opts []interceptors.ServerOption
			if all {
				opts = append(opts, interceptors.WithoutExemptions())
			}
			want := codes.Unavailable
			if c.exempt && !all {
				want = codes.OK
			}
			_, err := interceptors.UnaryServer(g, opts...)(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: c.method}, succeed)
			wantCode(t, err, want)
			wantCode(t, interceptors.StreamServer(g, opts...)(nil, &serverStream{ctx: t.Context()}, &grpc.StreamServerInfo{FullMethod: c.method},
				func(any, grpc.ServerStream) error { return nil }), want)
			_, err = interceptors.Tap(g, opts...)(t.Context(), tapInfo(c.method))
			wantCode(t, err, want)
		}
		// There is nothing special about them for a client.
		err := interceptors.UnaryClient(g)(t.Context(), c.method, nil, nil, nil, nil)
		wantCode(t, err, codes.ResourceExhausted)
	}
}

// A full server still says that it is healthy.
func TestHealthOfFullServer(t *testing.T) {
	g := strict(t, 1)
	fill(t, g)
	r := start(t, &service{}, append(unaryServers(interceptors.UnaryServer(g)), grpc.InTapHandle(interceptors.Tap(g))))
	resp, err := healthpb.NewHealthClient(r.Conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: got %v and %v, want SERVING", resp, err)
	}
	_, err = r.Work(t.Context(), &demopb.WorkRequest{})
	wantCode(t, err, codes.Unavailable)
}

func TestMatcherAndClassifier(t *testing.T) {
	t.Parallel()
	type seen = interceptors.CallMeta
	var matched, classified []seen
	g := strict(t, 1)
	fill(t, g)
	opts := []interceptors.Option{
		interceptors.WithMatcher(interceptors.MatchFunc(func(_ context.Context, c interceptors.CallMeta) bool {
			matched = append(matched, c)
			return c.Method == "Work"
		})),
		interceptors.WithClassifier(func(_ context.Context, c interceptors.CallMeta) admit.Class {
			classified = append(classified, c)
			return admit.Sheddable
		}),
	}
	var server []interceptors.ServerOption
	var client []interceptors.ClientOption
	for _, o := range opts {
		server, client = append(server, o), append(client, o)
	}
	const other = "/weir.demo.v1.DemoService/Other"
	invoke := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil }
	streamer := func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption) (grpc.ClientStream, error) {
		return nil, nil
	}
	handler := func(any, grpc.ServerStream) error { return nil }
	for _, method := range []string{work, other} {
		want, own := codes.Unavailable, codes.ResourceExhausted
		if method == other {
			want, own = codes.OK, codes.OK
		}
		_, err := interceptors.UnaryServer(g, server...)(t.Context(), "req", &grpc.UnaryServerInfo{FullMethod: method}, succeed)
		wantCode(t, err, want)
		err = interceptors.StreamServer(g, server...)(nil, &serverStream{ctx: t.Context()},
			&grpc.StreamServerInfo{FullMethod: method, IsServerStream: true}, handler)
		wantCode(t, err, want)
		_, err = interceptors.Tap(g, server...)(t.Context(), tapInfo(method))
		wantCode(t, err, want)
		wantCode(t, interceptors.UnaryClient(g, client...)(t.Context(), method, "req", nil, nil, invoke), own)
		_, err = interceptors.StreamClient(g, client...)(t.Context(), &grpc.StreamDesc{ClientStreams: true}, nil, method, streamer)
		wantCode(t, err, own)
	}
	of := func(method string) []seen {
		const service = "weir.demo.v1.DemoService"
		return []seen{
			{ReqOrNil: "req", Typ: middleware.Unary, Service: service, Method: method},
			{Typ: middleware.ServerStream, Service: service, Method: method},
			{Typ: middleware.Unary, Service: service, Method: method},
			{ReqOrNil: "req", Typ: middleware.Unary, Service: service, Method: method, IsClient: true},
			{Typ: middleware.ClientStream, Service: service, Method: method, IsClient: true},
		}
	}
	if want := append(of("Work"), of("Other")...); !slices.Equal(matched, want) {
		t.Errorf("matcher: got\n%+v, want\n%+v", matched, want)
	}
	if want := of("Work"); !slices.Equal(classified, want) {
		t.Errorf("classifier: got\n%+v, want\n%+v", classified, want)
	}
	if got := g.Stats().Refused[admit.Sheddable][admit.QueueFull]; got != 5 {
		t.Errorf("refused as sheddable, the one that the tap turned away included: got %d, want 5", got)
	}
}

// A waiting critical call takes the place of a waiting sheddable one.
func TestClassDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admit.WithLimit(fixed(1)), admit.WithQueue(admit.QueueConfig{Capacity: 1, Policy: admit.Reject, MaxWait: time.Hour}))
		r := start(t, works(time.Second), unaryServers(interceptors.UnaryServer(g,
			interceptors.WithClassifier(func(_ context.Context, c interceptors.CallMeta) admit.Class {
				if c.ReqOrNil.(*demopb.WorkRequest).GetName() == "critical" {
					return admit.Critical
				}
				return admit.Sheddable
			}))))
		errs := map[string]chan error{}
		for _, name := range []string{"running", "sheddable", "critical"} {
			ended := make(chan error, 1)
			errs[name] = ended
			go func() {
				_, err := r.Work(t.Context(), &demopb.WorkRequest{Name: name})
				ended <- err
			}()
			synctest.Wait()
		}
		wantCode(t, <-errs["running"], codes.OK)
		wantCode(t, <-errs["critical"], codes.OK)
		wantRefusal(t, <-errs["sheddable"], admit.Evicted, codes.Unavailable)
	})
}

// GracefulStop waits for whoever waits, unless the gate is drained before.
func TestGracefulStop(t *testing.T) {
	for _, c := range []struct {
		drain bool
		took  time.Duration
	}{{false, 30 * time.Second}, {true, time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, admit.WithLimit(fixed(1)), admit.WithQueue(admit.QueueConfig{MaxWait: time.Hour}))
			r := start(t, works(time.Second), unaryServers(interceptors.UnaryServer(g)))
			var refused atomic.Int64
			for range 30 {
				go func() {
					if _, err := r.Work(t.Context(), &demopb.WorkRequest{}); err != nil {
						wantRefusal(t, err, admit.Draining, codes.Unavailable)
						refused.Add(1)
					}
				}()
			}
			synctest.Wait()
			began := time.Now()
			if c.drain {
				g.Drain()
			}
			r.Server.GracefulStop()
			if got := time.Since(began); got != c.took {
				t.Errorf("GracefulStop (drain: %t): got %v, want %v", c.drain, got, c.took)
			}
			synctest.Wait()
			if got, want := refused.Load(), map[bool]int64{false: 0, true: 29}[c.drain]; got != want {
				t.Errorf("refused (drain: %t): got %d, want %d", c.drain, got, want)
			}
			atRest(t, g)
		})
	}
}

// Stop cancels whoever waits.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admit.WithLimit(fixed(1)), admit.WithQueue(admit.QueueConfig{MaxWait: time.Hour}))
		r := start(t, works(time.Hour), []grpc.ServerOption{
			grpc.UnaryInterceptor(interceptors.UnaryServer(g)), grpc.StreamInterceptor(interceptors.StreamServer(g)),
		})
		ended := make(chan error)
		for n := range 20 {
			go func() {
				if n%2 == 0 {
					_, err := r.Work(t.Context(), &demopb.WorkRequest{})
					ended <- err
					return
				}
				ended <- drainStream(t.Context(), r)
			}()
		}
		synctest.Wait()
		if s := g.Stats(); s.InFlight != 1 || s.Queue != 19 {
			t.Fatalf("before: got %d in flight and %d queued, want 1 and 19", s.InFlight, s.Queue)
		}
		began := time.Now()
		r.Server.Stop()
		if got := time.Since(began); got != 0 {
			t.Errorf("Stop: got %v, want at once", got)
		}
		synctest.Wait()
		atRest(t, g)
		// A waiter may get the permit of one that was cancelled a moment before itself.
		s := g.Stats()
		if ran := s.Ended[admit.Ignored] + s.Ended[admit.Overload]; s.Left+ran != 20 || ran == 0 || s.Waited+1 != ran {
			t.Errorf("got %d that left, %d that ran, %d of them after a wait, want 20 in all, and all but one that ran to have waited", s.Left, ran, s.Waited)
		}
		for range 20 {
			wantCode(t, <-ended, codes.Unavailable)
		}
	})
}

// Names that callers make up are never kept.
func TestMadeUpMethods(t *testing.T) {
	g := newGate(t)
	stream := interceptors.StreamServer(g, interceptors.WithMatcher(interceptors.MatchFunc(func(context.Context, interceptors.CallMeta) bool { return true })))
	full := strict(t, 1)
	fill(t, full)
	refused, early := interceptors.StreamServer(full), interceptors.Tap(full)
	ss, handler := &serverStream{ctx: t.Context()}, func(any, grpc.ServerStream) error { return nil }
	call := func(n int) {
		method := "/made.up/" + strconv.Itoa(n)
		switch n % 3 {
		case 0:
			if err := stream(nil, ss, &grpc.StreamServerInfo{FullMethod: method}, handler); err != nil {
				t.Fatal(err)
			}
		case 1:
			wantCode(t, refused(nil, ss, &grpc.StreamServerInfo{FullMethod: method}, handler), codes.Unavailable)
		case 2:
			_, err := early(t.Context(), tapInfo(method))
			wantCode(t, err, codes.Unavailable)
		}
		ss.trailer = nil
	}
	for n := range 10_000 {
		call(n)
	}
	before := heap()
	for n := range 1_000_000 {
		call(n)
	}
	if got := int64(heap()) - int64(before); got > 1<<20 {
		t.Errorf("heap after a million names: got %d bytes more, want less than 1 MiB", got)
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
