package calltest

import (
	"context"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/weir-go/weir/examples/demopb"
)

// Serve runs a server in memory and returns a client of it.
func Serve(server *grpc.Server, opts ...grpc.DialOption) (client demopb.DemoServiceClient, stop func()) {
	return ServeWith(&Service{}, server, opts...)
}

// ServeWith is Serve with a service.
func ServeWith(svc *Service, server *grpc.Server, opts ...grpc.DialOption) (client demopb.DemoServiceClient, stop func()) {
	demopb.RegisterDemoServiceServer(server, svc)
	lis := bufconn.Listen(1 << 16)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(lis) // it ends with the server
	}()
	conn, err := grpc.NewClient("passthrough:///memory", append(opts,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))...)
	if err != nil {
		log.Fatal(err)
	}
	return demopb.NewDemoServiceClient(conn), func() {
		_ = conn.Close()
		server.Stop()
		<-served
	}
}
