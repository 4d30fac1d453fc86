package streamcredit_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// A setup element of the wrong type is found before a call is made.
func TestAWrongSetupMakesNoCall(t *testing.T) {
	for name, wrong := range map[string]any{
		"another message": &demopb.ConvertRequest{}, "a value": demopb.SubscribeRequest{}, "nil": (*demopb.SubscribeRequest)(nil),
		"one with Control": &demopb.SubscribeRequest{Credit: &creditpb.Control{}},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			open := func(context.Context, ...grpc.CallOption) (grpc.BidiStreamingClient[demopb.SubscribeRequest, demopb.SubscribeResponse], error) {
				calls++
				return nil, errors.New("a call was made")
			}
			_, err := streamcredit.DialReceive(t.Context(), open, streamcredit.WithSetup(wrong))
			if !errors.Is(err, streamcredit.ErrInvalid) || calls > 0 {
				t.Errorf("DialReceive: got %v and %d calls, want ErrInvalid and none", err, calls)
			}
		})
	}
	open := func(context.Context, ...grpc.CallOption) (grpc.BidiStreamingClient[creditpb.Frame, creditpb.Frame], error) {
		return nil, errors.New("a call was made")
	}
	if _, err := streamcredit.DialFrames(t.Context(), open, streamcredit.WithSetup("text")); !errors.Is(err, streamcredit.ErrInvalid) {
		t.Errorf("DialFrames: got %v, want ErrInvalid", err)
	}
}

// Call options reach the call.
func TestCallOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := handlers{subscribe: func(stream subscribeServer) error {
			if err := grpc.SetHeader(stream.Context(), metadata.Pairs("greeting", "hello")); err != nil {
				return err
			}
			out, _, err := streamcredit.ServeSend(stream)
			if err != nil {
				return err
			}
			return out.Finish(stream.Context())
		}}.start(t)
		var header metadata.MD
		in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithCallOptions(grpc.Header(&header)))
		if err != nil {
			t.Fatal(err)
		}
		for range in.All(within(t, time.Minute)) {
			t.Error("got an element, want none")
		}
		if err := in.Close(); err != nil {
			t.Errorf("Close: got %v, want no error", err)
		}
		if got := header.Get("greeting"); len(got) != 1 || got[0] != "hello" {
			t.Errorf("the header: got %q, want hello", got)
		}
	})
	if _, _, err := streamcredit.ServeFrames(nil, streamcredit.WithCallOptions(grpc.WaitForReady(true))); !errors.Is(err, streamcredit.ErrInvalid) {
		t.Errorf("ServeFrames with call options: got %v, want ErrInvalid", err)
	}
}

// A peer that cannot be watched is refused, and told why.
func TestHeartbeatsThatThePeerDoesNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := receiveRaw(t, func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
			_, _, err := streamcredit.ServeFrames(stream, streamcredit.WithSendOnly(), streamcredit.WithHeartbeat(time.Second))
			return err
		}, &creditpb.Open{Features: []creditpb.Feature{creditpb.Feature_FEATURE_CONSUMED}})
		_, _, err := r.recv()
		wantViolation(t, err, streamcredit.VersionMismatch)
	})
	synctest.Test(t, func(t *testing.T) {
		p := grpctest.Start(t, func(r grpc.ServiceRegistrar) {
			creditpb.RegisterCreditStreamServer(r, frames{channel: func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
				_, _ = stream.Recv()
				_ = stream.Send(&creditpb.Frame{Body: &creditpb.Frame_Control{Control: &creditpb.Control{
					Kind: &creditpb.Control_Open{Open: &creditpb.Open{WillSend: true}},
				}}})
				<-stream.Context().Done()
				return nil
			}})
		})
		both, err := streamcredit.DialFrames(t.Context(), creditpb.NewCreditStreamClient(p.Conn).Channel, streamcredit.WithReceiveOnly(),
			streamcredit.WithHeartbeat(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		defer both.Close()
		if _, err := both.In.Recv(within(t, time.Minute)); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("Recv: got %v, want %v", err, codes.FailedPrecondition)
		}
	})
}
