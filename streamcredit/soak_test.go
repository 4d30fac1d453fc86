package streamcredit_test

import (
	"context"
	"math"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/streamcredit"
)

// heap returns how many bytes are reachable, without what becomes garbage meanwhile.
func heap() int64 {
	runtime.GC()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	return int64(live[0].Value.Uint64())
}

// Streams that nobody reads, beside busy ones on the same connection: HTTP/2's windows grow
// with the busy ones' bandwidth, for all of them. With credit what they hold is what was
// asked for.
func TestStalledStreamsHoldWhatWasAskedFor(t *testing.T) {
	const stalled, busy, size, window = 256, 4, 1 << 10, 64
	length := 10 * time.Second
	if testing.Short() {
		length = 2 * time.Second
	}
	client := handlers{subscribe: func(stream subscribeServer) error {
		out, _, err := streamcredit.ServeSend(stream)
		for err == nil {
			err = out.Send(stream.Context(), &demopb.SubscribeResponse{Payload: make([]byte, size)})
		}
		return err
	}}.start(t, grpctest.OverSocket(), grpctest.ServerOptions(grpc.MaxConcurrentStreams(1000)))
	before := heap()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range stalled {
		in, err := streamcredit.DialReceive(ctx, client.Subscribe, streamcredit.WithWindow(window))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Recv(ctx); err != nil {
			t.Fatal(err)
		}
	}
	var readers sync.WaitGroup
	var counts [busy]int
	for i := range busy {
		readers.Go(func() {
			in, err := streamcredit.DialReceive(ctx, client.Subscribe, streamcredit.WithWindow(window))
			if err != nil {
				t.Error(err)
				return
			}
			for _, err := range in.All(ctx) {
				if err != nil {
					return // the end of the test
				}
				counts[i]++
			}
		})
	}
	const looks = 12
	// The least of several looks is what is held. Garbage between two collections is not.
	held := [2]int64{math.MaxInt64, math.MaxInt64} // in the first half and in the second one
	for i := range looks {
		time.Sleep(length / looks)
		held[2*i/looks] = min(held[2*i/looks], heap()-before)
	}
	cancel()
	readers.Wait()
	const limit, growth = 48 << 20, 16 << 20 // payload: 16 MiB. Bare gRPC takes gigabytes, and BenchmarkStalled has one end alone
	if held[0] > limit || held[1] > limit {
		t.Errorf("heap: got %d and then %d MiB more than before, want at most %d", held[0]>>20, held[1]>>20, limit>>20)
	}
	if held[1] > held[0]+growth {
		t.Errorf("heap: got %d MiB more than before at first and then %d, want it flat", held[0]>>20, held[1]>>20)
	}
	t.Logf("heap %d and then %d MiB more than before; busy streams received %v elements", held[0]>>20, held[1]>>20, counts)
	for i, n := range counts {
		if n < 10*window {
			t.Errorf("busy stream %d received %d elements, want it to flow", i, n)
		}
	}
}

// Both sides send without looking, and receive only when Send has returned: messages larger
// than HTTP/2's windows, and a window of one.
func TestFullDuplexOneAtATime(t *testing.T) {
	for name, c := range map[string]struct{ count, size int }{
		"many":  {10_000, 16},
		"large": {40, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			client := handlers{convert: func(stream convertServer) error {
				both, _, err := streamcredit.Serve(stream, streamcredit.WithWindow(1))
				if err != nil {
					return err
				}
				for range c.count {
					if err := both.Out.Send(stream.Context(), &demopb.ConvertResponse{Payload: make([]byte, c.size)}); err != nil {
						return err
					}
					if _, err := both.In.Recv(stream.Context()); err != nil {
						return err
					}
				}
				return both.Out.Finish(stream.Context())
			}}.start(t, grpctest.OverSocket())
			both, err := streamcredit.Dial(t.Context(), client.Convert, streamcredit.WithWindow(1))
			if err != nil {
				t.Fatal(err)
			}
			for i := range c.count {
				if err := both.Out.Send(t.Context(), &demopb.ConvertRequest{Payload: make([]byte, c.size)}); err != nil {
					t.Fatalf("Send %d = %v, want no error", i, err)
				}
				if _, err := both.In.Recv(t.Context()); err != nil {
					t.Fatalf("Recv %d = %v, want no error", i, err)
				}
			}
			if err := both.Out.Close(); err != nil {
				t.Errorf("Close = %v, want no error", err)
			}
			if e, err := both.In.Recv(t.Context()); err == nil {
				t.Errorf("Recv = %v, want the end", e)
			}
			if err := both.Close(); err != nil {
				t.Errorf("Close of both = %v, want no error", err)
			}
		})
	}
}

// BenchmarkStalled is what stalled streams cost on a connection with busy ones: the heap, and
// what is left of the busy streams' rate. Bare gRPC takes GiB, and more the longer it runs.
func BenchmarkStalled(b *testing.B) {
	const stalled, busy, size, window = 256, 4, 1 << 10, 64
	for name, s := range map[string]subject{
		"raw": raw, "W=64": credit(streamcredit.WithWindow(window)), "frames,W=64": enveloped(streamcredit.WithWindow(window)),
	} {
		b.Run(name, func(b *testing.B) {
			if name == "raw" && rounds() == 1 {
				b.Skip("bare gRPC takes GiB here; WEIR_BENCH_SECONDS=0.5 measures it")
			}
			for range b.N {
				alone, _ := besideStalled(b, s, 0, busy, size)
				beside, held := besideStalled(b, s, stalled, busy, size)
				b.ReportMetric(float64(held>>20), "heap-MiB")
				b.ReportMetric(beside/alone, "ratio")
				b.ReportMetric(0, "ns/op") // says nothing here
			}
		})
	}
}

// besideStalled returns the rate of busy streams beside stalled ones, and the heap that all of it
// held in the second half of the time. A look counts what busy streams allocate while it marks, so
// the least of several looks is what is held.
func besideStalled(b *testing.B, s subject, stalled, busy, size int) (rate float64, held int64) {
	f := form{}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	before := heap()
	conn := f.dial(b, f.start(b))
	defer conn.Close()
	for range stalled {
		next, _ := s(b, ctx, conn, size)
		if err := next(); err != nil {
			b.Fatal(err)
		}
	}
	var n atomic.Int64
	var readers sync.WaitGroup
	for range busy {
		next, _ := s(b, ctx, conn, size)
		readers.Go(func() {
			for next() == nil {
				n.Add(1)
			}
		})
	}
	const looks = 12
	length := 10 * benchSeconds()
	held = math.MaxInt64
	for i := range looks {
		time.Sleep(length / looks)
		if now := heap() - before; i >= looks/2 {
			held = min(held, now)
		}
	}
	rate = float64(n.Load()) / length.Seconds()
	cancel()
	readers.Wait()
	return rate, held
}

// A thousand receivers that have stopped share one budget: together they hold no more than it
// says, and all of them go on when their applications do.
func TestABudgetBoundsManyStoppedStreams(t *testing.T) {
	const streams, size, bound, then = 1000, 4 << 10, 64 << 20, 20
	client := handlers{subscribe: func(stream subscribeServer) error {
		out, _, err := streamcredit.ServeSend(stream)
		for err == nil {
			err = out.Send(stream.Context(), &demopb.SubscribeResponse{Payload: make([]byte, size)})
		}
		return err
	}}.start(t, grpctest.OverSocket(), grpctest.ServerOptions(grpc.MaxConcurrentStreams(2*streams)))
	budget, err := streamcredit.NewBudget(streamcredit.BudgetConfig{Bytes: bound})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var receivers []*streamcredit.Receiver[*demopb.SubscribeResponse]
	for range streams {
		in, err := streamcredit.DialReceive(ctx, client.Subscribe, streamcredit.WithWindow(256), streamcredit.WithBudget(budget))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Recv(ctx); err != nil {
			t.Fatal(err)
		}
		receivers = append(receivers, in)
	}
	if got := budget.Stats(); got.Streams != streams || got.Bytes > bound {
		t.Errorf("budget = %+v, want %d streams and at most %d bytes", got, streams, bound)
	}
	held := func() (bytes int64) {
		for _, in := range receivers {
			bytes += int64(in.Stats().Buffered) * size
		}
		return bytes
	}
	if got := held(); got > bound {
		t.Errorf("stopped streams hold %d bytes, want at most %d", got, bound)
	}
	var going sync.WaitGroup
	for i, in := range receivers {
		going.Go(func() {
			for n := range then {
				if _, err := in.Recv(ctx); err != nil {
					t.Errorf("stream %d, element %d = %v, want no error", i, n, err)
					return
				}
			}
		})
	}
	going.Wait()
	if got := budget.Stats(); got.Bytes > bound {
		t.Errorf("budget = %+v, want at most %d bytes", got, bound)
	}
	if got := held(); got > bound {
		t.Errorf("streams hold %d bytes, want at most %d", got, bound)
	}
	t.Logf("budget %+v, held %d MiB", budget.Stats(), held()>>20)
	for _, in := range receivers {
		in.Cancel("the end")
	}
	if got := budget.Stats(); got != (streamcredit.BudgetStats{}) {
		t.Errorf("budget after the end = %+v, want nothing", got)
	}
}
