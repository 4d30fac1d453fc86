package recipes_test

import (
	"context"
	"net"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is the server of the examples: each field is a method, and a nil one does nothing.
type service struct {
	demopb.UnimplementedDemoServiceServer
	demopb.UnimplementedStreamServiceServer
	subscribe func(subscribeServer) error
}

type subscribeServer = grpc.BidiStreamingServer[demopb.SubscribeRequest, demopb.SubscribeResponse]

func (s service) Work(_ context.Context, r *demopb.WorkRequest) (*demopb.WorkResponse, error) {
	return &demopb.WorkResponse{Message: "done for " + r.GetName()}, nil
}

func (s service) Subscribe(stream subscribeServer) error { return s.subscribe(stream) }

// serve serves s in memory behind a gate, until stop is called. A client reaches it at target, with the options.
func serve(t *testing.T, gate *admit.Gate, s service) (stop func(), target string, opts []grpc.DialOption) {
	t.Helper()
	behind, err := interceptors.Server(interceptors.ServerConfig{Gate: gate})
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(behind...)
	demopb.RegisterDemoServiceServer(server, s)
	demopb.RegisterStreamServiceServer(server, s)
	lis := bufconn.Listen(1 << 16)
	served := make(chan error)
	go func() { served <- server.Serve(lis) }()
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }
	stop = func() {
		server.Stop()
		<-served
	}
	return stop, "passthrough:///memory", []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial),
	}
}

// caller returns the tenant that authentication has put into the context.
func caller(ctx context.Context, _ interceptors.CallMeta) string {
	name, _ := ctx.Value(callerKey{}).(string)
	return name
}

type callerKey struct{}
