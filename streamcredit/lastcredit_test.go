package streamcredit_test

import (
	"testing"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// The client grants one element and half-closes. An interceptor of the server refuses the first
// attempt, so the credit is still there for the next one.
func TestTheLastCreditSurvivesARefusedElement(t *testing.T) {
	interceptor := func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		return next(srv, picky{s, func() {}})
	}
	closed := make(chan struct{})
	client := handlers{subscribe: func(stream subscribeServer) error {
		out, _, err := streamcredit.ServeSend(stream)
		if err != nil {
			return err
		}
		<-closed
		if err := out.Send(stream.Context(), event(2)); err == nil {
			t.Error("a refused element: got no error, want one")
		}
		if err := out.Send(stream.Context(), event(1)); err != nil {
			t.Errorf("the next element: got %v, want it sent", err)
		}
		return nil
	}}.start(t, grpctest.ServerOptions(grpc.StreamInterceptor(interceptor)))
	stream, err := client.Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	open := &creditpb.Control{Kind: &creditpb.Control_Open{Open: &creditpb.Open{
		WillReceive: true, Initial: &creditpb.Request{N: 1},
	}}}
	if err := stream.Send(&demopb.SubscribeRequest{Credit: open}); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil { // the server's Open
		t.Fatal(err)
	}
	close(closed)
	got, err := stream.Recv()
	if err != nil || got.GetNumber() != 1 {
		t.Errorf("element: got %v, %v, want number 1", got, err)
	}
}
