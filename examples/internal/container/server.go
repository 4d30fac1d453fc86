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
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// A Config describes a server.
type Config struct {
	Weir    bool
	Trouble string
	Memory  int64  // bytes
	Cgroup  string // to enter; without one the server limits its data segment to Memory
	Base    int64  // bytes that the program keeps all the time
	Works   int    // bytes that each usual call works on, besides its request
	// GoLimit is GOMEMLIMIT as a part of Memory; 0 for none.
	GoLimit  float64
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
	large    = 8 << 20
	usual    = 20 * time.Millisecond
	sampling = 100 * time.Millisecond
	usualMem = 256 << 20 // the memory to which the sizes of this package fit
	// fill is how many bytes a second a trouble takes at most. A kernel needs time for each new
	// page, and a faster trouble would use up the processors of a virtual machine.
	fill = 160 << 20

	work, ask, vital, warm, talk, drain = "/weir.example.Box/Work", "/weir.example.Box/Ask", "/weir.example.Box/Vital",
		"/weir.example.Box/Warm", "/weir.example.Box/Talk", "/weir.example.Box/Drain"
)

// scale returns how many times larger than usual the memory is.
func (c *Config) scale() int { return int(max(c.Memory/usualMem, 1)) }

type blob = wrapperspb.BytesValue

// A box is the service.
type box struct {
	config Config
	base   []byte
	first  sync.Once
	over   chan struct{} // closed at the end of the trouble

	mu    sync.Mutex // guards the fields below
	began time.Time
	cache [][]byte
}

func newBox(c Config) *box {
	return &box{config: c, base: pages(int(c.Base)), over: make(chan struct{})}
}

// troubled reports whether there is trouble now.
func (b *box) troubled() bool {
	b.first.Do(func() {
		b.mu.Lock()
		b.began = time.Now()
		b.mu.Unlock()
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
func (b *box) work(_ context.Context, req *blob) (*blob, error) {
	troubled := b.troubled()
	page := pages(b.config.Works)
	switch {
	case troubled && b.config.Trouble == Dependency, troubled && b.config.Trouble == Uneven && len(req.GetValue()) >= large:
		<-b.over
	default:
		if b.config.Trouble == Cache && troubled {
			b.grow()
		}
		time.Sleep(usual)
	}
	return &blob{Value: append(page[:0], req.GetValue()[:min(1, len(req.GetValue()))]...)}, nil
}

// grow adds to the cache, at most a thousandth of the memory.
func (b *box) grow() {
	entry := pages(int(min(b.config.Memory/1000, fill/300)))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cache = append(b.cache, entry)
}

// warm is the handler of background calls, which fill a cache.
func (b *box) warm(context.Context, *blob) (*blob, error) {
	if b.troubled() {
		b.grow()
	}
	return &blob{}, nil
}

// pages returns memory that the kernel has given, which it does when it is written.
func pages(n int) []byte {
	p := make([]byte, n)
	for i := 0; i < n; i += 4096 {
		p[i] = 1
	}
	return p
}

// answer is the size of a large answer, a MiB of 256.
func (c *Config) answer() int64 { return c.Memory / 256 }

// ask answers with much.
func (b *box) ask(context.Context, *blob) (*blob, error) {
	return &blob{Value: make([]byte, b.config.answer())}, nil
}

func (*box) vital(context.Context, *blob) (*blob, error) { return &blob{}, nil }

// talk is a stream that sends and does not read.
func (*box) talk(_ any, s grpc.ServerStream) error {
	m := &blob{Value: make([]byte, 16<<10)}
	for {
		if err := s.SendMsg(m); err != nil {
			return err
		}
	}
}

// drain is a stream that reads and does not send.
func (*box) drain(_ any, s grpc.ServerStream) error {
	for m := new(blob); ; {
		if err := s.RecvMsg(m); err != nil {
			return err
		}
	}
}

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
		Methods: []grpc.MethodDesc{method("Work", b.work), method("Ask", b.ask), method("Vital", b.vital), method("Warm", b.warm)},
		Streams: []grpc.StreamDesc{
			{StreamName: "Talk", Handler: b.talk, ServerStreams: true, ClientStreams: true},
			{StreamName: "Drain", Handler: b.drain, ServerStreams: true, ClientStreams: true},
		},
	}, b)
}

// Serve is a server process: it prints its address, then its reports. It serves until the
// process is killed.
func Serve(c Config, out io.Writer) error {
	if err := enter(&c); err != nil {
		return err
	}
	if c.GoLimit > 0 {
		debug.SetMemoryLimit(int64(c.GoLimit * float64(c.Memory)))
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
	server := grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(2*large))...)
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
