package overload

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-go/weir/examples/demopb"
)

// Register makes a gRPC server pass each call to work.
func Register(s grpc.ServiceRegistrar, work func(context.Context)) {
	demopb.RegisterDemoServiceServer(s, &handler{work: work})
}

// A Client is a few connections to one server. It is safe for concurrent use.
type Client struct {
	conns []*grpc.ClientConn
	stubs []demopb.DemoServiceClient
}

// Connect returns a client with n connections. The first calls connect.
func Connect(target string, n int, dial ...grpc.DialOption) (*Client, error) {
	c := &Client{}
	dial = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, dial...)
	for range n {
		conn, err := grpc.NewClient("passthrough:///"+target, dial...)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.conns = append(c.conns, conn)
		c.stubs = append(c.stubs, demopb.NewDemoServiceClient(conn))
	}
	return c, nil
}

// Call makes a call over one of the connections, chosen by i.
func (c *Client) Call(ctx context.Context, i int64) error {
	_, err := c.stubs[int(i)%len(c.stubs)].Work(ctx, &demopb.WorkRequest{Name: "caller"})
	return err
}

// Close closes the connections. Calls under way fail.
func (c *Client) Close() error {
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// A Server is a real gRPC server on a loopback socket, and a client of it.
type Server struct {
	*Client

	// Addr is the address that it listens on.
	Addr string

	grpc *grpc.Server
	done chan error
}

// Serve starts a server that passes each call to work, and a client with n
// connections.
func Serve(work func(context.Context), n int, opts ...grpc.ServerOption) (*Server, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	client, err := Connect(lis.Addr().String(), n)
	if err != nil {
		return nil, errors.Join(err, lis.Close())
	}
	s := &Server{Client: client, Addr: lis.Addr().String(), grpc: grpc.NewServer(opts...), done: make(chan error, 1)}
	Register(s.grpc, work)
	go func() { s.done <- s.grpc.Serve(lis) }()
	return s, nil
}

// Stop closes the connections and the server, and waits for its handlers.
func (s *Server) Stop() error {
	err := s.Close()
	s.grpc.Stop()
	return errors.Join(err, <-s.done)
}

type handler struct {
	demopb.UnimplementedDemoServiceServer
	work func(context.Context)
}

func (h *handler) Work(ctx context.Context, req *demopb.WorkRequest) (*demopb.WorkResponse, error) {
	h.work(ctx)
	return &demopb.WorkResponse{Message: "done for " + req.GetName()}, nil
}
