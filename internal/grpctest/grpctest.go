// Package grpctest starts a gRPC server and a client of it inside a test.
//
// By default they are connected through memory. Nothing depends on the machine then, and
// everything, grpc-go included, runs in a testing/synctest bubble. An hour of deadlines,
// queues and back-offs passes at once, exact to the nanosecond. Real sockets do not work in
// a bubble, because a goroutine that waits for the network is not durably blocked. Use
// [OverSocket] for a test that needs them.
package grpctest

import (
	"context"
	"errors"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// bufferSize is the buffer of one direction of an in-memory connection, in bytes. A writer
// blocks when it is full.
const bufferSize = 256 << 10

// A Pair is a running server and one client of it. Its methods are safe for
// concurrent use. Use [Start].
type Pair struct {
	// Server is serving. A test may stop it.
	Server *grpc.Server
	// Conn connects at the first call. A test may close it.
	Conn *grpc.ClientConn
	// Addr is the address of the server. It is host:port with OverSocket, and otherwise
	// has no meaning outside of this package.
	Addr string

	dial func(context.Context) (net.Conn, error)
}

// An Option configures [Start].
type Option interface{ apply(*config) }

type config struct {
	server []grpc.ServerOption
	dial   []grpc.DialOption
	socket bool
}

type optionFunc func(*config)

func (f optionFunc) apply(c *config) { f(c) }

// ServerOptions adds options of the server. They take precedence over the only option of
// this package, which is that stopping waits for handlers.
func ServerOptions(opts ...grpc.ServerOption) Option {
	return optionFunc(func(c *config) { c.server = append(c.server, opts...) })
}

// DialOptions adds options of the first client, [Pair.Conn]. They take precedence over the
// options of this package, which are no encryption and the dialer.
func DialOptions(opts ...grpc.DialOption) Option {
	return optionFunc(func(c *config) { c.dial = append(c.dial, opts...) })
}

// OverSocket connects client and server over TCP, on a free port of the loopback interface.
// It cannot be used in a bubble.
func OverSocket() Option {
	return optionFunc(func(c *config) { c.socket = true })
}

// Start starts a server with the services that register registers, and returns when it
// accepts calls. At the end of the test and its subtests, it closes the client, stops the
// server and waits for its handlers. A handler that does not end with its context hangs the
// test. In a bubble, t must be the bubble's.
func Start(t testing.TB, register func(grpc.ServiceRegistrar), opts ...Option) *Pair {
	t.Helper()
	c := config{server: []grpc.ServerOption{grpc.WaitForHandlers(true)}}
	for _, o := range opts {
		o.apply(&c)
	}
	p := &Pair{Server: grpc.NewServer(c.server...)}
	register(p.Server)
	p.serve(t, p.listen(t, c.socket))
	p.Conn = p.Dial(t, c.dial...)
	return p
}

// Dial returns another client with a connection of its own. It does not block, because the
// first call connects. The client is closed at the end of the test.
func (p *Pair) Dial(t testing.TB, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	own := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.dial(ctx) }),
	}
	conn, err := grpc.NewClient("passthrough:///"+p.Addr, append(own, opts...)...)
	if err != nil {
		t.Fatalf("grpctest: new client: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	return conn
}

// NetConn returns a bare connection to the server, for a test that writes its own HTTP/2
// frames. It is closed at the end of the test.
func (p *Pair) NetConn(t testing.TB) net.Conn {
	t.Helper()
	conn, err := p.dial(t.Context())
	if err != nil {
		t.Fatalf("grpctest: dial %s: %v", p.Addr, err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	return conn
}

// listen opens the server's end and sets the dialer.
func (p *Pair) listen(t testing.TB, socket bool) net.Listener {
	t.Helper()
	if !socket {
		l := bufconn.Listen(bufferSize)
		p.Addr, p.dial = l.Addr().String(), l.DialContext
		return l
	}
	var c net.ListenConfig
	l, err := c.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("grpctest: listen: %v", err)
	}
	p.Addr = l.Addr().String()
	p.dial = func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", p.Addr)
	}
	return l
}

// serve runs the server until the test ends. Clean-ups run last in, first out, so the
// clients, which are created later, are closed before the server stops.
func (p *Pair) serve(t testing.TB, l net.Listener) {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- p.Server.Serve(l) }()
	t.Cleanup(func() {
		p.Server.Stop()
		// Serve returns ErrServerStopped if the test has stopped the server before.
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("grpctest: serve: %v", err)
		}
	})
}
