package streamcredit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/streamcredit"
)

// A mine lets a call of SendMsg or RecvMsg leave abruptly, once.
type mine struct {
	left atomic.Int64 // calls until it goes off; 0 is never
	how  func()
}

func (m *mine) step() {
	if m.left.Add(-1) == 0 {
		m.how()
	}
}

// minedServer and minedClient are the streams of an interceptor that does not survive a message.
type (
	minedServer struct {
		grpc.ServerStream

		send, recv *mine
	}
	minedClient struct {
		grpc.ClientStream

		send, recv *mine
	}
)

func (m minedServer) SendMsg(v any) error { m.send.step(); return m.ServerStream.SendMsg(v) }
func (m minedServer) RecvMsg(v any) error { m.recv.step(); return m.ServerStream.RecvMsg(v) }
func (m minedClient) SendMsg(v any) error { m.send.step(); return m.ClientStream.SendMsg(v) }
func (m minedClient) RecvMsg(v any) error { m.recv.step(); return m.ClientStream.RecvMsg(v) }

var errShort = errors.New("the proper end, and not all elements")

// pump sends and receives until something fails. It closes everything and returns the error, as
// a handler with a recovery interceptor does.
func (s side) pump(ctx context.Context, count int64) error {
	ended := make(chan error, 2)
	part := func(f func() error) {
		go func() {
			returned, err := false, error(nil)
			defer func() {
				if p := recover(); p != nil || !returned {
					err = status.Errorf(codes.Internal, "recovered: %v", p)
				}
				ended <- err
			}()
			err = f()
			returned = true
		}()
	}
	parts := 0
	if s.out != nil {
		parts++
		part(func() error {
			defer s.out.Close()
			for n := int64(1); n <= count; n++ {
				if err := s.out.send(ctx, n); err != nil {
					return err
				}
				time.Sleep(time.Millisecond)
			}
			return s.out.Finish(ctx)
		})
	}
	if s.in != nil {
		parts++
		part(func() error {
			for got := int64(0); ; got++ {
				if _, err := s.in.recv(ctx); errors.Is(err, io.EOF) && got < count {
					return errShort
				} else if errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
			}
		})
	}
	var first error
	for range parts {
		if err := <-ended; first == nil || errors.Is(err, errShort) {
			first = err
		}
	}
	return first
}

// A panic or runtime.Goexit of an interceptor, a codec or a message ends the stream and not the
// process, in whatever goroutine it happens. Closing does not wait for the lost write, and both
// ends learn that the stream failed.
func TestAMessageThatPanics(t *testing.T) {
	const count = 40
	for _, atServer := range []bool{true, false} {
		for _, sending := range []bool{true, false} {
			for name, how := range abrupt {
				for _, nth := range []int64{1, 2, 5} {
					what := fmt.Sprintf("server %t/sending %t/%s/%d", atServer, sending, name, nth)
					t.Run(what, func(t *testing.T) {
						eachKind(t, func(t *testing.T, k kind) {
							bomb, never := &mine{how: how}, &mine{}
							send, recv := never, bomb
							if sending {
								send, recv = bomb, never
							}
							opts := wrapped(func(cs grpc.ClientStream) grpc.ClientStream {
								if atServer {
									return cs
								}
								return minedClient{cs, send, recv}
							}, func(ss grpc.ServerStream) grpc.ServerStream {
								if !atServer {
									return ss
								}
								return minedServer{ss, send, recv}
							})
							e := connect(t, k, nil, opened(streamcredit.WithWindow(4)), opts...)
							bomb.left.Store(nth)
							ctx := within(t, time.Hour)
							server := make(chan error, 1)
							go func() {
								err := e.server.pump(ctx, count)
								server <- err
								e.leave <- err
							}()
							began := time.Now()
							client := e.client.pump(ctx, count)
							e.cancel()
							if bomb.left.Load() > 0 {
								t.Skipf("only %d messages of that kind", nth-bomb.left.Load())
							}
							for end, err := range map[string]error{"client": client, "server": <-server} {
								if errors.Is(err, errShort) {
									t.Errorf("%s: got %v, want all elements or an error", end, err)
								}
							}
							if took := time.Since(began); took > 10*time.Second {
								t.Errorf("the end: got it after %v, want it at once", took)
							}
							synctest.Wait()
						})
					})
				}
			}
		}
	}
}

// A client's Open that panics in an interceptor leaves no call, no goroutine and no open stream.
func TestAnOpenThatPanics(t *testing.T) {
	for name, how := range abrupt {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bomb := &mine{how: how}
				var ended atomic.Bool
				bomb.left.Store(1)
				client := handlers{subscribe: func(stream subscribeServer) error {
					<-stream.Context().Done()
					ended.Store(true)
					return nil
				}}.start(t, minedStreams(bomb, &mine{})...)
				meter := streamcredit.NewMeter("feed")
				var caller sync.WaitGroup
				caller.Go(func() {
					defer func() { _ = recover() }()
					_, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithMeter(meter))
					t.Errorf("DialReceive: got %v, want the panic of the interceptor", err)
				})
				caller.Wait()
				time.Sleep(time.Minute)
				if n := meter.Stats().Streams; n != 0 || !ended.Load() {
					t.Errorf("a minute later: got %d open streams, a call that has ended %t, want 0 and true", n, ended.Load())
				}
			})
		})
	}
}
