package memory_test

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/internal/calltest"
	"github.com/weir-go/weir/interceptors/memory"
	"github.com/weir-go/weir/internal/grpctest"
)

func newBytes(t *testing.T, limit int64) *memory.Bytes {
	t.Helper()
	b, err := memory.NewBytes(limit)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wantBytes(t *testing.T, b *memory.Bytes, when string, messages int, least, most int64) {
	t.Helper()
	if s := b.Stats(); s.Messages != messages || s.Used < least || s.Used > most {
		t.Errorf("%s: got %d messages of %d bytes, want %d of %d to %d", when, s.Messages, s.Used, messages, least, most)
	}
}

// startBlobs starts a server that is guarded by a gate with a bound of bytes.
func startBlobs(t *testing.T, b *memory.Bytes, get func(context.Context, *blob) (*blob, error)) *grpctest.Pair {
	t.Helper()
	gate := newGate(t, admit.WithFixedLimit(1000), admit.WithPressure(b))
	opts, err := interceptors.Server(interceptors.ServerConfig{Gate: gate, Bytes: b, Memory: 256 << 20},
		interceptors.WithClassFor(admit.Critical, interceptors.Methods("/weirtest.Vital/")))
	if err != nil {
		t.Fatal(err)
	}
	return grpctest.Start(t, serveBlobs(get), grpctest.ServerOptions(opts...))
}

// Answers that nobody reads count after their handlers have returned, until they are too
// many. They no longer count when their calls or their connection have ended.
func TestBytesCountsAnswersUntilTheyHaveLeft(t *testing.T) {
	const size = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		b := newBytes(t, 10*size)
		p := startBlobs(t, b, func(context.Context, *blob) (*blob, error) { return &blob{Value: make([]byte, size)}, nil })
		conn := p.Dial(t, grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(32<<20))
		ctx, cancel := context.WithCancel(t.Context())
		for range 30 {
			askAndNotRead(ctx, t, conn)
			synctest.Wait()
		}
		wantBytes(t, b, "30 answers that nobody reads", 10, 10*size, 10*size+1000)
		err := conn.Invoke(t.Context(), blobs, &blob{}, new(blob))
		wantCode(t, err, codes.Unavailable)
		if r, ok := interceptors.RefusalFrom(err); !ok || r.Reason != "memory_pressure" {
			t.Errorf("got %v, want a refusal for memory_pressure", err)
		}
		cancel()
		synctest.Wait()
		wantBytes(t, b, "when the callers have left", 0, 0, 0)
		if err := conn.Invoke(t.Context(), blobs, &blob{}, new(blob)); err != nil {
			t.Errorf("afterwards: got %v, want an answer", err)
		}
		synctest.Wait()
		wantBytes(t, b, "when it is read", 0, 0, 0)
	})
}

// A connection that breaks leaves nothing that counts. gRPC does not give back what it had
// begun to write, so the collector has to find it.
func TestBytesAfterABrokenConnection(t *testing.T) {
	const size = 1 << 20
	b := newBytes(t, 10*size)
	entered := make(chan struct{}, 5)
	p := startBlobs(t, b, func(context.Context, *blob) (*blob, error) {
		defer func() { entered <- struct{}{} }()
		return &blob{Value: make([]byte, size)}, nil
	})
	conn := p.Dial(t, grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(32<<20))
	for range 5 {
		askAndNotRead(t.Context(), t, conn)
	}
	for range 5 {
		<-entered
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	for b.Stats().Messages != 0 { // until the test's own deadline
		runtime.GC()
		runtime.Gosched()
	}
	wantBytes(t, b, "when the connection is closed", 0, 0, 0)
}

// Requests count while their calls run or wait, and one large call may always run.
func TestBytesCountsRequests(t *testing.T) {
	const size = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		b := newBytes(t, size)
		p := startBlobs(t, b, func(ctx context.Context, req *blob) (*blob, error) {
			wantBytes(t, b, "while it runs", 1, int64(len(req.GetValue())), int64(len(req.GetValue()))+100)
			time.Sleep(time.Second)
			return &blob{}, nil
		})
		large := &blob{Value: make([]byte, 3*size)}
		done := make(chan error, 1)
		go func() { done <- p.Conn.Invoke(t.Context(), blobs, large, new(blob)) }()
		time.Sleep(time.Millisecond)
		wantCode(t, p.Conn.Invoke(t.Context(), blobs, large, new(blob)), codes.Unavailable)
		if err := <-done; err != nil {
			t.Errorf("one that is larger than the limit: got %v, want an answer", err)
		}
		synctest.Wait()
		wantBytes(t, b, "when both have ended", 0, 0, 0)
	})
}

// Small answers are what they are without it, and so are errors.
func TestBytesLeavesAnswersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBytes(t, 1<<20)
		p := startBlobs(t, b, func(_ context.Context, req *blob) (*blob, error) { return req, nil })
		for _, size := range []int{0, 1, 1 << 10, 1<<10 + 1, 100_000} {
			want := strings.Repeat("x", size)
			got := new(blob)
			if err := p.Conn.Invoke(t.Context(), blobs, &blob{Value: []byte(want)}, got); err != nil || string(got.GetValue()) != want {
				t.Errorf("%d bytes: got %d bytes, %v, want the same", size, len(got.GetValue()), err)
			}
		}
		synctest.Wait()
		wantBytes(t, b, "at the end", 0, 0, 0)
	})
}

func TestBytesLevels(t *testing.T) {
	var none *memory.Bytes
	if level, _ := none.Pressure(); level != 0 {
		t.Errorf("nil: got level %d, want 0", level)
	}
	if level, _ := new(memory.Bytes).Pressure(); level != 0 {
		t.Errorf("zero: got level %d, want 0", level)
	}
	b := newBytes(t, 1)
	for held, want := range []uint8{0, 0, 3} { // one may always run, and two of a byte are twice the limit
		if level, signal := memory.Hold(b, int64(held)).Pressure(); level != want || signal != "bytes" {
			t.Errorf("%d messages: got level %d of %q, want %d of bytes", held, level, signal, want)
		}
	}
	for share, want := range map[int64]uint8{84: 0, 85: 1, 91: 1, 92: 2, 199: 2, 200: 3} {
		if level, _ := memory.Hold(newBytes(t, 100), share).Pressure(); level != want {
			t.Errorf("%d %%: got level %d, want %d", share, level, want)
		}
	}
	_, err := memory.NewBytes(0)
	calltest.WantConfigError(t, err, memory.ErrConfig, "bytes: got a limit of 0")
	for name, b := range map[string]*memory.Bytes{"nil": nil, "zero": {}} {
		share, err := b.Read()
		if level, _ := b.Pressure(); level != 0 || share != 0 || err != nil || b.Stats() != (memory.Stats{}) {
			t.Errorf("%s: got level %d, share %v, %v and %+v, want nothing held", name, level, share, err, b.Stats())
		}
	}
	if got := (*memory.Bytes)(nil).ServerOptions(); len(got) != 0 {
		t.Errorf("options of nil: got %d, want none", len(got))
	}
}

// The memory that counting adds to a response is the difference in B/op.
func BenchmarkFootprint(b *testing.B) {
	response := &blob{Value: make([]byte, 2<<10)}
	counted, err := memory.NewBytes(1 << 30)
	if err != nil {
		b.Fatal(err)
	}
	for name, codec := range map[string]encoding.CodecV2{
		"response": encoding.GetCodecV2(proto.Name), "counted": memory.Counting(counted, proto.Name),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				out, err := codec.Marshal(response)
				if err != nil {
					b.Fatal(err)
				}
				out.Free()
			}
		})
	}
}
