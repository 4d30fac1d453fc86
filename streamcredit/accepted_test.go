package streamcredit_test

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/internal/grpctest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// sendsAndReturns is a handler of Frames that sends so many elements and returns nil, without
// having closed. accepted is how many Send has taken.
func sendsAndReturns(count int, accepted *int) func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
	return func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
		both, _, err := streamcredit.ServeFrames(stream, streamcredit.WithSendOnly())
		if err != nil {
			return err
		}
		for range count {
			if err := both.Out.Send(stream.Context(), make([]byte, 100)); err != nil {
				return err
			}
			*accepted++
		}
		return nil
	}
}

// A client that knows nothing of the trailer gets every element that Send has accepted, as
// the status OK says.
func TestAHandlerThatJustReturnsLosesNothing(t *testing.T) {
	for range 20 { // it is a race where it fails
		synctest.Test(t, func(t *testing.T) {
			const count = 500
			accepted, got := 0, 0
			r := receiveRaw(t, sendsAndReturns(count, &accepted), &creditpb.Open{Features: allFeatures, Initial: &creditpb.Request{N: count}})
			for {
				_, n, err := r.recv()
				if got += n; errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if got != accepted || accepted != count {
				t.Fatalf("got %d elements and OK, want the %d that Send accepted", got, accepted)
			}
		})
	}
}

// weir's client does not take OK for the end where elements may be missing.
func TestAnEndWithoutCompleteIsNoEnd(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			const count = 500
			accepted, got := 0, 0
			p := grpctest.Start(t, func(r grpc.ServiceRegistrar) {
				creditpb.RegisterCreditStreamServer(r, frames{channel: sendsAndReturns(count, &accepted)})
			})
			both, err := streamcredit.DialFrames(t.Context(), creditpb.NewCreditStreamClient(p.Conn).Channel,
				streamcredit.WithReceiveOnly(), streamcredit.WithWindow(1000))
			if err != nil {
				t.Fatal(err)
			}
			defer both.Close()
			for err == nil {
				if _, err = both.In.Recv(within(t, time.Minute)); err == nil {
					got++
				}
			}
			if v, ok := errors.AsType[*streamcredit.ProtocolError](err); !ok || v.Reason != streamcredit.CountMismatch {
				t.Fatalf("after %d of %d elements: got %v, want %s", got, accepted, err, streamcredit.CountMismatch)
			}
		})
	}
}

// A handler that has sent nothing, or has said how it ended, returns nil as ever.
func TestEndsInOrderOfFrames(t *testing.T) {
	for name, end := range map[string]func(stream grpc.ServerStream, both *streamcredit.Duplex[[]byte, []byte]) error{
		"nothing sent": func(grpc.ServerStream, *streamcredit.Duplex[[]byte, []byte]) error { return nil },
		"Close": func(stream grpc.ServerStream, both *streamcredit.Duplex[[]byte, []byte]) error {
			return errors.Join(both.Out.Send(stream.Context(), []byte("element")), both.Close())
		},
		"Finish": func(stream grpc.ServerStream, both *streamcredit.Duplex[[]byte, []byte]) error {
			return errors.Join(both.Out.Send(stream.Context(), []byte("element")), both.Out.Finish(stream.Context()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := grpctest.Start(t, func(r grpc.ServiceRegistrar) {
					creditpb.RegisterCreditStreamServer(r, frames{channel: func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
						both, _, err := streamcredit.ServeFrames(stream)
						if err != nil {
							return err
						}
						return end(stream, both)
					}})
				})
				both, err := streamcredit.DialFrames(t.Context(), creditpb.NewCreditStreamClient(p.Conn).Channel)
				if err != nil {
					t.Fatal(err)
				}
				for err == nil {
					_, err = both.In.Recv(within(t, time.Minute))
				}
				if !errors.Is(err, io.EOF) {
					t.Errorf("Recv at the end: got %v, want io.EOF", err)
				}
				if err := both.Close(); err != nil {
					t.Errorf("Close: got %v, want no error", err)
				}
			})
		})
	}
}
