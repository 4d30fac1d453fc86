package interceptors_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/gates"
	"github.com/weir-go/weir/internal/grpctest"
)

const (
	stallBound = 2 * time.Minute // the default
	stallSlack = stallBound/8 + time.Second
)

// server returns the options of a guarded server.
func server(t testing.TB, c interceptors.ServerConfig, opts ...interceptors.ServerOption) []grpc.ServerOption {
	t.Helper()
	all, err := interceptors.Server(c, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// wantStalled checks the error of a stuck Send.
func wantStalled(t testing.TB, err error) {
	t.Helper()
	wantCode(t, err, codes.ResourceExhausted)
	r, ok := interceptors.RefusalFrom(err)
	if !errors.Is(err, interceptors.ErrSendStalled) || !ok || r.Reason != "send_stalled" || r.Remote {
		t.Errorf("got %v (%+v), want ErrSendStalled", err, r)
	}
}

func wantTook(t testing.TB, what string, start time.Time, from, to time.Duration) {
	t.Helper()
	if took := time.Since(start); took < from || took > to {
		t.Errorf("%s: took %v, want %v to %v", what, took, from, to)
	}
}

// A peer that never sends WINDOW_UPDATE holds a handler for two minutes, whatever guards the server
// and whatever the stream is.
func TestAPeerThatTakesNothing(t *testing.T) {
	gate := func(t *testing.T) *admit.Gate {
		return newGate(t, admit.WithLimit(fixed(10)), admit.WithName("streams"))
	}
	for name, guard := range map[string]func(t *testing.T, g *admit.Gate) []grpc.ServerOption{
		"StreamServer": func(_ *testing.T, g *admit.Gate) []grpc.ServerOption {
			return []grpc.ServerOption{grpc.StreamInterceptor(interceptors.StreamServer(g))}
		},
		"two of them": func(t *testing.T, g *admit.Gate) []grpc.ServerOption {
			return []grpc.ServerOption{grpc.ChainStreamInterceptor(interceptors.StreamServer(g), interceptors.StreamServer(strict(t, 5)))}
		},
		"Server": func(t *testing.T, g *admit.Gate) []grpc.ServerOption {
			return server(t, interceptors.ServerConfig{Gate: newGate(t), Streams: g})
		},
		"Server with gates": func(t *testing.T, g *admit.Gate) []grpc.ServerOption {
			return server(t, interceptors.ServerConfig{Gates: gates.Rules{{Gate: g, Streams: true}}})
		},
		"propagation": func(_ *testing.T, g *admit.Gate) []grpc.ServerOption {
			return []grpc.ServerOption{grpc.StreamInterceptor(interceptors.StreamServer(g, interceptors.WithPropagation(nil)))}
		},
	} {
		for _, method := range []string{downMethod, upMethod, bothMethod} {
			t.Run(name+method, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g := gate(t)
					sent := make(chan error, 1)
					p := grpctest.Start(t, streams(func(stream grpc.ServerStream) error {
						err := sendAll(stream, 1000)
						sent <- err
						stream.SetTrailer(metadata.Pairs("late", "yes"))
						return errors.Join(err, stream.SendHeader(nil), receive(stream))
					}), grpctest.ServerOptions(guard(t, g)...))
					peer := newRawPeer(t, p, true)
					start := time.Now()
					peer.open(1, method)
					wantStalled(t, <-sent)
					wantTook(t, "Send", start, stallBound, stallBound+stallSlack)
					synctest.Wait()
					atRest(t, g, 1, 0, 0)
					if got := g.Stats().SendStalls; got != 1 {
						t.Errorf("SendStalls: got %d, want 1", got)
					}
					peer.grant(1, 1<<20)
					synctest.Wait()
					if got := peer.status(1); got != "8" {
						t.Errorf("grpc-status: got %q, want 8", got)
					}
				})
			})
		}
	}
}

// Streams that no gate is for are watched, too, but exempt ones and those of other matchers are not.
func TestStreamsWithoutAGateAreWatched(t *testing.T) {
	other := interceptors.Methods("/weir.test.Streams/Both")
	for name, c := range map[string]struct {
		config  interceptors.ServerConfig
		opts    []interceptors.ServerOption
		watched bool
	}{
		"only calls have a gate": {interceptors.ServerConfig{Gate: newGate(t)}, nil, true},
		"gates for others":       {interceptors.ServerConfig{Gates: gates.Rules{{Gate: strict(t, 1), Streams: true, Match: other}}}, nil, true},
		"a matcher":              {interceptors.ServerConfig{Gate: newGate(t)}, []interceptors.ServerOption{interceptors.WithMatcher(other)}, false},
		"off":                    {interceptors.ServerConfig{Gate: newGate(t), SendStall: -1}, nil, false},
		"off for the method": {
			interceptors.ServerConfig{Gate: newGate(t)},
			[]interceptors.ServerOption{interceptors.WithStreams(interceptors.StreamRule{SendStall: -1}, interceptors.Methods(downMethod))},
			false,
		},
		"off for another method": {
			interceptors.ServerConfig{Gate: newGate(t)}, []interceptors.ServerOption{interceptors.WithStreams(interceptors.StreamRule{SendStall: -1}, other)}, true,
		},
		"off, and a rule without a bound": {
			interceptors.ServerConfig{Gate: newGate(t), SendStall: -1},
			[]interceptors.ServerOption{interceptors.WithStreams(interceptors.StreamRule{UntilReady: true}, nil)},
			false,
		},
		"off by a later rule": {
			interceptors.ServerConfig{Gate: newGate(t)}, []interceptors.ServerOption{
				interceptors.WithStreams(interceptors.StreamRule{UntilReady: true}, interceptors.Methods(downMethod)),
				interceptors.WithStreams(interceptors.StreamRule{SendStall: -1}, nil),
			}, true,
		},
		"on for the method": {
			interceptors.ServerConfig{Gate: newGate(t), SendStall: -1},
			[]interceptors.ServerOption{interceptors.WithStreams(interceptors.StreamRule{SendStall: 2 * time.Minute}, interceptors.Methods(downMethod))},
			true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			opts := server(t, c.config, c.opts...)
			synctest.Test(t, func(t *testing.T) {
				var stalled atomic.Bool
				p := grpctest.Start(t, streams(func(stream grpc.ServerStream) error {
					err := sendAll(stream, 1000)
					stalled.Store(errors.Is(err, interceptors.ErrSendStalled))
					return err
				}), grpctest.ServerOptions(opts...))
				newRawPeer(t, p, true).open(1, downMethod)
				time.Sleep(time.Hour)
				if got := stalled.Load(); got != c.watched {
					t.Errorf("stalled after an hour: got %v, want %v", got, c.watched)
				}
			})
		})
	}
}

// The client sees the messages that were sent and then the reason, and so does what stands
// outside on the server, whatever the handler makes of it.
func TestTheReasonOfAStall(t *testing.T) {
	for name, answer := range map[string]func(error) error{
		"the error": func(err error) error { return err },
		"nothing":   func(error) error { return nil },
		"another":   func(error) error { return context.Canceled },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var outside atomic.Pointer[error]
				see := func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
					err := h(srv, ss)
					outside.Store(&err)
					return err
				}
				g := newGate(t, admit.WithLimit(fixed(10)), admit.WithName("streams"))
				p := grpctest.Start(t, streams(func(stream grpc.ServerStream) error { return answer(sendAll(stream, 1000)) }),
					grpctest.ServerOptions(grpc.ChainStreamInterceptor(see, interceptors.StreamServer(g))))
				s := startStream(t.Context(), t, p.Conn, downMethod)
				time.Sleep(time.Hour)
				wantStalled(t, *outside.Load())
				n := 0
				var err error
				for ; err == nil; n++ {
					err = receive(s)
				}
				r, ok := interceptors.RefusalFrom(err)
				if want := (interceptors.Refusal{Reason: "send_stalled", Gate: "streams", Remote: true}); !ok || r != want || n < 64 {
					t.Errorf("after %d messages: got %v (%+v), want %+v after 64 or more", n, err, r, want)
				}
				wantCode(t, err, codes.ResourceExhausted)
			})
		})
	}
}

// A permit is held until the handler has really returned, however that ends.
func TestAStallAndThePermit(t *testing.T) {
	for name, end := range map[string]func(error) error{
		"return": func(err error) error { return err },
		"panic":  func(error) error { panic("boom") },
		"Goexit": func(error) error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := strict(t, 1)
				opts := []grpc.StreamServerInterceptor{interceptors.StreamServer(g)}
				var panics atomic.Int32
				if name == "panic" {
					opts = append([]grpc.StreamServerInterceptor{recovery.StreamServerInterceptor(
						recovery.WithRecoveryHandler(func(any) error { panics.Add(1); return nil }))}, opts...)
				}
				p := grpctest.Start(t, streams(func(stream grpc.ServerStream) error {
					err := sendAll(stream, 1000)
					time.Sleep(time.Hour) // deaf
					return end(err)
				}), grpctest.ServerOptions(grpc.ChainStreamInterceptor(opts...)))
				newRawPeer(t, p, true).open(1, downMethod)
				time.Sleep(30 * time.Minute)
				if got := g.Stats().InFlight; got != 1 || g.Stats().SendStalls != 1 {
					t.Errorf("while the handler runs: got %d permits held and %d stalls, want 1 and 1", got, g.Stats().SendStalls)
				}
				time.Sleep(time.Hour)
				atRest(t, g, 1, 0, 0)
				if got := panics.Load(); (got == 1) != (name == "panic") {
					t.Errorf("panics seen outside: got %d", got)
				}
			})
		})
	}
}

// A client that takes little, but takes it, is served for as long as it likes: messages go on
// within the bound. One that does not even take a message in that time is stalled.
func TestASlowPeer(t *testing.T) {
	for name, c := range map[string]struct {
		size  int           // of messages
		grant int           // bytes, every
		every time.Duration //
		lives bool
	}{
		"a byte a second, small messages":       {50, 1, time.Second, true},
		"a byte a second, messages of 1 KiB":    {1 << 10, 1, time.Second, false},
		"a window every two minutes":            {1 << 10, 64 << 10, 119 * time.Second, true},
		"a window every three minutes":          {1 << 10, 64 << 10, 180 * time.Second, false},
		"messages of 8 MiB, 20 KiB a second":    {8 << 20, 20 << 10, time.Second, true},
		"messages of 8 MiB, 9 KiB a second":     {8 << 20, 9 << 10, time.Second, false},
		"messages of 8 MiB, half of the window": {8 << 20, 1, time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				over := make(chan error, 1)
				var count atomic.Int64
				p := grpctest.Start(t, streams(func(stream grpc.ServerStream) error {
					m := wrapperspb.Bytes(make([]byte, c.size))
					for {
						if err := stream.SendMsg(m); err != nil {
							over <- err
							return err
						}
						count.Add(1)
					}
				}), grpctest.ServerOptions(grpc.StreamInterceptor(interceptors.StreamServer(strict(t, 1)))))
				peer := newRawPeer(t, p, true)
				peer.open(1, downMethod)
				peer.pace(t.Context(), 1, c.grant, c.every)
				time.Sleep(time.Hour)
				before := count.Load()
				time.Sleep(time.Hour)
				select {
				case err := <-over:
					if c.lives {
						t.Errorf("got %v after %d messages, want that it goes on", err, count.Load())
					}
					wantStalled(t, err)
				default:
					if !c.lives {
						t.Error("got that it goes on, want that it ends")
					}
					if count.Load() == before {
						t.Error("messages in an hour: got 0, want more")
					}
				}
			})
		})
	}
}

// A large message that does not move at all is found, too, later than a small one.
func TestAStuckLargeMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 8 << 20
		sent := make(chan error, 1)
		p := grpctest.Start(t, streams(func(stream grpc.ServerStream) error { sent <- sendAll(stream, size); return nil }),
			grpctest.ServerOptions(grpc.StreamInterceptor(interceptors.StreamServer(strict(t, 1)))))
		start := time.Now()
		newRawPeer(t, p, true).open(1, downMethod)
		wantStalled(t, <-sent)
		const more = size / (16 << 10) * time.Second
		wantTook(t, "Send", start, stallBound+more, stallBound+more+stallSlack)
	})
}

// Of many streams of a connection those end that are stuck, and no others.
func TestManyStreamsOfAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 40
		g := strict(t, count)
		var ended atomic.Int32
		p := grpctest.Start(t, streams(func(stream grpc.ServerStream) error {
			err := sendAll(stream, 100)
			ended.Add(1)
			return err
		}), grpctest.ServerOptions(grpc.StreamInterceptor(interceptors.StreamServer(g))))
		peer := newRawPeer(t, p, true)
		for i := range uint32(count) {
			peer.open(1+2*i, downMethod)
			if i%2 == 0 {
				peer.pace(t.Context(), 1+2*i, 2000, 10*time.Second)
			}
		}
		time.Sleep(10 * time.Minute)
		if got := ended.Load(); got != count/2 || g.Stats().SendStalls != count/2 || g.Stats().InFlight != count/2 {
			t.Errorf("after ten minutes: got %d ended, %d stalls, %d in flight, want %d of each",
				got, g.Stats().SendStalls, g.Stats().InFlight, count/2)
		}
		_ = peer.conn.Close()
		synctest.Wait()
		atRest(t, g)
	})
}

// Nothing ends a stream in which the server does not send: it waits for its client, works, or
// sends now and then.
func TestQuietStreamsAreNotStalled(t *testing.T) {
	for name, h := range map[string]func(grpc.ServerStream) error{
		"receives": func(stream grpc.ServerStream) error { return receive(stream) },
		"works": func(stream grpc.ServerStream) error {
			<-stream.Context().Done()
			return stream.Context().Err()
		},
		"sends every ten minutes": func(stream grpc.ServerStream) error {
			for {
				if err := stream.SendMsg(&wrapperspb.BytesValue{}); err != nil {
					return err
				}
				select {
				case <-time.After(10 * time.Minute):
				case <-stream.Context().Done():
					return stream.Context().Err()
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := strict(t, 1)
				var ended atomic.Bool
				p := grpctest.Start(t, streams(func(stream grpc.ServerStream) error {
					defer ended.Store(true)
					return h(stream)
				}), grpctest.ServerOptions(grpc.StreamInterceptor(interceptors.StreamServer(g))))
				ctx, cancel := context.WithCancel(t.Context())
				startStream(ctx, t, p.Conn, bothMethod)
				time.Sleep(24 * time.Hour)
				if ended.Load() {
					t.Error("a day later: got that it has ended, want that it has not")
				}
				cancel()
				synctest.Wait()
				atRest(t, g)
			})
		})
	}
}

// A client that sends and does not read is stalled; RecvMsg says so as well.
func TestAClientThatOnlySends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		received := make(chan error, 1)
		p := grpctest.Start(t, streams(func(stream grpc.ServerStream) error {
			go func() {
				var err error
				for err == nil {
					err = receive(stream)
				}
				received <- err
			}()
			err := sendAll(stream, 1000)
			wantStalled(t, err)
			wantStalled(t, <-received)
			return err
		}), grpctest.ServerOptions(grpc.StreamInterceptor(interceptors.StreamServer(strict(t, 1)))))
		peer := newRawPeer(t, p, true)
		peer.open(1, bothMethod)
		for range 60 {
			time.Sleep(5 * time.Second)
			peer.send(1, 0, false)
		}
	})
}

// A stream without a transport of gRPC is passed through: nothing could end it.
func TestAStreamOutsideOfAServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := strict(t, 1)
		slow := &slowStream{serverStream: serverStream{ctx: t.Context()}, takes: time.Hour}
		err := interceptors.StreamServer(g)(nil, slow, &grpc.StreamServerInfo{FullMethod: downMethod},
			func(_ any, stream grpc.ServerStream) error {
				return stream.SendMsg("not a message of Protocol Buffers")
			})
		if err != nil || g.Stats().SendStalls != 0 {
			t.Errorf("got %v and %d stalls, want no error and none", err, g.Stats().SendStalls)
		}
		atRest(t, g, 1, 0, 0)
	})
}

// A slowStream takes its time to take a message.
type slowStream struct {
	serverStream
	takes time.Duration
	fails error
}

func (s *slowStream) SendMsg(any) error { time.Sleep(s.takes); return s.fails }
func (*slowStream) RecvMsg(any) error   { return io.EOF }

// A Send that panics, in a codec, is over.
func TestASendThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := &endable{}
		ctx := grpc.NewContextWithServerTransportStream(t.Context(), transport)
		err := interceptors.StreamServer(strict(t, 1))(nil, &panickyStream{serverStream{ctx: ctx}}, &grpc.StreamServerInfo{FullMethod: downMethod},
			func(_ any, stream grpc.ServerStream) error {
				func() {
					defer func() { _ = recover() }()
					_ = stream.SendMsg(nil)
				}()
				time.Sleep(time.Hour)
				return nil
			})
		if err != nil || transport.ends.Load() != 0 {
			t.Errorf("got %v and %d ends, want no error and none", err, transport.ends.Load())
		}
	})
}

type panickyStream struct{ serverStream }

func (*panickyStream) SendMsg(any) error { panic("boom") }

func TestWrongStreamOptions(t *testing.T) {
	for says, o := range map[string]interceptors.ServerOption{
		"WithStreams: SendStall: got 120ns, want 0 (the default), 1ms or more": interceptors.WithStreams(interceptors.StreamRule{SendStall: 120}, nil),
		`WithStreams: Methods: got "Watch"`:                                    interceptors.WithStreams(interceptors.StreamRule{UntilReady: true}, interceptors.Methods("Watch")),
		"WithStreams: ReadyAfter: got -1s, want 0":                             interceptors.WithStreams(interceptors.StreamRule{ReadyAfter: -time.Second}, nil),
	} {
		_, err := interceptors.Server(interceptors.ServerConfig{Gate: newGate(t)}, o)
		wantWrong(t, err, says)
	}
	_, err := interceptors.Server(interceptors.ServerConfig{Gate: newGate(t), SendStall: 5})
	wantWrong(t, err, "server: SendStall: got 5ns, want 0 (the default), 1ms or more")
}

// A stall is counted for the gates of the stream that watch it, and for no others.
func TestSendStallsOfOtherGates(t *testing.T) {
	before := interceptors.Families()
	if got := strict(t, 1).Stats().SendStalls; got != 0 {
		t.Errorf("a gate without interceptors: got %d, want 0", got)
	}
	if got := interceptors.Families(); got > before {
		t.Errorf("gates that are remembered: got %d, want %d as before", got, before)
	}
}
