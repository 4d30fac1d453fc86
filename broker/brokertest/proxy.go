package brokertest

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A Proxy stands between a client and a server and passes on the bytes of both. It counts
// requests, and it can break the connections in several ways. All methods are safe for
// concurrent use.
type Proxy struct {
	listener net.Listener
	target   func() string
	requests atomic.Int64
	work     sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	mode  mode
	moved chan struct{} // closed when mode changes
	pairs map[*pair]struct{}
}

// A mode is the way in which a proxy treats connections.
type mode int

const (
	pass   mode = iota // passes everything on
	hold               // passes nothing on, and leaves connections open
	refuse             // closes new connections at once
	closed
)

// A pair is one connection of a client and the one to the server.
type pair struct {
	client, server net.Conn
	once           sync.Once
	gone           chan struct{} // closed by close
	forgotten      atomic.Bool   // passes nothing on any more
}

func (p *pair) close() {
	p.once.Do(func() {
		close(p.gone)
		_ = p.client.Close()
		_ = p.server.Close()
	})
}

// NewProxy starts a proxy on a free port of loopback. It connects to the address that
// target returns at that time.
func NewProxy(target func() string) (*Proxy, error) {
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: listener, target: target, moved: make(chan struct{}), pairs: map[*pair]struct{}{}}
	p.work.Go(p.serve)
	return p, nil
}

// Addr returns the host and port to connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Requests returns how many times a client has sent something. A client that writes one
// request at a time is counted exactly. Requests in one write count once.
func (p *Proxy) Requests() int64 { return p.requests.Load() }

// Pass passes everything on again, including everything that was held. It is the mode of a
// new proxy.
func (p *Proxy) Pass() { p.set(pass) }

// Hold passes nothing on, in neither direction. Connections stay open, as they do when a
// network drops all packets.
func (p *Proxy) Hold() { p.set(hold) }

// Refuse cuts all connections and closes new ones at once.
func (p *Proxy) Refuse() {
	p.set(refuse)
	p.Cut()
}

// Cut closes all connections. Everything that was not passed on yet is lost. New
// connections are passed on or held as before.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pair := range p.pairs {
		pair.close()
	}
}

// Forget passes nothing on any more on the connections that are open now, as a firewall
// does that has forgotten them. Neither end hears of it. New connections are passed on.
func (p *Proxy) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pair := range p.pairs {
		pair.forgotten.Store(true)
	}
}

// Connections returns how many connections are open.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pairs)
}

// Close ends the proxy with all its connections, and waits for its goroutines.
func (p *Proxy) Close() error {
	p.set(closed)
	err := p.listener.Close()
	p.Cut()
	p.work.Wait()
	return err
}

func (p *Proxy) set(m mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == closed {
		return
	}
	p.mode = m
	close(p.moved)
	p.moved = make(chan struct{})
}

// gate blocks while the proxy holds. It returns false if the connection is to end.
func (p *Proxy) gate(pair *pair) bool {
	for {
		p.mu.Lock()
		m, moved := p.mode, p.moved
		p.mu.Unlock()
		if m != hold && !pair.forgotten.Load() {
			return m == pass
		}
		select {
		case <-moved:
		case <-pair.gone:
			return false
		}
	}
}

func (p *Proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.work.Go(func() { p.join(client) })
	}
}

// join connects a client with the server until one of them or Cut closes.
func (p *Proxy) join(client net.Conn) {
	defer client.Close()
	dialer := net.Dialer{Timeout: time.Second}
	server, err := dialer.Dial("tcp", p.target())
	if err != nil {
		return
	}
	pair := &pair{client: client, server: server, gone: make(chan struct{})}
	if !p.add(pair) {
		return
	}
	defer p.remove(pair)
	var both sync.WaitGroup
	both.Go(func() { p.copy(pair, server, client, &p.requests) })
	p.copy(pair, client, server, nil)
	both.Wait()
}

// add keeps the pair. If the proxy refuses, it closes the pair and returns false.
func (p *Proxy) add(pair *pair) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == refuse || p.mode == closed {
		pair.close()
		return false
	}
	p.pairs[pair] = struct{}{}
	return true
}

func (p *Proxy) remove(pair *pair) {
	pair.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pairs, pair)
}

// copy passes on bytes until one of the connections ends, and then closes both. The held
// bytes of a connection that ends are lost, as in a network that drops packets.
func (p *Proxy) copy(pair *pair, to io.Writer, from io.Reader, count *atomic.Int64) {
	defer pair.close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && count != nil {
			count.Add(1)
		}
		if n > 0 && !p.gate(pair) {
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
