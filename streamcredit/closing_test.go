package streamcredit_test

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

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/internal/racetest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// Finish does not wait for a Send that is stuck when its context ends.
func TestFinishWithAStuckSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		out, err := streamcredit.DialSend(ctx, deaf(t).Upload)
		if err != nil {
			t.Fatal(err)
		}
		go func() { sendOn(ctx, out, &demopb.UploadRequest{Payload: make([]byte, 1<<20)}) }()
		time.Sleep(time.Second)
		short := within(t, time.Second)
		closed := later(func() { _ = out.Finish(short) })
		time.Sleep(time.Hour)
		if !closed.Load() {
			t.Error("Finish: waits an hour after the end of its context, want its error")
		}
	})
}

// Finish does not wait for what Frames have queued, either.
func TestFinishOfFramesEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := grpctest.Start(t, func(r grpc.ServiceRegistrar) {
			creditpb.RegisterCreditStreamServer(r, frames{channel: func(s grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
				if _, err := s.Recv(); err != nil {
					return err
				}
				_ = s.Send(&creditpb.Frame{Body: &creditpb.Frame_Control{Control: helloFrom(&creditpb.Open{WillReceive: true, Initial: &creditpb.Request{N: 1 << 40}})}})
				<-s.Context().Done()
				return nil
			}})
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		both, err := streamcredit.DialFrames(ctx, creditpb.NewCreditStreamClient(p.Conn).Channel, streamcredit.WithSendOnly())
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			later(func() { _ = both.Out.Send(ctx, make([]byte, 100<<10)) })
			synctest.Wait()
		}
		short := within(t, time.Second)
		closed := later(func() { _ = both.Out.Finish(short) })
		time.Sleep(time.Hour)
		if !closed.Load() {
			t.Error("Finish: waits an hour after the end of its context, want its error")
		}
	})
}

// Close of a client ends the call, and a Send that is stuck with it.
func TestCloseWithAStuckSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		both, err := streamcredit.Dial(ctx, deaf(t).Convert)
		if err != nil {
			t.Fatal(err)
		}
		go func() { sendOn(ctx, both.Out, &demopb.ConvertRequest{Payload: make([]byte, 1<<20)}) }()
		time.Sleep(time.Second)
		closed := later(func() { _ = both.Close() })
		time.Sleep(time.Hour)
		if !closed.Load() {
			t.Error("Close of a client's Duplex: waits after an hour, want it to end the call")
		}
	})
}

// A server that took everything and ended the call before its client looked: all is well.
func TestFinishWhenTheCallHasEnded(t *testing.T) {
	var took atomic.Int64
	p := grpctest.Start(t, func(r grpc.ServiceRegistrar) {
		creditpb.RegisterCreditStreamServer(r, frames{channel: func(s grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
			both, _, err := streamcredit.ServeFrames(s, streamcredit.WithReceiveOnly())
			if err != nil {
				return err
			}
			for _, err := range both.In.All(s.Context()) {
				if err != nil {
					return err
				}
				took.Add(1)
			}
			return nil
		}})
	})
	failed := map[string]int{}
	for range 100 {
		both, err := streamcredit.DialFrames(t.Context(), func(ctx context.Context, opts ...grpc.CallOption) (lingering, error) {
			stream, err := creditpb.NewCreditStreamClient(p.Conn).Channel(ctx, opts...)
			return lingering{stream}, err
		}, streamcredit.WithSendOnly())
		if err != nil {
			t.Fatal(err)
		}
		if err := both.Out.Send(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if err := both.Out.Finish(t.Context()); err != nil {
			failed[err.Error()]++
		}
	}
	if len(failed) > 0 {
		t.Errorf("Finish, where the receiver took everything (%d of 100) and its handler returned nil: got errors %v, want none", took.Load(), failed)
	}
}

// lingering is a client's stream whose Send returns a little after the message has gone.
type lingering struct {
	creditpb.CreditStream_ChannelClient
}

func (l lingering) Send(f *creditpb.Frame) error {
	err := l.CreditStream_ChannelClient.Send(f)
	if f.GetControl().GetComplete() != nil {
		time.Sleep(time.Millisecond)
	}
	return err
}

// A handler that returns when its loop has ended has told the sender that all is consumed.
func TestTheLastReport(t *testing.T) {
	lost := map[string]int{}
	for range 100 {
		p := grpctest.Start(t, func(r grpc.ServiceRegistrar) {
			creditpb.RegisterCreditStreamServer(r, frames{channel: func(s grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
				both, _, err := streamcredit.ServeFrames(s, streamcredit.WithReceiveOnly())
				if err != nil {
					return err
				}
				for _, err := range both.In.All(s.Context()) {
					if err != nil {
						return err
					}
				}
				return nil
			}})
			demopb.RegisterStreamServiceServer(r, handlers{upload: func(s uploadServer) error {
				in, _, err := streamcredit.ServeReceive(s)
				if err != nil {
					return err
				}
				for _, err := range in.All(s.Context()) {
					if err != nil {
						return err
					}
				}
				return nil
			}})
		})
		both, err := streamcredit.DialFrames(t.Context(), creditpb.NewCreditStreamClient(p.Conn).Channel, streamcredit.WithSendOnly())
		if err != nil {
			t.Fatal(err)
		}
		up, err := streamcredit.DialSend(t.Context(), demopb.NewStreamServiceClient(p.Conn).Upload)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			_ = both.Out.Send(t.Context(), nil)
			_ = up.Send(t.Context(), &demopb.UploadRequest{})
		}
		_ = both.Out.Finish(t.Context())
		if err := up.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		if both.Out.Consumed() != 10 {
			lost["frames"]++
		}
		if up.Consumed() != 10 {
			lost["embedded"]++
		}
	}
	if len(lost) > 0 {
		t.Errorf("streams of 100 on which the receiver took all 10 elements, the handler returned nil, Finish nil, and Consumed stayed below 10: %v", lost)
	}
}

// What arrives after the handler has returned is given back to the budget.
func TestAnElementAfterTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(t, streamcredit.BudgetConfig{Messages: 1000})
		client := handlers{upload: func(stream uploadServer) error {
			in, _, err := streamcredit.ServeReceive(&lateRecv{uploadServer: stream}, streamcredit.WithBudget(b), streamcredit.WithWindow(8))
			if err != nil {
				return err
			}
			_, err = in.Recv(stream.Context())
			time.Sleep(time.Second)
			return err
		}}.start(t)
		out, err := streamcredit.DialSend(t.Context(), client.Upload)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := out.Send(t.Context(), &demopb.UploadRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		_ = out.Finish(within(t, time.Minute))
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := b.Stats(); got != (streamcredit.BudgetStats{}) {
			t.Errorf("budget after all streams have ended: got %+v, want nothing taken", got)
		}
	})
}

// lateRecv returns one element after the stream's context has ended, as gRPC may: its
// buffer and the context's end are both ready.
type lateRecv struct {
	uploadServer
	n atomic.Int64
}

func (l *lateRecv) Recv() (*demopb.UploadRequest, error) {
	if l.n.Add(1) == 3 { // Open, element 1, then this
		m, err := l.uploadServer.Recv()
		<-l.Context().Done()
		time.Sleep(time.Millisecond)
		return m, err
	}
	return l.uploadServer.Recv()
}

// So it is over real streams, many times.
func TestElementsAfterHandlers(t *testing.T) {
	b := newBudget(t, streamcredit.BudgetConfig{Messages: 1 << 40})
	client := handlers{upload: func(stream uploadServer) error {
		in, _, err := streamcredit.ServeReceive(stream, streamcredit.WithBudget(b), streamcredit.WithWindow(256))
		if err != nil {
			return err
		}
		_, err = in.Recv(stream.Context())
		return err
	}}.start(t)
	calls := 50
	if racetest.Enabled {
		calls = 15
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range calls {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				out, err := streamcredit.DialSend(ctx, client.Upload)
				if err == nil {
					for err == nil {
						err = out.Send(ctx, &demopb.UploadRequest{})
					}
					_ = out.Finish(ctx)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	begin := time.Now()
	for got := b.Stats(); got != (streamcredit.BudgetStats{}); got = b.Stats() {
		if time.Since(begin) > time.Minute {
			t.Fatalf("budget after all streams have ended: got %+v, want nothing taken", got)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A reason that is no UTF-8 is no reason for the call to fail: here of a server.
func TestCancelWithAnyText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := handlers{upload: func(stream uploadServer) error {
			in, _, err := streamcredit.ServeReceive(stream, streamcredit.WithWindow(8))
			if err != nil {
				return err
			}
			in.Cancel(badText)
			<-stream.Context().Done()
			return nil
		}}.start(t)
		out, err := streamcredit.DialSend(t.Context(), client.Upload)
		if err != nil {
			t.Fatal(err)
		}
		ctx := within(t, time.Hour)
		for err == nil {
			err = out.Send(ctx, &demopb.UploadRequest{})
		}
		if !errors.Is(err, streamcredit.ErrCanceled) {
			t.Errorf("Send after Cancel: got %v within an hour, want ErrCanceled", err)
		}
	})
}

// Here of a client, in one direction.
func TestCancelWithAnyTextByAClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := stageOf(t, nil, func(both *streamcredit.Duplex[*demopb.ConvertResponse, *demopb.ConvertRequest], ctx context.Context) error {
			for _, err := range both.In.All(ctx) {
				if err != nil {
					return err
				}
			}
			return nil
		})
		both, err := streamcredit.Dial(t.Context(), client.Convert)
		if err != nil {
			t.Fatal(err)
		}
		defer both.Close()
		both.In.Cancel(badText)
		synctest.Wait()
		if err := both.Out.Send(within(t, time.Minute), &demopb.ConvertRequest{}); err != nil {
			t.Errorf("Send in the other direction: got %v, want none: it goes on", err)
		}
	})
}

// Here in an error.
func TestCloseWithAnyText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream)
			if err != nil {
				return err
			}
			_ = out.CloseWithError(errors.New(badText))
			<-stream.Context().Done()
			return nil
		}}.start(t)
		in, err := streamcredit.DialReceive(t.Context(), client.Subscribe)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if _, err := in.Recv(within(t, time.Hour)); status.Code(err) != codes.Unknown {
			t.Errorf("Recv: got %v, want the sender's error: it has closed with one", err)
		}
	})
}

const badText = "a reason with a \xff byte, from a file name say"

// The stall timeout holds wherever a sender waits for demand.
func TestStallTimeoutWhereverOneWaits(t *testing.T) {
	for name, f := range map[string]func(ctx context.Context, out *streamcredit.Sender[*demopb.UploadRequest]) error{
		"Send": func(ctx context.Context, out *streamcredit.Sender[*demopb.UploadRequest]) error {
			return out.Send(ctx, &demopb.UploadRequest{})
		},
		"SendSeq": func(ctx context.Context, out *streamcredit.Sender[*demopb.UploadRequest]) error {
			return out.SendSeq(ctx, func(yield func(*demopb.UploadRequest) bool) { yield(&demopb.UploadRequest{}) })
		},
		"WaitCredit": func(ctx context.Context, out *streamcredit.Sender[*demopb.UploadRequest]) error {
			return out.WaitCredit(ctx)
		},
		"Outbox": func(ctx context.Context, out *streamcredit.Sender[*demopb.UploadRequest]) error {
			box, err := streamcredit.NewOutbox(ctx, out, streamcredit.OutboxConfig{})
			if err != nil {
				return err
			}
			_ = box.Put(ctx, &demopb.UploadRequest{})
			return box.Close(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := handlers{upload: func(stream uploadServer) error {
					_, _, err := streamcredit.ServeReceive(stream, streamcredit.WithManualDemand())
					if err != nil {
						return err
					}
					<-stream.Context().Done()
					return nil
				}}.start(t)
				out, err := streamcredit.DialSend(t.Context(), client.Upload, streamcredit.WithSendStallTimeout(time.Second))
				if err != nil {
					t.Fatal(err)
				}
				err = f(within(t, time.Hour), out)
				var v *streamcredit.ProtocolError
				if !errors.As(err, &v) || v.Reason != streamcredit.CreditStarved {
					t.Errorf("got %v, want CREDIT_STARVED after a second", err)
				}
			})
		})
	}
}

// A hook that leaves with Goexit ends the stream, as a panic does.
func TestGoexitInTheHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream, streamcredit.WithOnConsumed(func(uint64) {
				calls.Add(1)
				runtime.Goexit()
			}))
			if err != nil {
				return err
			}
			for i := range 10 {
				if err := out.Send(stream.Context(), event(i+1)); err != nil {
					return err
				}
				time.Sleep(time.Second)
			}
			return out.Finish(stream.Context())
		}}.start(t)
		in, err := streamcredit.DialReceive(t.Context(), client.Subscribe)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		for _, err = range in.All(t.Context()) {
			_ = err
		}
		if n := calls.Load(); n < 2 && err == nil {
			t.Errorf("the hook, which left with Goexit: called %d times and the stream ended with %v, want it called on or an error", n, err)
		}
	})
}

// Going away is an end in order: what was sent before it comes first, even if errors overtake.
func TestGoingAwayAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream)
			if err != nil {
				return err
			}
			for i := range 5 {
				if err := out.Send(stream.Context(), event(i+1)); err != nil {
					return err
				}
			}
			return out.CloseGoingAway()
		}}.start(t)
		in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithWindow(8), streamcredit.WithErrorAtOnce())
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		time.Sleep(time.Second)
		n := 0
		for _, err = range in.All(t.Context()) {
			if err == nil {
				n++
			}
		}
		if errors.Is(err, streamcredit.ErrGoingAway) && n != 5 {
			t.Errorf("got %d elements and %v, want the 5 that were sent before it", n, err)
		}
	})
}

// Nothing is drawn that could not be sent.
func TestSendSeqWithAnEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := connect(t, framesDown, opened(streamcredit.WithWindow(8)), nil)
		out := e.server.out.(outOf[[]byte]).Sender
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		drawn := 0
		err := out.SendSeq(ctx, func(yield func([]byte) bool) {
			for {
				drawn++
				if !yield(nil) {
					return
				}
			}
		})
		if drawn > 0 {
			t.Errorf("SendSeq = %v with a context that had ended: drew %d elements, want 0: they are lost", err, drawn)
		}
	})
}

// A client's Close ends the call where its own last words are stuck.
func TestCloseThatIsStuckItself(t *testing.T) {
	t.Run("Complete", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			both, err := streamcredit.Dial(t.Context(), deaf(t).Convert)
			if err != nil {
				t.Fatal(err)
			}
			if err := both.Out.Send(t.Context(), &demopb.ConvertRequest{Payload: make([]byte, 1<<20)}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			closed := later(func() { _ = both.Close() }) // the test is whether it returns
			time.Sleep(time.Minute)
			if !closed.Load() {
				t.Error("Close: it waits after a minute, want it to end the call")
			}
		})
	})
	t.Run("Cancel", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client := handlers{subscribe: func(stream subscribeServer) error {
				if _, _, err := streamcredit.ServeSend(stream); err != nil {
					return err
				}
				<-stream.Context().Done()
				return nil
			}}.start(t)
			in, err := streamcredit.DialReceive(t.Context(), func(ctx context.Context, o ...grpc.CallOption) (noCancel, error) {
				s, err := client.Subscribe(ctx, o...)
				return noCancel{s}, err
			})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			closed := later(func() { _ = in.Close() }) // likewise
			time.Sleep(time.Minute)
			if !closed.Load() {
				t.Error("Close: it waits after a minute, want it to end the call")
			}
		})
	})
}

// noCancel is a client's stream that does not take Cancel.
type noCancel struct {
	demopb.StreamService_SubscribeClient
}

func (s noCancel) Send(m *demopb.SubscribeRequest) error {
	if m.GetCredit().GetCancel() == nil {
		return s.StreamService_SubscribeClient.Send(m)
	}
	<-s.Context().Done()
	return io.EOF
}
