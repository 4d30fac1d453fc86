// Package grpctest starts a gRPC server and a client of it inside a test.
//
// By default the two talk through memory. Nothing then depends on the machine,
// and the whole of it, grpc-go included, runs in a testing/synctest bubble: an
// hour of deadlines, queues and back-offs passes at once and to the nanosecond.
// Real sockets do not work in a bubble, because a goroutine that waits for the
// network is not durably blocked; [OverSocket] is for what needs them anyway.
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

// bufferSize is how many bytes one direction of an in-memory connection holds
// before the writer waits, as the kernel's buffers do.
const bufferSize = 256 << 10

// A Pair is a running server and one client of it. Its methods are safe for
// concurrent use. The zero value is of no use; see [Start].
type Pair struct {
	// Server is serving. A test may stop it.
	Server *grpc.Server
	// Conn connects at the first call. A test may close it.
	Conn *grpc.ClientConn
	// Addr is what the server listens on: host:port with OverSocket, otherwise
	// a word that means nothing outside of this package.
	Addr string

	dial func(context.Context) (net.Conn, error)
}

// An Option changes what [Start] starts.
type Option interface{ apply(*config) }

type config struct {
	server []grpc.ServerOption
	dial   []grpc.DialOption
	socket bool
}

type optionFunc func(*config)

func (f optionFunc) apply(c *config) { f(c) }

// ServerOptions adds options of the server. They win over this package's own,
// which is only that stopping waits for handlers.
func ServerOptions(opts ...grpc.ServerOption) Option {
	return optionFunc(func(c *config) { c.server = append(c.server, opts...) })
}

// DialOptions adds options of the first client, [Pair.Conn]. They win over this
// package's own: no encryption, and the way to the server.
func DialOptions(opts ...grpc.DialOption) Option {
	return optionFunc(func(c *config) { c.dial = append(c.dial, opts...) })
}

// OverSocket has the two talk over TCP, on a free port of the loopback
// interface. It cannot be used in a bubble.
func OverSocket() Option {
	return optionFunc(func(c *config) { c.socket = true })
}

// Start serves what register registers and returns when calls can be made. When
// the test and its subtests have ended it closes the client, stops the server
// and waits for its handlers, so that nothing is left behind. A handler that
// does not end when its context does hangs the test. In a bubble, t must be the
// bubble's.
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

// Dial returns another client, with a connection of its own, that is closed when
// the test ends. It does not block: the connection is made by the first call.
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

// NetConn returns a bare connection to the server, for a test that writes its
// own HTTP/2 frames, and closes it when the test ends.
func (p *Pair) NetConn(t testing.TB) net.Conn {
	t.Helper()
	conn, err := p.dial(t.Context())
	if err != nil {
		t.Fatalf("grpctest: dial %s: %v", p.Addr, err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	return conn
}

// listen opens the server's end and sets the way to it.
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

// serve runs the server until the test ends. Clean-ups run last in, first out:
// the clients, which are made later, are closed before the server stops.
func (p *Pair) serve(t testing.TB, l net.Listener) {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- p.Server.Serve(l) }()
	t.Cleanup(func() {
		p.Server.Stop()
		// A server that a test stopped before Serve began says ErrServerStopped.
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("grpctest: serve: %v", err)
		}
	})
}
