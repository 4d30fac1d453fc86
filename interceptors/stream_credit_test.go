package interceptors_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/internal/grpctest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

type subscriptions struct {
	demopb.UnimplementedStreamServiceServer
	serve func(demopb.StreamService_SubscribeServer) error
}

func (s *subscriptions) Subscribe(stream demopb.StreamService_SubscribeServer) error {
	return s.serve(stream)
}

// A stream with credit whose client asks for much and reads nothing ends like any other, without
// a heartbeat, and says why.
func TestACreditStreamThatIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := strict(t, 1)
		sent := make(chan error, 1)
		svc := &subscriptions{serve: func(stream demopb.StreamService_SubscribeServer) error {
			out, _, err := streamcredit.ServeSend(stream)
			for err == nil {
				err = out.Send(context.Background(), &demopb.SubscribeResponse{Payload: make([]byte, 1000)})
			}
			sent <- err
			return err
		}}
		p := grpctest.Start(t, func(r grpc.ServiceRegistrar) { demopb.RegisterStreamServiceServer(r, svc) },
			grpctest.ServerOptions(grpc.StreamInterceptor(interceptors.StreamServer(g))))
		stream, err := demopb.NewStreamServiceClient(p.Conn).Subscribe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := stream.Send(&demopb.SubscribeRequest{Credit: &creditpb.Control{Kind: &creditpb.Control_Open{Open: &creditpb.Open{
			WillReceive: true, Initial: &creditpb.Request{N: 1 << 20},
		}}}}); err != nil {
			t.Fatal(err)
		}
		wantStalled(t, <-sent)
		wantTook(t, "Send", start, stallBound, stallBound+stallSlack)
		synctest.Wait()
		atRest(t, g, 1, 0, 0)
	})
}
