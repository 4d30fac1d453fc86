package streamcredit_test

import (
	"context"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// How a proxy ends a connection.
type severing int

const (
	byFIN   severing = iota // both sides read what is on its way, and then the end
	byRST                   // nothing more is read, and all that is on its way is lost
	byStall                 // nothing arrives any more, and nobody is told
)

func (s severing) String() string { return [...]string{"FIN", "RST", "stall"}[s] }

// A proxy is a connection that is severed after so many bytes from one side. It carries one connection:
// who dials again is refused.
type proxy struct {
	how  severing
	up   bool // the bytes from the client count
	mu   sync.Mutex
	left int // until it is severed
	seen int // bytes of that side
	cut  bool
	ends []net.Conn
	used bool
}

// through serves register and returns a client whose connection is that of the proxy.
func (p *proxy) through(t *testing.T, register func(grpc.ServiceRegistrar)) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(64 << 10)
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	register(server)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(proxyListener{l, p}) // until it is stopped
	}()
	conn, err := grpc.NewClient("passthrough:///proxy", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.dial(ctx, l) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		<-served
	})
	return conn
}

func (p *proxy) dial(ctx context.Context, l *bufconn.Listener) (net.Conn, error) {
	p.mu.Lock()
	used := p.used
	p.used = true
	p.mu.Unlock()
	if used {
		return nil, syscall.ECONNREFUSED
	}
	c, err := l.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	return p.wrap(c, p.up), nil
}

func (p *proxy) wrap(c net.Conn, counts bool) net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends = append(p.ends, c)
	return &proxied{Conn: c, p: p, counts: counts}
}

// take returns how many of n bytes pass, and whether the connection is severed after them.
func (p *proxy) take(n int, counts bool) (pass int, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.cut:
		return 0, true
	case !counts:
		return n, false
	}
	pass = min(n, p.left)
	p.seen += pass
	p.left -= pass
	p.cut = p.left == 0
	return pass, p.cut
}

// sever ends both sides.
func (p *proxy) sever() {
	if p.how == byStall {
		return
	}
	p.mu.Lock()
	ends := p.ends
	p.mu.Unlock()
	for _, c := range ends {
		_ = c.Close() // it may be closed
	}
}

func (p *proxy) severed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut
}

type proxyListener struct {
	net.Listener
	p *proxy
}

func (l proxyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.p.wrap(c, !l.p.up), nil
}

// proxied is one side of the connection.
type proxied struct {
	net.Conn
	p      *proxy
	counts bool
}

func (c *proxied) Write(b []byte) (int, error) {
	pass, cut := c.p.take(len(b), c.counts)
	if pass > 0 {
		if n, err := c.Conn.Write(b[:pass]); err != nil {
			return n, err
		}
	}
	if !cut {
		return pass, nil
	}
	c.p.sever()
	if c.p.how == byStall || pass == len(b) {
		return len(b), nil
	}
	return pass, syscall.EPIPE
}

func (c *proxied) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		switch cut := c.p.severed(); {
		case cut && c.p.how == byRST:
			return 0, syscall.ECONNRESET
		case cut && n == 0 && err != nil && c.p.how == byFIN:
			return 0, io.EOF
		default:
			return n, err
		}
	}
}
