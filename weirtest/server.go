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

// bufferSize is the buffer of one direction of a connection, in bytes.
const bufferSize = 256 << 10

// A Server is a gRPC server in memory. A gate admits its unary calls and streams. Its
// methods are safe for concurrent use. Use [NewServer].
type Server struct {
	listener *bufconn.Listener
	server   *grpc.Server
	served   chan struct{}

	mu    sync.Mutex // guards the fields below
	conns []*grpc.ClientConn
	ended bool
}

// NewServer starts a server with the services that register registers. The server refuses
// a call if the gate does. With a gate from [NewGate] these are the first n calls, and each
// attempt of a retried call counts. The options go to the interceptors. Close the server
// when the test ends.
//
// It returns an error if the gate or register is nil, and the errors of interceptors.Server for
// a zero gate or a wrong option.
func NewServer(gate *admit.Gate, register func(grpc.ServiceRegistrar), opts ...interceptors.ServerOption) (*Server, error) {
	var errs []error
	if gate == nil {
		errs = append(errs, errors.New("weirtest: gate: got nil, want one, as from NewGate"))
	} else if _, err := interceptors.Server(interceptors.ServerConfig{Gate: gate}, opts...); err != nil {
		errs = append(errs, fmt.Errorf("weirtest: %w", err))
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
		_ = s.server.Serve(s.listener) // it returns no error after Stop
	}()
	return s, nil
}

// Dial returns a client of the server. The client connects at its first call, without
// encryption unless an option says otherwise. Close of the server closes it. Dial returns
// the errors of grpc.NewClient, and an error if the server is closed.
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

// Close closes the clients, stops the server, cancels the contexts of its handlers, and
// waits for them. It blocks until every handler has returned. A second Close does nothing.
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
