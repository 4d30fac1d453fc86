package streamcredit_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/streamcredit"
)

// recovering is an interceptor that makes a status of a handler's panic, as services have.
func recovering(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = status.Errorf(codes.Internal, "recovered: %v", p)
		}
	}()
	return handler(srv, stream)
}

// sendOn sends an element until that fails.
func sendOn[T any](ctx context.Context, out *streamcredit.Sender[T], e T) {
	var err error
	for err == nil {
		err = out.Send(ctx, e)
	}
}

// How a handler can leave in the middle, besides to return.
var abrupt = map[string]func(){
	"panic":  func() { panic("the handler's") },
	"Goexit": runtime.Goexit,
}

// A handler that leaves in the middle of anything leaves no goroutine, which would hold up
// the bubble, and no part of the budget behind. gRPC ends the stream after a panic that was
// recovered; after Goexit the client has to.
func TestAHandlerLeavesInTheMiddle(t *testing.T) {
	for what, leave := range map[string]func(stream convertServer, both *streamcredit.Duplex[*demopb.ConvertResponse, *demopb.ConvertRequest], how func()){
		"of All": func(stream convertServer, both *streamcredit.Duplex[*demopb.ConvertResponse, *demopb.ConvertRequest], how func()) {
			for range both.In.All(stream.Context()) {
				how()
			}
		},
		"of SendSeq": func(stream convertServer, both *streamcredit.Duplex[*demopb.ConvertResponse, *demopb.ConvertRequest], how func()) {
			var elements iter.Seq[*demopb.ConvertResponse] = func(yield func(*demopb.ConvertResponse) bool) {
				if yield(&demopb.ConvertResponse{}) {
					how()
				}
			}
			_ = both.Out.SendSeq(stream.Context(), elements)
		},
		"with a Send that waits": func(stream convertServer, both *streamcredit.Duplex[*demopb.ConvertResponse, *demopb.ConvertRequest], how func()) {
			for range 2 {
				go func() {
					sendOn(context.WithoutCancel(stream.Context()), both.Out, &demopb.ConvertResponse{})
				}()
			}
			time.Sleep(time.Second)
			how()
		},
		"with a Recv that waits": func(stream convertServer, both *streamcredit.Duplex[*demopb.ConvertResponse, *demopb.ConvertRequest], how func()) {
			for range 2 {
				go func() {
					for {
						if _, err := both.In.Recv(context.WithoutCancel(stream.Context())); err != nil {
							return
						}
						time.Sleep(20 * time.Millisecond)
					}
				}()
			}
			time.Sleep(time.Second)
			how()
		},
		"of a Pipe": func(stream convertServer, both *streamcredit.Duplex[*demopb.ConvertResponse, *demopb.ConvertRequest], how func()) {
			_ = streamcredit.Pipe(stream.Context(), both.In, both.Out, func(context.Context, *demopb.ConvertRequest) (*demopb.ConvertResponse, error) {
				how()
				return nil, nil
			})
		},
	} {
		for name, how := range abrupt {
			t.Run(fmt.Sprint(name, " in the middle ", what), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					budget := newBudget(t, streamcredit.BudgetConfig{Messages: 1000})
					opts := opened(streamcredit.WithBudget(budget), streamcredit.WithWindow(8))
					if what == "of a Pipe" {
						opts = opened(streamcredit.WithManualDemand(), streamcredit.WithBudget(budget))
					}
					client := handlers{convert: func(stream convertServer) error {
						both, _, err := streamcredit.Serve(stream, opts...)
						if err != nil {
							return err
						}
						leave(stream, both, how)
						return nil
					}}.start(t, grpctest.ServerOptions(grpc.StreamInterceptor(recovering)))
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					both, err := streamcredit.Dial(ctx, client.Convert, streamcredit.WithWindow(8))
					if err != nil {
						t.Fatal(err)
					}
					var sender sync.WaitGroup
					sender.Go(func() {
						sendOn(ctx, both.Out, &demopb.ConvertRequest{})
					})
					for waiting := within(t, time.Minute); err == nil; {
						_, err = both.In.Recv(waiting)
						time.Sleep(20 * time.Millisecond)
					}
					if name == "panic" && status.Code(err) != codes.Internal {
						t.Errorf("Recv: got %v, want %v", err, codes.Internal)
					}
					if name == "Goexit" && !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("Recv: got %v, want it to wait: nobody has ended the call", err)
					}
					cancel()
					sender.Wait()
					time.Sleep(time.Minute)
					synctest.Wait()
					if got := budget.Stats(); got != (streamcredit.BudgetStats{}) {
						t.Errorf("budget at the end: got %+v, want nothing taken", got)
					}
				})
			})
		}
	}
}

// The body of a client's loop leaves in the middle; Close, deferred, cleans up.
func TestAClientLeavesInTheMiddle(t *testing.T) {
	for name, how := range abrupt {
		t.Run(name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, k kind) {
				budget := newBudget(t, streamcredit.BudgetConfig{Messages: 1000})
				opts := opened(streamcredit.WithBudget(budget), streamcredit.WithWindow(8))
				e := connect(t, k, opts, opts)
				out, in := e.down()
				sendAll(t, out, 1, 8)
				over := make(chan struct{})
				go func() {
					defer close(over)
					defer func() { _ = recover() }()
					defer in.Close()
					in.all(t.Context(), func(n int64, _ error) bool {
						if n == 3 {
							how()
						}
						return true
					})
				}()
				<-over
				synctest.Wait()
				if err := out.send(within(t, time.Second), 9); !errors.Is(err, streamcredit.ErrCanceled) && status.Code(err) != codes.Canceled {
					t.Errorf("Send: got %v, want that the receiver has left", err)
				}
				e.end()
				synctest.Wait()
				if got := budget.Stats(); got != (streamcredit.BudgetStats{}) {
					t.Errorf("budget at the end: got %+v, want nothing taken", got)
				}
			})
		})
	}
}

// A panic in Pipe's function is its caller's.
func TestAPanicInAPipeIsTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		manual := opened(streamcredit.WithManualDemand())
		e := connect(t, converts, nil, manual)
		sendNext := later(func() { sendAll(t, e.client.out, 1, 1) })
		in, out := e.server.in.(inOf[*demopb.ConvertRequest]), e.server.out.(outOf[*demopb.ConvertResponse])
		var got any
		func() {
			defer func() { got = recover() }()
			_ = streamcredit.Pipe(t.Context(), in.Receiver, out.Sender, func(context.Context, *demopb.ConvertRequest) (*demopb.ConvertResponse, error) {
				panic("the function's")
			})
		}()
		if got != "the function's" {
			t.Errorf("recovered: got %v, want the function's own panic", got)
		}
		synctest.Wait()
		if !sendNext.Load() {
			t.Error("the Send that met the panic waits, want it to have returned")
		}
	})
}
