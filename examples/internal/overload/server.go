package overload

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-go/weir/examples/demopb"
)

// RetryConfig is the service config of the callers: they try again, and heed
// the delay that a server asks for.
const RetryConfig = `{"methodConfig": [{
	"name": [{"service": "weir.demo.v1.DemoService"}],
	"retryPolicy": {
		"maxAttempts": 3, "initialBackoff": "0.02s", "maxBackoff": "0.5s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]
	}}]}`

// A Server is a Service behind a real gRPC server on a loopback socket, and
// connections to it.
type Server struct {
	// Addr is where it listens.
	Addr string

	grpc  *grpc.Server
	conns []*grpc.ClientConn
	stubs []demopb.DemoServiceClient
	done  chan error
}

// Serve starts a server that passes each call to work, and opens n connections.
func Serve(work func(context.Context), n int, dial []grpc.DialOption, opts ...grpc.ServerOption) (*Server, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{Addr: lis.Addr().String(), grpc: grpc.NewServer(opts...), done: make(chan error, 1)}
	demopb.RegisterDemoServiceServer(s.grpc, &handler{work: work})
	go func() { s.done <- s.grpc.Serve(lis) }()
	dial = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, dial...)
	for range n {
		conn, err := grpc.NewClient("passthrough:///"+s.Addr, dial...)
		if err != nil {
			return nil, errors.Join(err, s.Stop())
		}
		s.conns = append(s.conns, conn)
		s.stubs = append(s.stubs, demopb.NewDemoServiceClient(conn))
	}
	return s, nil
}

// Call makes a call over one of the connections, chosen by i.
func (s *Server) Call(ctx context.Context, i int64) error {
	_, err := s.stubs[int(i)%len(s.stubs)].Work(ctx, &demopb.WorkRequest{Name: "caller"})
	return err
}

// Stop closes the connections and the server, and waits for its handlers.
func (s *Server) Stop() error {
	var errs []error
	for _, c := range s.conns {
		errs = append(errs, c.Close())
	}
	s.grpc.Stop()
	return errors.Join(append(errs, <-s.done)...)
}

type handler struct {
	demopb.UnimplementedDemoServiceServer
	work func(context.Context)
}

func (h *handler) Work(ctx context.Context, req *demopb.WorkRequest) (*demopb.WorkResponse, error) {
	h.work(ctx)
	return &demopb.WorkResponse{Message: "done for " + req.GetName()}, nil
}
