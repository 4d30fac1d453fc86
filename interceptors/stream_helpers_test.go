package interceptors_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/internal/grpctest"
)

// The methods of a service of streams, one of each kind.
const (
	downMethod = "/weir.test.Streams/Down"
	upMethod   = "/weir.test.Streams/Up"
	bothMethod = "/weir.test.Streams/Both"
)

// streams registers a service whose methods are all h.
func streams(h func(stream grpc.ServerStream) error) func(grpc.ServiceRegistrar) {
	handler := func(_ any, stream grpc.ServerStream) error { return h(stream) }
	return func(r grpc.ServiceRegistrar) {
		r.RegisterService(&grpc.ServiceDesc{
			ServiceName: "weir.test.Streams",
			HandlerType: (*any)(nil),
			Streams: []grpc.StreamDesc{
				{StreamName: "Down", Handler: handler, ServerStreams: true},
				{StreamName: "Up", Handler: handler, ClientStreams: true},
				{StreamName: "Both", Handler: handler, ClientStreams: true, ServerStreams: true},
			},
		}, struct{}{})
	}
}

// startStream opens a stream from a client of gRPC.
func startStream(ctx context.Context, t testing.TB, conn *grpc.ClientConn, method string) grpc.ClientStream {
	t.Helper()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		t.Fatal(err)
	}
	if method == downMethod {
		if err := s.SendMsg(&wrapperspb.BytesValue{}); err != nil && !errors.Is(err, io.EOF) { // it may have been refused
			t.Fatal(err)
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// sendAll sends messages of a size until that fails.
func sendAll(stream grpc.ServerStream, size int) error {
	m := wrapperspb.Bytes(make([]byte, size))
	for {
		if err := stream.SendMsg(m); err != nil {
			return err
		}
	}
}

// receive receives one message of any size.
func receive(s interface{ RecvMsg(any) error }) error { return s.RecvMsg(&wrapperspb.BytesValue{}) }

// A rawPeer speaks HTTP/2 and no more. It reads what comes, and grants a window only where it
// is told to.
type rawPeer struct {
	conn    net.Conn
	mu      sync.Mutex // guards writing
	framer  *http2.Framer
	headers bytes.Buffer
	encoder *hpack.Encoder

	reader sync.WaitGroup
	seen   sync.Mutex // guards what follows
	bytes  int
	ended  map[uint32]string // the grpc-status of streams that have ended
}

// newRawPeer connects to a server. All streams have a window of 64 KiB, and so has the
// connection unless it is roomy.
func newRawPeer(t testing.TB, p *grpctest.Pair, roomy bool) *rawPeer {
	t.Helper()
	r := &rawPeer{conn: p.NetConn(t), ended: map[uint32]string{}}
	if _, err := io.WriteString(r.conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	r.framer = http2.NewFramer(r.conn, r.conn)
	r.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	r.encoder = hpack.NewEncoder(&r.headers)
	if err := r.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if roomy {
		r.grant(0, 1<<30)
	}
	r.reader.Go(r.read)
	t.Cleanup(func() { _ = r.conn.Close(); r.reader.Wait() })
	return r
}

// read reads until the connection is closed.
func (r *rawPeer) read() {
	for {
		f, err := r.framer.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				r.write(func() error { return r.framer.WriteSettingsAck() })
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				data := f.Data
				r.write(func() error { return r.framer.WritePing(true, data) })
			}
		case *http2.DataFrame:
			r.seen.Lock()
			r.bytes += len(f.Data())
			r.seen.Unlock()
		case *http2.MetaHeadersFrame:
			for _, h := range f.Fields {
				if h.Name == "grpc-status" {
					r.seen.Lock()
					r.ended[f.StreamID] = h.Value
					r.seen.Unlock()
				}
			}
		}
	}
}

func (r *rawPeer) write(f func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = f() // it fails when the connection is closed
}

// open opens a stream, and half-closes it if the method wants one message only.
func (r *rawPeer) open(id uint32, method string) {
	r.write(func() error {
		r.headers.Reset()
		for _, h := range [][2]string{
			{":method", "POST"},
			{":scheme", "http"},
			{":path", method},
			{":authority", "test"},
			{"content-type", "application/grpc"},
			{"te", "trailers"},
		} {
			if err := r.encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
				return err
			}
		}
		return r.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: r.headers.Bytes(), EndHeaders: true})
	})
	r.send(id, 0, method == downMethod)
}

// send sends a message of a size.
func (r *rawPeer) send(id uint32, size int, last bool) {
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(size))
	r.write(func() error { return r.framer.WriteData(id, last, append(frame, make([]byte, size)...)) })
}

// grant lets so many bytes more come on a stream, or with 0 on the connection.
func (r *rawPeer) grant(id uint32, n int) {
	r.write(func() error { return r.framer.WriteWindowUpdate(id, uint32(n)) })
}

// pace grants n bytes on a stream again and again, until the test ends.
func (r *rawPeer) pace(ctx context.Context, id uint32, n int, every time.Duration) {
	r.reader.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				r.grant(id, n)
			case <-ctx.Done():
				return
			}
		}
	})
}

// status returns the grpc-status with which a stream has ended, "" if it has not.
func (r *rawPeer) status(id uint32) string {
	r.seen.Lock()
	defer r.seen.Unlock()
	return r.ended[id]
}

// An endable is the stream of a call that can be ended from outside, as gRPC's.
type endable struct {
	callStream
	ends atomic.Int32
}

func (e *endable) WriteStatus(*status.Status) error { e.ends.Add(1); return nil }

// wantWrong checks the error of a wrong configuration.
func wantWrong(t testing.TB, err error, says string) {
	t.Helper()
	if !errors.Is(err, interceptors.ErrConfig) || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want an ErrConfig that says %q", err, says)
	}
}

// stoppedClient names, in the environment of a process of this test, the server of which it is a
// client that will be stopped.
const stoppedClient = "WEIR_STOPPED_CLIENT"

const stoppedStreams = 5

func TestMain(m *testing.M) {
	if addr := os.Getenv(stoppedClient); addr != "" {
		os.Exit(receiveUntilStopped(addr))
	}
	goleak.VerifyTestMain(m)
}

// receiveUntilStopped opens some streams, and reports the first message of each.
func receiveUntilStopped(addr string) int {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // it must not outlive a test that has crashed
	defer cancel()
	for range stoppedStreams {
		s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, downMethod)
		if err == nil {
			err = errors.Join(s.SendMsg(&wrapperspb.BytesValue{}), s.CloseSend(), receive(s))
		}
		_, _ = fmt.Fprintln(os.Stdout, err)
	}
	<-ctx.Done()
	return 1
}
