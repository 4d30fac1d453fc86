package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The roles of child processes.
const (
	roleBroker  = "broker"
	roleGateway = "gateway"
	roleBare    = "bare"
	roleWeir    = "weir"
)

// A job is the configuration of a child process.
type job struct {
	Role            string
	Kind            string // of the broker, a key of kinds
	Broker, Gateway string // addresses
}

// serve is the main function of a child. It prints an address first, if it has one.
func serve(j job, out io.Writer) error {
	switch j.Role {
	case roleBroker:
		return serveBroker(kinds[j.Kind], out)
	case roleGateway:
		return serveGateway(out)
	case roleBare:
		return consumeBare(kinds[j.Kind], j)
	default:
		return consumeWithWeir(kinds[j.Kind], j, out)
	}
}

// serveBroker serves until standard input ends. Its parent may be gone then, and the
// processes and files of the server must not stay.
func serveBroker(k kind, out io.Writer) error {
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	addr, stop, err := k.serve(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if _, err := fmt.Fprintln(out, addr); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// A gateway takes payments with as many workers as it has places. Each needs a while for a
// payment, which the parent sets.
type gateway struct {
	places chan struct{}

	mu    sync.Mutex // guards the fields below
	each  time.Duration
	paid  map[string]int // by payment
	total int
}

// A ledger is the state of a gateway.
type ledger struct {
	Total    int `json:"total"`
	Distinct int `json:"distinct"`
}

type blob = wrapperspb.BytesValue

func (g *gateway) pay(ctx context.Context, req *blob) (*blob, error) {
	select {
	case g.places <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-g.places }()
	g.mu.Lock()
	each := g.each
	g.mu.Unlock()
	time.Sleep(each)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paid[string(req.GetValue())]++
	g.total++
	return &blob{}, nil
}

func (g *gateway) slow(_ context.Context, req *blob) (*blob, error) {
	each, err := time.ParseDuration(string(req.GetValue()))
	g.mu.Lock()
	defer g.mu.Unlock()
	g.each = each
	return &blob{}, err
}

func (g *gateway) ledger(context.Context, *blob) (*blob, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	data, err := json.Marshal(ledger{g.total, len(g.paid)})
	return &blob{Value: data}, err
}

const service = "weir.example.Gateway"

func serveGateway(out io.Writer) error {
	g := &gateway{places: make(chan struct{}, workers), each: usual, paid: map[string]int{}}
	method := func(name string, f func(context.Context, *blob) (*blob, error)) grpc.MethodDesc {
		return grpc.MethodDesc{MethodName: name, Handler: func(
			_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor,
		) (any, error) {
			req := new(blob)
			if err := dec(req); err != nil {
				return nil, err
			}
			return f(ctx, req)
		}}
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: service, HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{method("Pay", g.pay), method("Slow", g.slow), method("Ledger", g.ledger)},
	}, g)
	lis, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = server.Serve(lis) }() // until the process is killed
	_, err = fmt.Fprintln(out, lis.Addr())
	return err
}
