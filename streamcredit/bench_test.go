package streamcredit_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/weir-go/weir/examples/demopb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// The benchmarks compare streams that carry the same elements: bare gRPC, and with credit.
// Each round measures both, one after the other on fresh connections, in alternating
// order; the ratio is the median of rounds. WEIR_BENCH_SECONDS says how long each of them is
// measured; with less than 0.3 there is one round, which shows only that it runs.
func rounds() int {
	if benchSeconds() < 300*time.Millisecond {
		return 1
	}
	return 5
}

// source sends without end, as the call's metadata ask.
type source struct {
	demopb.UnimplementedStreamServiceServer
	creditpb.UnimplementedCreditStreamServer
}

func ask(ctx context.Context, kind string, size int) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "kind", kind, "size", strconv.Itoa(size))
}

func asked(ctx context.Context) (kind string, size int) {
	md, _ := metadata.FromIncomingContext(ctx)
	size, _ = strconv.Atoi(md["size"][0])
	return md["kind"][0], size
}

func (source) Subscribe(stream subscribeServer) error {
	ctx := stream.Context()
	kind, size := asked(ctx)
	e := &demopb.SubscribeResponse{Payload: make([]byte, size)}
	switch kind {
	case "raw":
		return sendRaw(stream, e)
	case "byhand":
		return sendByHand(stream, e)
	}
	out, _, err := streamcredit.ServeSend(stream)
	for err == nil {
		err = out.Send(ctx, e)
	}
	return err
}

func sendRaw(stream subscribeServer, e *demopb.SubscribeResponse) (err error) {
	for err == nil {
		err = stream.Send(e)
	}
	return err
}

// sendByHand is the least that a window costs: for each message of the client, whose number
// it carries, so many elements.
func sendByHand(stream subscribeServer, e *demopb.SubscribeResponse) error {
	for {
		q, err := stream.Recv()
		for range q.GetCount() {
			if err == nil {
				err = stream.Send(e)
			}
		}
		if err != nil {
			return err
		}
	}
}

func (source) Channel(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
	_, size := asked(stream.Context())
	both, _, err := streamcredit.ServeFrames(stream, streamcredit.WithSendOnly())
	for err == nil {
		err = both.Out.Send(stream.Context(), make([]byte, size))
	}
	return err
}

// serveSource serves on a free port, with the delay in what it writes.
func serveSource(d time.Duration) (addr string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := grpc.NewServer(grpc.WaitForHandlers(true))
	demopb.RegisterStreamServiceServer(s, source{})
	creditpb.RegisterCreditStreamServer(s, source{})
	addr = l.Addr().String()
	if d > 0 {
		l = delayedListener{l, d}
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(l) }()
	return addr, func() { s.Stop(); <-served }, nil
}

// serveElsewhere runs this program as the server of the benchmarks, for TestMain, until its
// standard input ends.
func serveElsewhere() {
	addr, stop, err := serveSource(0)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(addr)
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	stop()
	os.Exit(0)
}

// A form is where client and server are, and what is between them.
type form struct {
	name  string
	delay time.Duration // each way
	apart bool          // in processes of their own
}

func (f form) start(b *testing.B) (addr string) {
	b.Helper()
	if !f.apart {
		addr, stop, err := serveSource(f.delay)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(stop)
		return addr
	}
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "WEIR_BENCH_SERVE=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	addr, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(addr)
}

func (f form) dial(b *testing.B, addr string) *grpc.ClientConn {
	b.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			c, err := net.Dial("tcp", addr)
			if err == nil && f.delay > 0 {
				c = delay(c, f.delay)
			}
			return c, err
		}))
	if err != nil {
		b.Fatal(err)
	}
	return conn
}

// rate returns how many elements a second next gets, after warming up.
func (f form) rate(b *testing.B, next func() error) float64 {
	b.Helper()
	length := benchSeconds()
	count := func(d time.Duration) (n int) {
		for start := time.Now(); time.Since(start) < d; {
			for range 16 {
				if err := next(); err != nil {
					b.Fatal(err)
				}
				n++
			}
		}
		return n
	}
	count(length/2 + 100*f.delay) // windows, gRPC's among them, find their size
	start := time.Now()
	n := count(length)
	return float64(n) / time.Since(start).Seconds()
}

func benchSeconds() time.Duration {
	if s, err := strconv.ParseFloat(os.Getenv("WEIR_BENCH_SECONDS"), 64); err == nil && s > 0 {
		return time.Duration(s * float64(time.Second))
	}
	return 500 * time.Millisecond
}

// A subject opens a stream of elements of that size and returns how to get the next one.
type subject func(b *testing.B, ctx context.Context, conn *grpc.ClientConn, size int) (next func() error, window func() int)

func raw(b *testing.B, ctx context.Context, conn *grpc.ClientConn, size int) (func() error, func() int) {
	stream, err := demopb.NewStreamServiceClient(conn).Subscribe(ask(ctx, "raw", size))
	if err != nil {
		b.Fatal(err)
	}
	return func() error { _, err := stream.Recv(); return err }, nil
}

// byHand is a window of w elements with what gRPC offers, granted by halves.
func byHand(w int) subject {
	return func(b *testing.B, ctx context.Context, conn *grpc.ClientConn, size int) (func() error, func() int) {
		stream, err := demopb.NewStreamServiceClient(conn).Subscribe(ask(ctx, "byhand", size))
		if err != nil {
			b.Fatal(err)
		}
		half := &demopb.SubscribeRequest{Count: int64(w / 2)}
		_, _ = stream.Send(half), stream.Send(half)
		n := 0
		return func() error {
			if n++; n%(w/2) == 0 {
				_ = stream.Send(half) // Recv says what is wrong
			}
			_, err := stream.Recv()
			return err
		}, nil
	}
}

func credit(opts ...streamcredit.ReceiveOption) subject {
	return func(b *testing.B, ctx context.Context, conn *grpc.ClientConn, size int) (func() error, func() int) {
		in, err := streamcredit.DialReceive(ask(ctx, "credit", size), demopb.NewStreamServiceClient(conn).Subscribe, opts...)
		if err != nil {
			b.Fatal(err)
		}
		return func() error { _, err := in.Recv(ctx); return err }, func() int { return int(in.Stats().Window) }
	}
}

func enveloped(opts ...streamcredit.DuplexOption) subject {
	return func(b *testing.B, ctx context.Context, conn *grpc.ClientConn, size int) (func() error, func() int) {
		both, err := streamcredit.DialFrames(ask(ctx, "frames", size), creditpb.NewCreditStreamClient(conn).Channel,
			append(opts, streamcredit.WithReceiveOnly())...)
		if err != nil {
			b.Fatal(err)
		}
		return func() error { _, err := both.In.Recv(ctx); return err }, func() int { return int(both.In.Stats().Window) }
	}
}

// compare reports the rate of s as a ratio to that of bare gRPC.
func (f form) compare(b *testing.B, s subject, size int) {
	addr := f.start(b)
	var window int
	measure := func(s subject) float64 {
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		conn := f.dial(b, addr)
		defer conn.Close()
		next, size := s(b, ctx, conn, size)
		rate := f.rate(b, next)
		if size != nil {
			window = size()
		}
		return rate
	}
	for range b.N {
		var ratios []float64
		var bare, with float64
		for round := range rounds() {
			if round%2 == 0 {
				bare, with = measure(raw), measure(s)
			} else {
				with, bare = measure(s), measure(raw)
			}
			ratios = append(ratios, with/bare)
		}
		slices.Sort(ratios)
		b.ReportMetric(ratios[len(ratios)/2], "ratio")
		b.ReportMetric(ratios[0], "ratio-min")
		b.ReportMetric(ratios[len(ratios)-1], "ratio-max")
		b.ReportMetric(with, "elements/s")
		b.ReportMetric(0, "ns/op") // says nothing here
	}
	if window > 0 {
		b.ReportMetric(float64(window), "window")
	}
}

// BenchmarkRatio is the rate of a stream with credit, as a ratio to bare gRPC. byhand is the
// floor: what a window costs without weir.
func BenchmarkRatio(b *testing.B) {
	for _, f := range []form{{name: "together"}, {name: "apart", apart: true}, {name: "20ms", delay: 10 * time.Millisecond}} {
		for _, size := range []int{64, 1 << 10, 16 << 10} {
			for _, c := range []struct {
				name string
				subject
			}{
				{"W=64", credit(streamcredit.WithWindow(64))},
				{"W=256", credit(streamcredit.WithWindow(256))},
				{"W=1024", credit(streamcredit.WithWindow(1024))},
				{"automatic", credit()},
				{"byhand=64", byHand(64)},
				{"byhand=256", byHand(256)},
				{"byhand=1024", byHand(1024)},
				{"frames,W=256", enveloped(streamcredit.WithWindow(256))},
				{"frames,automatic", enveloped()},
			} {
				fixed := strings.Contains(c.name, "=")
				if f.delay > 0 && fixed || size > 1<<10 && strings.HasPrefix(c.name, "frames") {
					continue // a fixed window is slow on a long line; batches are for small elements
				}
				b.Run(fmt.Sprintf("%s/size=%d/%s", f.name, size, c.name), func(b *testing.B) { f.compare(b, c.subject, size) })
			}
		}
	}
}

// BenchmarkElement is the cost of one element: compare allocations.
func BenchmarkElement(b *testing.B) {
	for name, s := range map[string]subject{
		"raw": raw, "W=64": credit(streamcredit.WithWindow(64)), "W=1024": credit(streamcredit.WithWindow(1024)), "automatic": credit(),
		"frames": enveloped(),
	} {
		b.Run(name, func(b *testing.B) {
			f := form{}
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			conn := f.dial(b, f.start(b))
			defer conn.Close()
			next, _ := s(b, ctx, conn, 64)
			b.ReportAllocs()
			for b.Loop() {
				if err := next(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
