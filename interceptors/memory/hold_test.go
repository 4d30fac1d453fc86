package memory_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/memory"
	"github.com/weir-go/weir/internal/grpctest"
)

const megab = 1 << 20

// A holder is a server that counts bytes.
type holder struct {
	*grpctest.Pair
	calls, streams *admit.Gate
	bytes          *memory.Bytes
}

// startHolder starts a server with handlers for calls and streams. A change may be nil.
func startHolder(
	t testing.TB, calls *admit.Gate, get func(context.Context, *blob) (*blob, error), send func(grpc.ServerStream) error,
	change func(*interceptors.ServerConfig), opts ...interceptors.ServerOption,
) *holder {
	t.Helper()
	bytes, err := memory.NewBytes(1 << 30)
	if err != nil {
		t.Fatal(err)
	}
	streams, err := admit.New(admit.WithName("streams"), admit.WithFixedLimit(1000))
	if err != nil {
		t.Fatal(err)
	}
	h := &holder{calls: calls, streams: streams, bytes: bytes}
	c := interceptors.ServerConfig{Gate: calls, Streams: h.streams, Bytes: h.bytes, SendStall: -1}
	if change != nil {
		change(&c)
	}
	server, err := interceptors.Server(c, opts...)
	if err != nil {
		t.Fatal(err)
	}
	h.Pair = grpctest.Start(t, func(r grpc.ServiceRegistrar) {
		serveBlobs(get)(r)
		r.RegisterService(&grpc.ServiceDesc{
			ServiceName: "weirtest.Feeds", HandlerType: (*any)(nil),
			Streams: []grpc.StreamDesc{{StreamName: "Feed", ServerStreams: true, ClientStreams: true, Handler: func(_ any, ss grpc.ServerStream) error {
				return send(ss)
			}}},
		}, struct{}{})
	}, grpctest.ServerOptions(server...))
	return h
}

// slow returns a client that takes 64 KiB of each answer that it does not read.
func (h *holder) slow(t testing.TB) *grpc.ClientConn {
	t.Helper()
	return h.Dial(t, grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<20))
}

func (h *holder) want(t testing.TB, when string, inFlight, bytes int64) {
	t.Helper()
	synctest.Wait()
	calls, streams, held := h.calls.Stats(), h.streams.Stats(), h.bytes.Stats()
	if got := calls.InFlight + streams.InFlight + streams.Ready; got != int(inFlight) || held.Used/megab != bytes {
		t.Errorf("%s: got %d in flight and %d bytes of %d messages, want %d and %d MiB", when, got, held.Used, held.Messages, inFlight, bytes)
	}
	if inFlight == 0 && (calls.Leaving+streams.Leaving+calls.Beyond != 0 || held.Messages != 0 && bytes == 0 || memory.Sending(h.bytes) != 0) {
		t.Errorf("%s: got %d and %d leaving, %d messages held, %d about to be sent, want none", when,
			calls.Leaving, streams.Leaving, held.Messages, memory.Sending(h.bytes))
	}
}

func aMebibyte(context.Context, *blob) (*blob, error) {
	time.Sleep(5 * time.Millisecond)
	return &blob{Value: make([]byte, megab)}, nil
}

func noStream(grpc.ServerStream) error { return nil }

// unread makes n calls that it does not read, until the returned function ends them.
func unread(t *testing.T, conn *grpc.ClientConn, n int) (leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	for range n {
		askAndNotRead(ctx, t, conn)
	}
	return cancel
}

func adaptiveGate(t testing.TB) *admit.Gate {
	t.Helper()
	g, err := admit.New()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// A hundred answers of a MiB that nobody reads are in flight, with each kind of limit. The limit
// learns from their handlers only. They are gone with their callers.
func TestUnreadAnswersAreInFlight(t *testing.T) {
	for name, gate := range map[string]func(*testing.T) *admit.Gate{
		"fixed":    func(t *testing.T) *admit.Gate { return newGate(t, admit.WithFixedLimit(100)) },
		"adaptive": func(t *testing.T) *admit.Gate { return adaptiveGate(t) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := startHolder(t, gate(t), aMebibyte, noStream, nil)
				leave := unread(t, h.slow(t), 100)
				time.Sleep(time.Minute)
				h.want(t, "after a minute", 100, 100)
				s := h.calls.Stats()
				if s.Leaving != 100 || s.Limit < 10 || s.RunningSeconds > 1 || s.Ended[admit.Success] != 100 {
					t.Errorf("got %d leaving, limit %d, %v s of running, %d ended, want 100, at least 10, 5 ms each, 100",
						s.Leaving, s.Limit, s.RunningSeconds, s.Ended[admit.Success])
				}
				err := h.Conn.Invoke(t.Context(), blobs, &blob{}, new(blob))
				if want := map[string]codes.Code{"fixed": codes.Unavailable, "adaptive": codes.OK}[name]; status.Code(err) != want {
					t.Errorf("one more call: got %v, want %v", err, want)
				}
				leave()
				h.want(t, "when the callers have left", 0, 0)
				if err := h.Conn.Invoke(t.Context(), blobs, &blob{}, new(blob)); err != nil {
					t.Errorf("afterwards: got %v, want an answer", err)
				}
				h.want(t, "when it is read", 0, 0)
			})
		})
	}
}

// A client that disappears leaves nothing, whatever was written already.
func TestHoldEndsWithTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHolder(t, newGate(t, admit.WithFixedLimit(100)), aMebibyte, noStream, nil)
		conn := h.slow(t)
		unread(t, conn, 20)
		time.Sleep(time.Minute)
		h.want(t, "before", 20, 20)
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		h.want(t, "after", 0, 0)
	})
}

// The option turns it off, bounds it, and turns it on where no bytes are counted.
func TestWithHoldUntilSent(t *testing.T) {
	for name, c := range map[string]struct {
		hold             time.Duration
		uncounted        bool
		atOnce, after    int64
		wait             time.Duration
		bytes, bytesLeft int64
	}{
		"never":             {hold: -1, bytes: 5, bytesLeft: 5},
		"the default":       {atOnce: 5, wait: 119 * time.Second, after: 5, bytes: 5, bytesLeft: 5},
		"the default bound": {atOnce: 5, wait: 121 * time.Second, bytes: 5, bytesLeft: 5},
		"a bound":           {hold: time.Second, atOnce: 5, wait: 2 * time.Second, bytes: 5, bytesLeft: 5},
		"without Bytes":     {uncounted: true},
		"without Bytes, on": {hold: time.Minute, uncounted: true, atOnce: 5, wait: 59 * time.Second, after: 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var opts []interceptors.ServerOption
				if c.hold != 0 {
					opts = append(opts, interceptors.WithHoldUntilSent(c.hold))
				}
				h := startHolder(t, newGate(t, admit.WithFixedLimit(100)), aMebibyte, noStream, func(sc *interceptors.ServerConfig) {
					if c.uncounted {
						sc.Bytes = nil
					}
				}, opts...)
				leave := unread(t, h.slow(t), 5)
				time.Sleep(10 * time.Millisecond)
				h.want(t, "at once", c.atOnce, c.bytes)
				time.Sleep(c.wait)
				h.want(t, "later", c.after, c.bytesLeft)
				leave()
				h.want(t, "when the callers have left", 0, 0)
			})
		})
	}
}

// A stream that has ended keeps its permit until its client has taken the messages, and so does
// one that gave it back when it was ready.
func TestHoldOfStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHolder(t, newGate(t), aMebibyte, func(ss grpc.ServerStream) error {
			m := new(blob)
			if err := ss.RecvMsg(m); err != nil {
				return err
			}
			if len(m.GetValue()) > 0 {
				interceptors.StreamReady(ss.Context())
			}
			for range 3 { // the third waits for the transport to write a part of the first two
				if err := ss.SendMsg(&blob{Value: make([]byte, 30<<10)}); err != nil {
					return err
				}
			}
			return ss.SendMsg(&blob{Value: make([]byte, megab)})
		}, nil)
		conn := h.slow(t)
		var open []grpc.ClientStream
		for i := range 10 {
			s, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/weirtest.Feeds/Feed")
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.SendMsg(&blob{Value: make([]byte, i%2)}), s.CloseSend()); err != nil {
				t.Fatal(err)
			}
			open = append(open, s)
		}
		time.Sleep(time.Second)
		h.want(t, "before anything is read", 10, 10)
		if s := h.streams.Stats(); s.Ready != 5 || s.InFlight != 5 {
			t.Errorf("got %d ready and %d in flight, want 5 and 5", s.Ready, s.InFlight)
		}
		for i, s := range open {
			for err := error(nil); err == nil; err = s.RecvMsg(new(blob)) {
				continue
			}
			h.want(t, fmt.Sprint("after stream ", i, " was read"), int64(9-i), int64(9-i))
		}
	})
}

// Calls may share a response, and each keeps its permit until one has left.
func TestHoldOfASharedAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := &blob{Value: make([]byte, megab)}
		h := startHolder(t, newGate(t, admit.WithFixedLimit(100)), func(context.Context, *blob) (*blob, error) {
			time.Sleep(5 * time.Millisecond)
			return shared, nil
		}, noStream, nil)
		leaveFirst, leave := unread(t, h.slow(t), 20), unread(t, h.slow(t), 20)
		time.Sleep(time.Second)
		h.want(t, "before", 40, 40)
		leaveFirst()
		h.want(t, "when half have left", 20, 20)
		leave()
		h.want(t, "when all have left", 0, 0)
	})
}

// A call keeps its permit for the message that is sent, whatever its handler returned.
func TestHoldIsForTheMessageThatIsSent(t *testing.T) {
	recovers := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		defer func() {
			if recover() != nil {
				err = status.Error(codes.Internal, "recovered")
			}
		}()
		return handler(ctx, req)
	}
	replaces := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if _, err := handler(ctx, req); err != nil {
			return nil, err
		}
		return &blob{Value: make([]byte, megab)}, nil
	}
	type call struct {
		get     func(context.Context, *blob) (*blob, error)
		outside grpc.UnaryServerInterceptor
		left    int64 // in flight, and MiB
	}
	for name, c := range map[string]call{
		"error":    {get: func(context.Context, *blob) (*blob, error) { return nil, status.Error(codes.NotFound, "none") }, outside: recovers},
		"panic":    {get: func(context.Context, *blob) (*blob, error) { panic("a handler") }, outside: recovers},
		"nil":      {get: func(context.Context, *blob) (*blob, error) { return nil, nil }, outside: recovers},
		"small":    {get: func(context.Context, *blob) (*blob, error) { return &blob{Value: make([]byte, 100)}, nil }, outside: recovers},
		"replaced": {get: aMebibyte, outside: replaces, left: 1},
		"lost later": {get: aMebibyte, outside: func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			_, _ = handler(ctx, req)
			return nil, status.Error(codes.Aborted, "after all")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := startHolder(t, newGate(t, admit.WithFixedLimit(10)), c.get, noStream, func(sc *interceptors.ServerConfig) {
					sc.Outside = append(sc.Outside, c.outside)
				})
				leave := unread(t, h.slow(t), 1)
				time.Sleep(time.Second)
				h.want(t, "afterwards", c.left, c.left)
				leave()
				h.want(t, "at the end", 0, 0)
			})
		})
	}
}

// A call that several gates admit keeps the permit of each.
func TestHoldOfSeveralGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer := newGate(t, admit.WithName("outer"), admit.WithFixedLimit(100))
		h := startHolder(t, newGate(t, admit.WithFixedLimit(100)), aMebibyte, noStream, func(c *interceptors.ServerConfig) {
			c.Outside = append(c.Outside, interceptors.UnaryServer(outer, interceptors.WithHoldUntilSent(time.Hour)))
		})
		leave := unread(t, h.slow(t), 7)
		time.Sleep(time.Second)
		h.want(t, "before", 7, 7)
		if got := outer.Stats().InFlight; got != 7 {
			t.Errorf("outer gate: got %d in flight, want 7", got)
		}
		leave()
		h.want(t, "after", 0, 0)
		if got := outer.Stats().InFlight; got != 0 {
			t.Errorf("outer gate, after: got %d in flight, want 0", got)
		}
	})
}

// Compressed responses and messages of every size arrive whole, and leave nothing.
func TestHoldLeavesAnswersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHolder(t, newGate(t), func(_ context.Context, req *blob) (*blob, error) { return req, nil }, noStream, nil)
		for _, size := range []int{0, 1, 1024, 1025, 100_000, 3 << 20} {
			for _, opts := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
				got := new(blob)
				if err := h.Conn.Invoke(t.Context(), blobs, &blob{Value: make([]byte, size)}, got, opts...); err != nil || len(got.GetValue()) != size {
					t.Errorf("%d bytes: got %d, %v, want the same", size, len(got.GetValue()), err)
				}
				h.want(t, "afterwards", 0, 0)
			}
		}
	})
}

// Whatever callers do, nothing is held when they have gone.
func TestHoldProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		kinds := rapid.SliceOfN(rapid.IntRange(0, 5), 1, 12).Draw(rt, "calls")
		sizes := rapid.SliceOfN(rapid.IntRange(0, 200_000), len(kinds), len(kinds)).Draw(rt, "sizes")
		bound := rapid.SampledFrom([]time.Duration{0, time.Second}).Draw(rt, "bound")
		synctest.Test(t, func(t *testing.T) {
			h := startHolder(t, adaptiveGate(t), func(_ context.Context, req *blob) (*blob, error) {
				time.Sleep(time.Millisecond)
				return &blob{Value: make([]byte, len(req.GetValue()))}, nil
			}, noStream, nil, interceptors.WithHoldUntilSent(bound))
			conn := h.slow(t)
			ctx, cancel := context.WithCancel(t.Context())
			for i, kind := range kinds {
				req := &blob{Value: make([]byte, sizes[i])}
				one, leave := context.WithTimeout(ctx, time.Duration(kind+1)*500*time.Millisecond)
				defer leave()
				switch kind {
				case 0, 1:
					_ = conn.Invoke(one, blobs, req, new(blob))
				case 2:
					leave()
					_ = conn.Invoke(one, blobs, req, new(blob))
				default: // unread
					s, err := conn.NewStream(one, &grpc.StreamDesc{ServerStreams: true}, blobs)
					if err != nil || s.SendMsg(req) != nil || s.CloseSend() != nil {
						continue
					}
				}
				if kind == 5 {
					time.Sleep(100 * time.Millisecond)
				}
			}
			if rapid.Bool().Draw(rt, "the connection breaks") {
				_ = conn.Close()
			}
			cancel()
			time.Sleep(time.Second)
			h.want(t, "at the end", 0, 0)
		})
	})
}
