package interceptors_test

import (
	"bytes"
	"context"
	"net"
	"strconv"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/internal/grpctest"
)

// A wire speaks HTTP/2 to a server, frame by frame, as no proper client would.
type wire struct {
	t    *testing.T
	conn net.Conn
	*http2.Framer
	next uint32
}

// dialWire starts svc on a real socket and connects to it.
func dialWire(t *testing.T, svc *service, opts ...grpc.ServerOption) (*wire, *grpc.Server) {
	t.Helper()
	p := grpctest.Start(t, svc.Register, grpctest.OverSocket(), grpctest.ServerOptions(opts...))
	conn := p.NetConn(t)
	w := &wire{t: t, conn: conn, Framer: http2.NewFramer(conn, conn), next: 1}
	w.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.check(conn.Write([]byte(http2.ClientPreface)))
	w.check(0, w.WriteSettings())
	return w, p.Server
}

func (w *wire) check(_ int, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// open sends the headers of a call.
func (w *wire) open(method string, header ...string) (stream uint32) {
	w.t.Helper()
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for i, kv := 0, append([]string{
		":method", "POST", ":scheme", "http", ":path", method, ":authority", "test",
		"content-type", "application/grpc", "te", "trailers",
	}, header...); i < len(kv); i += 2 {
		w.check(0, e.WriteField(hpack.HeaderField{Name: kv[i], Value: kv[i+1]}))
	}
	stream = w.next
	w.next += 2
	w.check(0, w.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true}))
	return stream
}

// message sends a message and the end of the stream.
func (w *wire) message(stream uint32, payload string) {
	w.t.Helper()
	w.check(0, w.WriteData(stream, true, append([]byte{0, 0, 0, 0, byte(len(payload))}, payload...)))
}

// status reads on to the status of a stream.
func (w *wire) status(stream uint32) codes.Code {
	w.t.Helper()
	for {
		f, err := w.ReadFrame()
		if err != nil {
			w.t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				w.check(0, w.WriteSettingsAck())
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				w.check(0, w.WritePing(true, f.Data))
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID != stream {
				continue
			}
			for _, h := range f.Fields {
				if h.Name == "grpc-status" {
					c, err := strconv.Atoi(h.Value)
					w.check(0, err)
					return codes.Code(c)
				}
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				w.t.Fatalf("stream %d: got a reset (%v), want a status", stream, f.ErrCode)
			}
		}
	}
}

// A deadline that is no deadline is an error, and no permit is taken or lost.
// One that is over on arrival is just over.
func TestGRPCTimeout(t *testing.T) {
	g := strict(t, 1)
	w, _ := dialWire(t, &service{}, append(unaryServers(interceptors.UnaryServer(g)), grpc.InTapHandle(interceptors.Tap(g)))...)
	ok := uint64(0)
	for _, c := range []struct {
		timeout string
		want    codes.Code
	}{
		{"", codes.Internal},
		{"1", codes.Internal},
		{"S", codes.Internal},
		{"1X", codes.Internal},
		{"-1S", codes.Internal},
		{"1.5S", codes.Internal},
		{"123456789S", codes.Internal},
		{"\xff\xff", codes.Internal},
		{"0n", codes.DeadlineExceeded},
		{"1n", codes.DeadlineExceeded},
		{"99999999H", codes.OK},
		{"1M", codes.OK},
	} {
		stream := w.open(work, "grpc-timeout", c.timeout)
		w.message(stream, "")
		if got := w.status(stream); got != c.want {
			t.Errorf("grpc-timeout %q: got %v, want %v", c.timeout, got, c.want)
		}
		if c.want == codes.OK {
			ok++
		}
	}
	if got := g.Stats().Ended; got != [3]uint64{0, ok, 0} {
		t.Errorf("ended: got %v, want %d successes", got, ok)
	}
}

// Unary interceptors run after the message is decoded: what cannot be decoded
// never comes to the gate. Only a tap is earlier.
func TestDecodingComesFirst(t *testing.T) {
	g := strict(t, 1)
	fill(t, g)
	const garbage = "\xff\xff\xff"
	for _, c := range []struct {
		name    string
		payload string
		opts    []grpc.ServerOption
		want    codes.Code
		refused uint64
	}{
		{"good", "", nil, codes.Unavailable, 1},
		{"garbage", garbage, nil, codes.Internal, 1},
		{"garbage and a tap", garbage, []grpc.ServerOption{grpc.InTapHandle(interceptors.Tap(g))}, codes.Unavailable, 2},
	} {
		w, _ := dialWire(t, &service{}, append(unaryServers(interceptors.UnaryServer(g)), c.opts...)...)
		stream := w.open(work)
		w.message(stream, c.payload)
		if got := w.status(stream); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
		if got := g.Stats().Refused[admit.Default][admit.QueueFull]; got != c.refused {
			t.Errorf("%s: got %d refused, want %d", c.name, got, c.refused)
		}
	}
}

// A highest counts what goes on, and remembers the most.
type highest struct{ now, most atomic.Int64 }

func (h *highest) enter() {
	now := h.now.Add(1)
	for {
		if m := h.most.Load(); now <= m || h.most.CompareAndSwap(m, now) {
			return
		}
	}
}

func (h *highest) leave() { h.now.Add(-1) }

// A client that opens streams and resets them at once, and handlers that do not
// notice: gRPC bounds with MaxConcurrentStreams what comes in, and the gate what
// runs. What was reset leaves the queue, and no permit is lost.
func TestRapidReset(t *testing.T) {
	const streams, limit = 100, 10
	g := newGate(t, admit.WithLimit(fixed(limit)))
	var calls, running highest
	started, finish := make(chan struct{}, 10_000), make(chan struct{})
	handle := func() {
		running.enter()
		defer running.leave()
		started <- struct{}{}
		<-finish
	}
	w, server := dialWire(t, &service{
		OnWork:     func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) { handle(); return nil, nil },
		OnExchange: func(demopb.DemoService_ExchangeServer) error { handle(); return nil },
	},
		grpc.MaxConcurrentStreams(streams),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			calls.enter()
			defer calls.leave()
			return h(ctx, req)
		}, interceptors.UnaryServer(g)),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			calls.enter()
			defer calls.leave()
			return h(srv, ss)
		}, interceptors.StreamServer(g)))
	read := make(chan struct{})
	go func() { // or the server's answers fill the socket
		defer close(read)
		for {
			if _, err := w.conn.Read(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}()
	open := func(n int) (stream uint32) {
		if n%2 == 0 {
			return w.open(demopb.DemoService_Exchange_FullMethodName)
		}
		stream = w.open(work)
		w.message(stream, "")
		return stream
	}
	var first []uint32
	for n := range streams / 2 {
		first = append(first, open(n))
	}
	for range limit {
		<-started
	}
	for _, stream := range first {
		w.check(0, w.WriteRSTStream(stream, http2.ErrCodeCancel))
	}
	for n := range 5000 {
		w.check(0, w.WriteRSTStream(open(n), http2.ErrCodeCancel))
	}
	if got := calls.most.Load(); got > streams {
		t.Errorf("most calls at once: got %d, want at most %d", got, streams)
	}
	close(finish)
	_ = w.conn.Close()
	<-read
	server.Stop() // waits for the handlers
	if got := running.most.Load(); got != limit {
		t.Errorf("most handlers at once: got %d, want %d, the limit", got, limit)
	}
	atRest(t, g)
}
