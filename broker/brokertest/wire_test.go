package brokertest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"sync"
	"testing"
	"time"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/brokertest"
)

// A wireServer is a broker on TCP whose queues are Memories, so that the suite has a real
// connection to break. The queues outlive a Stop, as data on disk does.
type wireServer struct {
	address string

	mu       sync.Mutex
	listener net.Listener
	queues   map[string]*brokertest.Memory
	misuse   map[string]int
	conns    map[net.Conn]struct{}
	work     sync.WaitGroup
}

func startWire(t testing.TB) *wireServer {
	t.Helper()
	s := &wireServer{address: "127.0.0.1:0", queues: map[string]*brokertest.Memory{}, misuse: map[string]int{}, conns: map[net.Conn]struct{}{}}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop() })
	return s
}

func (s *wireServer) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.address
}

func (s *wireServer) Restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		return err
	}
	s.address, s.listener = listener.Addr().String(), listener
	s.work.Go(func() { s.accept(listener) })
	return nil
}

func (s *wireServer) Stop() error {
	s.mu.Lock()
	err := s.listener.Close()
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.work.Wait()
	return err
}

func (s *wireServer) accept(listener net.Listener) {
	for {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = struct{}{}
		s.work.Go(func() { s.serve(c) })
		s.mu.Unlock()
	}
}

func (s *wireServer) serve(c net.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	session := &WireSession{server: s, ctx: ctx, held: map[int]*broker.Message{}}
	r := rpc.NewServer()
	if err := r.RegisterName("Wire", session); err != nil {
		panic(err)
	}
	lost := make(chan struct{})
	go func() { // ServeConn waits for calls, so their end must not wait for it
		defer close(lost)
		r.ServeConn(lostConn{c, cancel})
	}()
	<-lost
	cancel()
	session.end()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// A lostConn ends the calls of a connection when the connection ends.
type lostConn struct {
	net.Conn
	lost context.CancelFunc
}

func (c lostConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.lost()
	}
	return n, err
}

func (s *wireServer) queue(name string) (*brokertest.Memory, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.queues[name]; m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("no queue %q", name)
}

func (s *wireServer) Create(_ context.Context, queue string, c brokertest.QueueConfig) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queues[queue] = brokertest.NewMemory(brokertest.MemoryConfig{AckTimeout: c.AckTimeout})
	return nil
}

func (s *wireServer) Publish(_ context.Context, queue string, msgs ...broker.Message) error {
	m, err := s.queue(queue)
	if err == nil {
		m.Publish(msgs...)
	}
	return err
}

func (s *wireServer) Counts(_ context.Context, queue string) (brokertest.Counts, error) {
	m, err := s.queue(queue)
	if err != nil {
		return brokertest.Counts{}, err
	}
	c := m.Counts()
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Misuse += s.misuse[queue]
	return c, nil
}

func (s *wireServer) DeadLetters(_ context.Context, queue string) ([]brokertest.DeadLetter, error) {
	m, err := s.queue(queue)
	if err != nil {
		return nil, err
	}
	return m.DeadLetters(), nil
}

// A WireSession is the state of one connection.
type WireSession struct {
	server *wireServer
	ctx    context.Context

	mu      sync.Mutex
	queue   string
	fetcher broker.Fetcher
	cancel  context.CancelFunc
	last    int
	held    map[int]*broker.Message
}

// A WireFetch asks for messages.
type WireFetch struct {
	Queue string
	N     int
	Wait  time.Duration
}

// A WireMessage is a message with the tag that settles it.
type WireMessage struct {
	Tag     int
	Message broker.Message
}

// Fetch waits for messages.
func (w *WireSession) Fetch(f WireFetch, got *[]WireMessage) error {
	queue, err := w.server.queue(f.Queue)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(w.ctx, f.Wait)
	defer cancel()
	w.mu.Lock()
	if w.fetcher == nil {
		w.queue, w.fetcher = f.Queue, queue.Fetcher()
	}
	fetcher := w.fetcher
	w.cancel = cancel
	w.mu.Unlock()
	msgs, err := fetcher.Fetch(ctx, f.N)
	if err != nil && ctx.Err() == nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range msgs {
		w.last++
		w.held[w.last] = m
		plain := broker.Message{ID: m.ID, Key: m.Key, Body: m.Body, Attributes: m.Attributes, Attempt: m.Attempt}
		*got = append(*got, WireMessage{w.last, plain})
	}
	return nil
}

// Cancel ends a Fetch.
func (w *WireSession) Cancel(int, *int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil {
		w.cancel()
	}
	return nil
}

// Ping does nothing.
func (*WireSession) Ping(int, *int) error { return nil }

// A WireSettle settles a message, or extends it.
type WireSettle struct {
	Tag    int
	How    string
	Reason string
}

// Settle settles.
func (w *WireSession) Settle(s WireSettle, _ *int) error {
	w.mu.Lock()
	m := w.held[s.Tag]
	w.mu.Unlock()
	if m == nil {
		return errors.New("unknown tag")
	}
	err := w.settle(m, s)
	if errors.Is(err, broker.ErrSettled) {
		w.server.mu.Lock()
		w.server.misuse[w.queue]++
		w.server.mu.Unlock()
	}
	return err
}

func (w *WireSession) settle(m *broker.Message, s WireSettle) error {
	switch s.How {
	case "ack":
		return m.Ack(w.ctx)
	case "requeue":
		return m.Nack(w.ctx, broker.Requeue())
	case "dead":
		return m.Nack(w.ctx, broker.DeadLetter(s.Reason))
	default:
		return m.Extend(w.ctx)
	}
}

// end gives back what the connection held.
func (w *WireSession) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fetcher != nil {
		_ = w.fetcher.Close(context.Background())
	}
}
