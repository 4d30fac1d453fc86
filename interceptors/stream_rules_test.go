package interceptors_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/gates"
	"github.com/weir-go/weir/interceptors/memory"
	"github.com/weir-go/weir/internal/grpctest"
)

// A watch takes a second to be set up. Then it calls ready, and sends a message each minute until
// its client leaves.
func watch(ready func(context.Context)) func(grpc.ServerStream) error {
	return func(stream grpc.ServerStream) error {
		time.Sleep(time.Second)
		ready(stream.Context())
		for {
			if err := stream.SendMsg(&wrapperspb.BytesValue{}); err != nil {
				return err
			}
			select {
			case <-time.After(time.Minute):
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
		}
	}
}

func notReady(context.Context) {}

func wantStats(t testing.TB, g *admit.Gate, inFlight, ready int, ended ...uint64) {
	t.Helper()
	s := g.Stats()
	if s.InFlight != inFlight || s.Ready != ready || s.Ended != [3]uint64(ended) {
		t.Errorf("in flight, ready, ended (ignored, success, overload): got %d, %d, %v; want %d, %d, %v",
			s.InFlight, s.Ready, s.Ended, inFlight, ready, ended)
	}
}

// A permit is for the set-up of a stream, however its end is known. The limit learns how long the
// set-up took, where that is known, and the number of open streams has a bound of its own.
func TestStreamRules(t *testing.T) {
	setup := interceptors.WithStreams
	for name, c := range map[string]struct {
		opts    []interceptors.ServerOption
		ready   func(context.Context)
		success uint64 // for each stream
		took    float64
	}{
		"StreamReady":              {nil, interceptors.StreamReady, 1, 1},
		"StreamReady, option":      {[]interceptors.ServerOption{setup(interceptors.StreamRule{UntilReady: true}, nil)}, interceptors.StreamReady, 1, 1},
		"StreamReady, propagation": {[]interceptors.ServerOption{interceptors.WithPropagation(nil)}, interceptors.StreamReady, 1, 1},
		"StreamReady, no bound on Sends": {
			[]interceptors.ServerOption{interceptors.WithStreams(interceptors.StreamRule{SendStall: -1}, nil)}, interceptors.StreamReady, 1, 1,
		},
		"a context of its own": {nil, func(ctx context.Context) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			interceptors.StreamReady(ctx)
		}, 1, 1},
		"the first message": {[]interceptors.ServerOption{setup(interceptors.StreamRule{ReadyAtFirstMessage: true}, nil)}, notReady, 1, 1},
		"the first message of the method": {[]interceptors.ServerOption{
			setup(interceptors.StreamRule{UntilReady: true}, interceptors.Methods(bothMethod)),
			setup(interceptors.StreamRule{ReadyAtFirstMessage: true}, interceptors.Methods(downMethod)),
			setup(interceptors.StreamRule{UntilReady: true}, nil),
		}, notReady, 1, 1},
		"a time": {[]interceptors.ServerOption{setup(interceptors.StreamRule{ReadyAfter: 300 * time.Millisecond}, nil)}, notReady, 0, 0.3},
		"whichever comes first": {[]interceptors.ServerOption{
			setup(interceptors.StreamRule{ReadyAtFirstMessage: true, ReadyAfter: 2 * time.Second}, nil),
		}, interceptors.StreamReady, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const most = 3
				g := newGate(t, admit.WithLimit(fixed(1)), admit.WithoutQueue(), admit.WithMaxOpen(most))
				p := grpctest.Start(t, streams(watch(c.ready)),
					grpctest.ServerOptions(grpc.StreamInterceptor(interceptors.StreamServer(g, c.opts...))))
				ctx, cancel := context.WithCancel(t.Context())
				for n := range most {
					s := startStream(ctx, t, p.Conn, downMethod)
					synctest.Wait()
					wantStats(t, g, 1, n, uint64(n)*(1-c.success), uint64(n)*c.success, 0)
					other := receive(startStream(ctx, t, p.Conn, downMethod))
					if n < most-1 {
						wantRefusal(t, other, admit.QueueFull, codes.Unavailable) // one set-up at a time
					} else {
						wantRefusal(t, other, admit.TooManyOpen, codes.ResourceExhausted)
					}
					for range 3 {
						if err := receive(s); err != nil {
							t.Fatal(err)
						}
					}
					n++
					wantStats(t, g, 0, n, uint64(n)*(1-c.success), uint64(n)*c.success, 0)
				}
				wantRefusal(t, receive(startStream(ctx, t, p.Conn, downMethod)), admit.TooManyOpen, codes.ResourceExhausted)
				if got, want := g.Stats().RunningSeconds, most*c.took; got < want-1e-6 || got > want+1e-6 {
					t.Errorf("the time of set-ups: got %v s, want %v s", got, want)
				}
				cancel()
				synctest.Wait()
				wantStats(t, g, 0, 0, most*(1-c.success), most*c.success, 0)
			})
		})
	}
}

// Without a word from the handler a permit is for the whole stream.
func TestStreamsThatAreNeverReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := strict(t, 1)
		other := interceptors.WithStreams(interceptors.StreamRule{ReadyAtFirstMessage: true}, interceptors.Methods(bothMethod))
		p := grpctest.Start(t, streams(watch(notReady)), grpctest.ServerOptions(grpc.StreamInterceptor(interceptors.StreamServer(g, other))))
		ctx, cancel := context.WithCancel(t.Context())
		startStream(ctx, t, p.Conn, downMethod)
		time.Sleep(time.Hour)
		wantStats(t, g, 1, 0, 0, 0, 0)
		cancel()
		synctest.Wait()
		wantStats(t, g, 0, 0, 1, 0, 0)
	})
}

// StreamReady may be called at any time from anywhere, and does its work once.
func TestStreamReadyAnywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		interceptors.StreamReady(t.Context())
		g := strict(t, 2)
		var late context.Context
		p := grpctest.Start(t, streams(func(stream grpc.ServerStream) error {
			late = stream.Context()
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() { interceptors.StreamReady(stream.Context()) })
			}
			all.Wait()
			wantStats(t, g, 0, 1, 0, 1, 0)
			return nil
		}), grpctest.ServerOptions(grpc.StreamInterceptor(interceptors.StreamServer(g))))
		if err := receive(startStream(t.Context(), t, p.Conn, downMethod)); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want EOF", err)
		}
		synctest.Wait()
		interceptors.StreamReady(late)
		wantStats(t, g, 0, 0, 0, 1, 0)
	})
	// A unary call keeps its permit.
	g := strict(t, 1)
	_, err := interceptors.UnaryServer(g)(t.Context(), nil, workInfo, func(ctx context.Context, _ any) (any, error) {
		interceptors.StreamReady(ctx)
		wantStats(t, g, 1, 0, 0, 0, 0)
		return nil, nil
	})
	if err != nil {
		t.Error(err)
	}
	// A stream that is not subject to a gate has none.
	exempt := interceptors.StreamServer(g)
	err = exempt(nil, &serverStream{ctx: t.Context()}, &grpc.StreamServerInfo{FullMethod: "/grpc.health.v1.Health/Watch"},
		func(_ any, stream grpc.ServerStream) error { interceptors.StreamReady(stream.Context()); return nil })
	if err != nil {
		t.Error(err)
	}
	atRest(t, g, 0, 1, 0)
}

// A choosy stream sends messages unless err is set.
type choosy struct {
	serverStream

	err error
}

func (s *choosy) SendMsg(any) error { return s.err }

// A set-up ends with the first message that was sent, and is judged once, however often it ends.
func TestASetupEndsOnce(t *testing.T) {
	judged := 0
	g := strict(t, 1)
	server := interceptors.StreamServer(g,
		interceptors.WithStreams(interceptors.StreamRule{ReadyAtFirstMessage: true}, nil),
		interceptors.WithOutcome(func(error) admit.Outcome { judged++; return admit.Success }))
	inner := &choosy{serverStream: serverStream{ctx: t.Context()}, err: errors.New("not encoded")}
	err := server(nil, inner, &grpc.StreamServerInfo{FullMethod: downMethod}, func(_ any, stream grpc.ServerStream) error {
		if err := stream.SendMsg(&wrapperspb.BytesValue{}); err == nil {
			t.Error("SendMsg of a message that cannot be sent: got no error, want one")
		}
		wantStats(t, g, 1, 0, 0, 0, 0)
		inner.err = nil
		for range 2 {
			if err := stream.SendMsg(&wrapperspb.BytesValue{}); err != nil {
				t.Errorf("SendMsg: got %v, want none", err)
			}
			interceptors.StreamReady(stream.Context())
			wantStats(t, g, 0, 1, 0, 1, 0)
		}
		return errors.New("later")
	})
	if err == nil || judged != 1 {
		t.Errorf("got %v and %d judgements of the set-up, want the error of the handler and one", err, judged)
	}
	wantStats(t, g, 0, 0, 0, 1, 0)
}

// All gates in the chain get their permits back, in this order or the other.
func TestStreamReadyWithSeveralGates(t *testing.T) {
	outer, inner := strict(t, 1), strict(t, 1)
	info := &grpc.StreamServerInfo{FullMethod: downMethod}
	err := interceptors.StreamServer(outer)(nil, &serverStream{ctx: t.Context()}, info, func(srv any, stream grpc.ServerStream) error {
		return interceptors.StreamServer(inner)(srv, stream, info, func(srv any, stream grpc.ServerStream) error {
			return interceptors.StreamServer(outer)(srv, stream, info, func(_ any, stream grpc.ServerStream) error {
				wantStats(t, outer, 1, 0, 0, 0, 0)
				wantStats(t, inner, 1, 0, 0, 0, 0)
				interceptors.StreamReady(stream.Context())
				wantStats(t, outer, 0, 1, 0, 1, 0)
				wantStats(t, inner, 0, 1, 0, 1, 0)
				return nil
			})
		})
	})
	if err != nil {
		t.Error(err)
	}
	wantStats(t, outer, 0, 0, 0, 1, 0)
	wantStats(t, inner, 0, 0, 0, 1, 0)
}

// A stream that is ready holds no permit. A call that it makes through a client of the same gate
// takes one of its own, and no call that comes back runs under it.
func TestACallOfAReadyStream(t *testing.T) {
	g := strict(t, 1)
	call := interceptors.UnaryClient(g)
	info := &grpc.StreamServerInfo{FullMethod: downMethod}
	err := interceptors.StreamServer(g)(nil, &serverStream{ctx: t.Context()}, info, func(_ any, stream grpc.ServerStream) error {
		held := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
			if got := g.Stats().InFlight; got != 1 {
				t.Errorf("permits during the call: got %d, want 1", got)
			}
			return nil
		}
		err := call(stream.Context(), work, nil, nil, nil, held) // under the stream's permit
		interceptors.StreamReady(stream.Context())
		return errors.Join(err, call(stream.Context(), work, nil, nil, nil, held)) // under its own
	})
	if err != nil {
		t.Error(err)
	}
	wantStats(t, g, 0, 0, 0, 2, 0)
}

// A stream that runs under the permit of another call gives its place back when it is ready.
func TestAReadyGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := strict(t, 1)
		opts := interceptors.WithPropagation(nil)
		svc := &service{}
		r := start(t, svc, append(unaryServers(interceptors.UnaryServer(g, opts)), grpc.StreamInterceptor(interceptors.StreamServer(g, opts))),
			grpc.WithUnaryInterceptor(interceptors.UnaryPropagation(0)), grpc.WithStreamInterceptor(interceptors.StreamPropagation(0)))
		svc.OnExchange = func(s demopb.DemoService_ExchangeServer) error {
			interceptors.StreamReady(s.Context())
			if err := s.Send(&demopb.ExchangeResponse{}); err != nil {
				return err
			}
			<-s.Context().Done()
			return s.Context().Err()
		}
		svc.OnWork = func(ctx context.Context, _ *demopb.WorkRequest) (*demopb.WorkResponse, error) {
			for range 20 { // more than may run under a permit at once
				s, err := r.Exchange(ctx)
				if err == nil {
					_, err = s.Recv()
				}
				if err != nil {
					return nil, err
				}
			}
			return &demopb.WorkResponse{}, nil
		}
		if _, err := r.Work(t.Context(), &demopb.WorkRequest{}); err != nil {
			t.Errorf("got %v, want no error", err)
		}
		synctest.Wait()
		atRest(t, g, 0, 1, 0)
	})
}

// A set-up that fails counts by its error, where permits are for set-ups. Later errors and the
// lifetime teach nothing.
func TestWhatASetupTeaches(t *testing.T) {
	unavailable := status.Error(codes.Unavailable, "")
	after := func(err error) func(grpc.ServerStream) error {
		return func(stream grpc.ServerStream) error { interceptors.StreamReady(stream.Context()); return err }
	}
	before := func(err error) func(grpc.ServerStream) error { return func(grpc.ServerStream) error { return err } }
	once := interceptors.WithStreams(interceptors.StreamRule{UntilReady: true}, nil)
	always := interceptors.WithOutcome(func(error) admit.Outcome { return admit.Overload })
	for name, c := range map[string]struct {
		opts    []interceptors.ServerOption
		handler func(grpc.ServerStream) error
		want    []uint64
	}{
		"overload before":             {[]interceptors.ServerOption{once}, before(unavailable), []uint64{0, 0, 1}},
		"error before":                {[]interceptors.ServerOption{once}, before(status.Error(codes.NotFound, "")), []uint64{1, 0, 0}},
		"end before":                  {[]interceptors.ServerOption{once}, before(nil), []uint64{1, 0, 0}},
		"overload after":              {[]interceptors.ServerOption{once}, after(unavailable), []uint64{0, 1, 0}},
		"overload, for whole streams": {nil, before(unavailable), []uint64{1, 0, 0}},
		"WithOutcome":                 {[]interceptors.ServerOption{once, always}, after(nil), []uint64{0, 0, 1}},
		"of another gate":             {[]interceptors.ServerOption{once}, before(&admit.Refusal{}), []uint64{1, 0, 0}},
	} {
		g := newGate(t)
		_ = interceptors.StreamServer(g, c.opts...)(nil, &serverStream{ctx: t.Context()}, &grpc.StreamServerInfo{FullMethod: downMethod},
			func(_ any, stream grpc.ServerStream) error { return c.handler(stream) })
		if s := g.Stats(); s.Ended != [3]uint64(c.want) || s.InFlight != 0 || s.Ready != 0 {
			t.Errorf("%s: got %v, %d in flight, %d ready; want %v, 0, 0", name, s.Ended, s.InFlight, s.Ready, c.want)
		}
	}
}

// However a handler ends, before or after it is ready, nothing is left.
func TestReadyStreamsThatPanic(t *testing.T) {
	for name, end := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
		for _, ready := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				g := strict(t, 1)
				setup := interceptors.WithStreams(interceptors.StreamRule{ReadyAfter: time.Hour}, nil)
				over := make(chan struct{})
				go func() {
					defer close(over)
					_ = recovery.StreamServerInterceptor()(nil, &serverStream{ctx: t.Context()}, &grpc.StreamServerInfo{FullMethod: downMethod},
						func(srv any, ss grpc.ServerStream) error {
							return interceptors.StreamServer(g, setup)(srv, ss, &grpc.StreamServerInfo{FullMethod: downMethod},
								func(_ any, stream grpc.ServerStream) error {
									if ready {
										interceptors.StreamReady(stream.Context())
									}
									end()
									return nil
								})
						})
				}()
				<-over
				if s := g.Stats(); s.InFlight != 0 || s.Ready != 0 {
					t.Errorf("got %d in flight and %d ready, want none", s.InFlight, s.Ready)
				}
			})
		}
	}
}

// A function of WithOutcome that panics in StreamReady panics there, and keeps no permit.
func TestStreamReadyWithAnOutcomeThatPanics(t *testing.T) {
	g := strict(t, 1)
	o := interceptors.WithOutcome(func(error) admit.Outcome { panic("boom") })
	var got atomic.Value
	_ = interceptors.StreamServer(g, o)(nil, &serverStream{ctx: t.Context()}, &grpc.StreamServerInfo{FullMethod: downMethod},
		func(_ any, stream grpc.ServerStream) error {
			defer func() { got.Store(recover()) }()
			interceptors.StreamReady(stream.Context())
			return nil
		})
	if got.Load() != "boom" {
		t.Errorf("panic: got %v, want boom", got.Load())
	}
	wantStats(t, g, 0, 0, 1, 0, 0)
}

// A gate for set-ups may have a limit that adapts. MaxConcurrentStreams must have room for all
// streams that may be open.
func TestServerWithSetups(t *testing.T) {
	adaptive := func() *admit.Gate { return newGate(t, admit.WithName("streams")) }
	setup := interceptors.WithStreams(interceptors.StreamRule{ReadyAtFirstMessage: true}, nil)
	for _, c := range []interceptors.ServerConfig{
		{Gate: newGate(t), Streams: adaptive()},
		{Gates: gates.Rules{{Gate: adaptive(), Streams: true}}},
	} {
		_, err := interceptors.Server(c)
		wantWrong(t, err, `got gate "streams" with a limit that adapts`)
		if _, err := interceptors.Server(c, setup); err != nil {
			t.Errorf("with set-ups: got %v, want no error", err)
		}
	}
	many := newGate(t, admit.WithName("streams"), admit.WithLimit(fixed(5)), admit.WithMaxOpen(5000), admit.WithoutQueue())
	calls := newGate(t, admit.WithLimit(fixed(100)), admit.WithoutQueue())
	_, err := interceptors.Server(interceptors.ServerConfig{Gate: calls, Streams: many, MaxConcurrentStreams: 5099})
	wantWrong(t, err, "MaxConcurrentStreams: got 5099, want at least 5100")
	if _, err := interceptors.Server(interceptors.ServerConfig{Gate: calls, Streams: many, MaxConcurrentStreams: 5100}); err != nil {
		t.Errorf("got %v, want no error", err)
	}
}

// A document bounds the streams that are open, and changes that while they run.
func TestMaxOpenInADocument(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules, err := gates.FromJSON([]byte(`{"gates": [
			{"name": "feed", "methods": ["/weir.test.Streams/"], "streams": true, "max_open": 1, "limit": {"algorithm": "fixed", "limit": 5}}
		]}`))
		if err != nil {
			t.Fatal(err)
		}
		p := grpctest.Start(t, streams(watch(interceptors.StreamReady)),
			grpctest.ServerOptions(server(t, interceptors.ServerConfig{Gate: newGate(t), Gates: rules})...))
		if err := receive(startStream(t.Context(), t, p.Conn, downMethod)); err != nil {
			t.Fatal(err)
		}
		err = receive(startStream(t.Context(), t, p.Conn, downMethod))
		if r, ok := interceptors.RefusalFrom(err); !ok || r.Reason != "too_many_open" || r.Gate != "feed" || r.RetryAfter < 300*time.Millisecond {
			t.Errorf("got %v (%+v), want too_many_open of the gate, with a delay", err, r)
		}
		if err := rules.Update([]byte(`{"gates": [{"name": "feed", "max_open": 2}]}`)); err != nil {
			t.Fatal(err)
		}
		if err := receive(startStream(t.Context(), t, p.Conn, downMethod)); err != nil {
			t.Errorf("with a larger bound: got %v, want no error", err)
		}
	})
}

// Streams that are ready do not hold up a drain of the gate, and Shutdown ends them when its
// time is over. It says how many there were.
func TestShutdownEndsReadyStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admit.WithLimit(fixed(2)), admit.WithName("feed"), admit.WithMaxOpen(10))
		p := grpctest.Start(t, streams(watch(interceptors.StreamReady)),
			grpctest.ServerOptions(grpc.StreamInterceptor(interceptors.StreamServer(g))))
		var open []grpc.ClientStream
		for range 3 {
			open = append(open, startStream(t.Context(), t, p.Conn, downMethod))
			if err := receive(open[len(open)-1]); err != nil {
				t.Fatal(err)
			}
		}
		setUp := startStream(t.Context(), t, p.Conn, downMethod)
		go func() {
			time.Sleep(500 * time.Millisecond)
			_, err := p.Dial(t).NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, downMethod)
			wantCode(t, err, codes.Unavailable)
		}()
		synctest.Wait()
		shutdown(t, &rig{Server: p.Server}, 10*time.Second, 10*time.Second, []string{`4 open (gate "feed")`}, g)
		for _, s := range append(open, setUp) {
			err := receive(s)
			for err == nil {
				err = receive(s)
			}
			wantCode(t, err, codes.Unavailable)
		}
		synctest.Wait()
		wantStats(t, g, 0, 0, 0, 4, 0)
	})
}

// A watch that ends by itself on GOAWAY's signal, its own, ends in time.
func TestShutdownLetsStreamsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := strict(t, 1)
		leave := make(chan struct{})
		p := grpctest.Start(t, streams(func(stream grpc.ServerStream) error {
			interceptors.StreamReady(stream.Context())
			if err := stream.SendMsg(&wrapperspb.BytesValue{}); err != nil {
				return err
			}
			<-leave
			return nil
		}), grpctest.ServerOptions(grpc.StreamInterceptor(interceptors.StreamServer(g))))
		s := startStream(t.Context(), t, p.Conn, downMethod)
		if err := receive(s); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(3*time.Second, func() { close(leave) })
		shutdown(t, &rig{Server: p.Server}, time.Minute, 3*time.Second, nil, g)
		if err := receive(s); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want EOF", err)
		}
		wantStats(t, g, 0, 0, 0, 1, 0)
	})
}

// A stream that was ended because it was stalled holds up the connection of its client, which
// has not read the end. Shutdown ends that, too.
func TestShutdownAfterAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := strict(t, 1)
		p := grpctest.Start(t, streams(func(stream grpc.ServerStream) error { return sendAll(stream, 1000) }),
			grpctest.ServerOptions(grpc.StreamInterceptor(interceptors.StreamServer(g))))
		newRawPeer(t, p, true).open(1, downMethod)
		time.Sleep(time.Hour)
		atRest(t, g, 1, 0, 0)
		shutdown(t, &rig{Server: p.Server}, 10*time.Second, 10*time.Second, []string{"calls that no gate guards"}, g)
	})
}

// A handler may return while another goroutine says StreamReady. The permit comes back once,
// although the stream keeps it for messages that have not left.
func TestAStreamThatEndsWhileItBecomesReady(t *testing.T) {
	g := newGate(t, admit.WithLimit(fixed(1)))
	asked, answer, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
	bytes, err := memory.NewBytes(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	opts := append(bytes.ServerOptions(), grpc.StreamInterceptor(interceptors.StreamServer(g,
		interceptors.WithStreams(interceptors.StreamRule{UntilReady: true}, nil),
		interceptors.WithHoldUntilSent(time.Minute),
		interceptors.WithOutcome(func(error) admit.Outcome {
			close(asked)
			<-answer
			return admit.Success
		}))))
	p := grpctest.Start(t, streams(func(stream grpc.ServerStream) error {
		go func() {
			defer close(over)
			interceptors.StreamReady(stream.Context())
		}()
		<-asked
		time.AfterFunc(50*time.Millisecond, func() { close(answer) }) // the handler has returned by then
		return nil
	}), grpctest.ServerOptions(opts...))
	if err := receive(startStream(t.Context(), t, p.Conn, downMethod)); !errors.Is(err, io.EOF) {
		t.Errorf("the stream: got %v, want its end", err)
	}
	<-over
	for g.Stats().Ready > 0 || g.InFlight() > 0 { // until the test's own deadline
		time.Sleep(time.Millisecond)
	}
	wantStats(t, g, 0, 0, 0, 1, 0)
}
