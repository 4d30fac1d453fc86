package weirtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors"
)

// bufferSize is how many bytes one direction of a connection holds.
const bufferSize = 256 << 10

// A Server is a gRPC server in memory that a gate guards, unary calls and streams alike.
// Its methods are safe for concurrent use. Use [NewServer].
type Server struct {
	listener *bufconn.Listener
	server   *grpc.Server
	served   chan struct{}

	mu    sync.Mutex // guards what follows
	conns []*grpc.ClientConn
	ended bool
}

// NewServer starts a server of the services that register registers. It refuses the
// calls that the gate refuses, so with a gate from [NewGate] the first n calls, and each
// attempt of a call that is retried counts. The options are those of the interceptors.
// Close the server when the test ends.
//
// It returns an error if the gate or register is nil.
func NewServer(gate *admit.Gate, register func(grpc.ServiceRegistrar), opts ...interceptors.ServerOption) (*Server, error) {
	var errs []error
	if gate == nil {
		errs = append(errs, errors.New("weirtest: gate: got nil, want one, as from NewGate"))
	}
	if register == nil {
		errs = append(errs, errors.New("weirtest: register: got nil, want a function that registers services"))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	s := &Server{
		listener: bufconn.Listen(bufferSize),
		server: grpc.NewServer(grpc.WaitForHandlers(true),
			grpc.UnaryInterceptor(interceptors.UnaryServer(gate, opts...)),
			grpc.StreamInterceptor(interceptors.StreamServer(gate, opts...))),
		served: make(chan struct{}),
	}
	register(s.server)
	go func() {
		defer close(s.served)
		_ = s.server.Serve(s.listener) // it has no error to return after Stop
	}()
	return s, nil
}

// Dial returns a client of the server, which connects at its first call. Close closes
// it, too. The options win over those with which it reaches the server without
// encryption. It returns the errors of grpc.NewClient, and an error if the server is
// closed.
func (s *Server) Dial(opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, errors.New("weirtest: dial: the server is closed")
	}
	own := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.listener.DialContext(ctx) }),
	}
	conn, err := grpc.NewClient("passthrough:///weirtest", append(own, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("weirtest: dial: %w", err)
	}
	s.conns = append(s.conns, conn)
	return conn, nil
}

// Close closes the clients, stops the server, and waits for its handlers, whose contexts
// end. A handler that does not return then keeps Close waiting. Calling it again does
// nothing.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	for _, conn := range s.conns {
		_ = conn.Close() // the test may have closed it
	}
	s.server.Stop()
	<-s.served
}
