// Package container runs a gRPC server as a child process with little memory, and callers
// that get it into trouble: bare, where it dies, and with weir.
package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/pressure"
)

// The kinds of trouble.
const (
	// Dependency stops, and handlers wait for it whatever their context says.
	Dependency = "dependency"
	// Unread answers: 1,000 clients ask for 1 MiB each and do not read it.
	Unread = "unread"
	// Cache grows without bound.
	Cache = "cache"
)

// A Config describes a server.
type Config struct {
	Weir     bool
	Trouble  string
	Memory   int64         // bytes
	Cgroup   string        // to enter; without one the parent sees to it that Memory is kept
	From, To time.Duration // of the trouble, since the first call
}

// A Report is the state that a server prints every 100 ms.
type Report struct {
	Level    string  `json:"level"`
	Signal   string  `json:"signal"`
	Ratio    float64 `json:"ratio"` // of the memory signal
	InFlight int     `json:"inFlight"`
	Limit    int     `json:"limit"`
}

const (
	keeps    = 200_000 // bytes that a usual call works on
	answer   = 1 << 20
	growth   = 256 << 10 // of the cache, for each call
	usual    = 20 * time.Millisecond
	sampling = 100 * time.Millisecond
	vital    = "/weir.example.Box/Vital"
)

type blob = wrapperspb.BytesValue

// A box is the service.
type box struct {
	config Config
	first  sync.Once
	begun  chan struct{} // closed with the first call
	over   chan struct{} // closed at the end of the trouble

	mu    sync.Mutex // guards the fields below
	began time.Time
	cache [][]byte
}

func newBox(c Config) *box {
	return &box{config: c, begun: make(chan struct{}), over: make(chan struct{})}
}

// troubled reports whether there is trouble now.
func (b *box) troubled() bool {
	b.first.Do(func() {
		b.mu.Lock()
		b.began = time.Now()
		b.mu.Unlock()
		close(b.begun)
		time.AfterFunc(b.config.To, func() {
			b.mu.Lock()
			b.cache = nil
			b.mu.Unlock()
			close(b.over)
		})
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	at := time.Since(b.began)
	return at >= b.config.From && at < b.config.To
}

// work is the handler of usual calls. It never looks at its context.
func (b *box) work(context.Context, *blob) (*blob, error) {
	troubled := b.troubled()
	page := pages(keeps) // memory that a call works on
	switch {
	case b.config.Trouble == Dependency && troubled:
		<-b.over
	case b.config.Trouble == Cache && troubled:
		entry := pages(growth)
		b.mu.Lock()
		b.cache = append(b.cache, entry)
		b.mu.Unlock()
	default:
		time.Sleep(usual)
	}
	return &blob{Value: page[:1]}, nil
}

// pages returns memory that the kernel has given, which it does when it is written.
func pages(n int) []byte {
	p := make([]byte, n)
	for i := 0; i < n; i += 4096 {
		p[i] = 1
	}
	return p
}

func (*box) ask(context.Context, *blob) (*blob, error) {
	return &blob{Value: make([]byte, answer)}, nil
}

func (*box) vital(context.Context, *blob) (*blob, error) { return &blob{}, nil }

// register registers the service without generated code.
func (b *box) register(s *grpc.Server) {
	method := func(name string, f func(context.Context, *blob) (*blob, error)) grpc.MethodDesc {
		return grpc.MethodDesc{MethodName: name, Handler: func(
			srv any, ctx context.Context, dec func(any) error, via grpc.UnaryServerInterceptor,
		) (any, error) {
			req := new(blob)
			if err := dec(req); err != nil {
				return nil, err
			}
			if via == nil {
				return f(ctx, req)
			}
			return via(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/weir.example.Box/" + name},
				func(ctx context.Context, req any) (any, error) { return f(ctx, req.(*blob)) }) //nolint:forcetypeassert // decoded above
		}}
	}
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "weir.example.Box", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{method("Work", b.work), method("Ask", b.ask), method("Vital", b.vital)},
	}, b)
}

// A guard is the part of a server that weir adds.
type guard struct {
	monitor *pressure.Monitor
	gate    *admit.Gate
	opts    []grpc.ServerOption
}

// newGuard guards a server of so much memory, as docs/memory.md has it.
func newGuard(c Config) (*guard, error) {
	var memory pressure.MemoryConfig
	if c.Cgroup == "" {
		memory.Limit = c.Memory
	}
	monitor, err := pressure.New(pressure.WithSignals(pressure.Memory(memory), pressure.GC(), pressure.Processors()))
	if err != nil {
		return nil, err
	}
	sizes, err := interceptors.SizesFor(c.Memory)
	if err != nil {
		return nil, err
	}
	bytes, err := interceptors.NewBytes(sizes.Bytes)
	if err != nil {
		return nil, err
	}
	gate, err := admit.New(admit.WithPressure(monitor, bytes),
		// Calls that hang must not have all permits: a share comes back only when they end.
		admit.WithClassConfig(admit.Default, admit.ClassConfig{Max: 0.75}))
	if err != nil {
		return nil, err
	}
	opts, err := interceptors.Server(interceptors.ServerConfig{Gate: gate, Memory: c.Memory, Bytes: bytes},
		interceptors.WithClassFor(admit.Critical, interceptors.Methods(vital)))
	return &guard{monitor, gate, opts}, err
}

// Serve is a server process: it prints its address, then its reports. It serves until the
// process is killed.
func Serve(c Config, out io.Writer) error {
	if err := enter(&c); err != nil {
		return err
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var opts []grpc.ServerOption
	var g *guard
	if c.Weir {
		if g, err = newGuard(c); err != nil {
			return err
		}
		g.monitor.Start()
		opts = g.opts
	}
	server := grpc.NewServer(opts...)
	newBox(c).register(server)
	if _, err := fmt.Fprintln(out, lis.Addr()); err != nil {
		return err
	}
	if g != nil {
		go g.report(json.NewEncoder(out))
	}
	go func() { _ = server.Serve(lis) }() // until the process is killed
	return nil
}

// report reports until the process is killed.
func (g *guard) report(to *json.Encoder) {
	for range time.Tick(sampling) {
		p, s := g.monitor.Stats(), g.gate.Stats()
		r := Report{Level: p.Level.String(), Signal: p.Signal, Ratio: p.Signals[0].Value, InFlight: s.InFlight, Limit: s.Limit}
		if err := to.Encode(r); errors.Is(err, io.ErrClosedPipe) {
			return
		}
	}
}
