package overload_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/internal/overload"
	"github.com/weir-go/weir/interceptors"
)

// BenchmarkGoodput measures, over real gRPC on a loopback socket, which share of
// a server's capacity is served in time when callers ask for one to eight times
// as much, with weir's defaults and without. Each takes WEIR_BENCH_SECONDS
// (default 2) after half as long to warm up:
//
//	WEIR_BENCH_SECONDS=8 go test -run=^$ -bench=Goodput -benchtime=1x -count=5 ./examples/internal/overload
func BenchmarkGoodput(b *testing.B) {
	services := []struct {
		name string
		cfg  overload.Config
	}{
		{"exponential", overload.Config{Workers: 8, Mean: 5 * time.Millisecond}},
		{"constant", overload.Config{Workers: 8, Mean: 5 * time.Millisecond, Shape: overload.Constant}},
		{"bimodal", overload.Config{Workers: 8, Mean: 5 * time.Millisecond, Shape: overload.Bimodal}},
		{"K=1", overload.Config{Workers: 1, Mean: 2 * time.Millisecond}},
		{"K=256", overload.Config{Workers: 256, Mean: 160 * time.Millisecond}},
	}
	for _, s := range services {
		for _, load := range []float64{1, 2, 4, 8} {
			b.Run(fmt.Sprintf("service=%s/load=%g/gate=default", s.name, load), func(b *testing.B) {
				for range b.N {
					measure(b, s.cfg, load, newGate(b))
				}
			})
		}
	}
	for _, load := range []float64{1, 2, 8} {
		b.Run(fmt.Sprintf("service=exponential/load=%g/gate=none", load), func(b *testing.B) {
			for range b.N {
				measure(b, services[0].cfg, load, nil)
			}
		})
	}
}

func newGate(b *testing.B) *admit.Gate {
	b.Helper()
	g, err := admit.New()
	if err != nil {
		b.Fatal(err)
	}
	return g
}

func seconds() time.Duration {
	if s, err := strconv.ParseFloat(os.Getenv("WEIR_BENCH_SECONDS"), 64); err == nil {
		return time.Duration(s * float64(time.Second))
	}
	return 2 * time.Second
}

func seed() uint64 {
	n, err := strconv.ParseUint(os.Getenv("WEIR_BENCH_SEED"), 10, 64)
	if err != nil {
		n = uint64(time.Now().UnixNano())
	}
	return n
}

func measure(b *testing.B, cfg overload.Config, load float64, gate *admit.Gate) {
	b.Helper()
	cfg.Slowdown, cfg.Seed = 0.01, seed()
	service := overload.NewService(cfg)
	defer service.Close()
	patience := max(100*time.Millisecond, 12*cfg.Mean)
	run(b, service.Serve, service.Capacity(), load*service.Capacity(), patience, gate)
}

// run measures goodput as a share of capacity, at a rate of callers a second.
func run(b *testing.B, work func(context.Context), capacity, rate float64, patience time.Duration, gate *admit.Gate) {
	b.Helper()
	server := serve(b, work, gate)
	l := &overload.Load{Rate: rate, Patience: patience, Seed: seed()}
	l.Call = func(ctx context.Context) error { return server.Call(ctx, l.Arrived.Load()) }
	warm, length := max(seconds()/2, 10*patience/2), seconds()
	stop := watch(gate)
	l.Run(b.Context(), warm+length)
	limit := stop()
	r := l.Between(warm, warm+length)
	b.ReportMetric(r.Goodput()/capacity, "goodput/capacity")
	b.ReportMetric(r.P50.Seconds()*1e3, "p50-ms")
	b.ReportMetric(r.P99.Seconds()*1e3, "p99-ms")
	b.ReportMetric(limit, "limit")
	b.ReportMetric(0, "ns/op")
}

func serve(b *testing.B, work func(context.Context), gate *admit.Gate, of ...interceptors.ServerOption) *overload.Server {
	b.Helper()
	var opts []grpc.ServerOption
	if gate != nil {
		opts = append(opts, grpc.ChainUnaryInterceptor(interceptors.UnaryServer(gate, of...)))
	}
	server, err := overload.Serve(work, 4, opts...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = server.Stop() })
	return server
}

// watch samples a gate's limit; the function that it returns stops it and
// returns the mean.
func watch(gate *admit.Gate) func() float64 {
	done := make(chan struct{})
	var sum, n float64
	var wg sync.WaitGroup
	wg.Go(func() {
		for gate != nil {
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
				sum += float64(gate.Stats().Limit)
				n++
			}
		}
	})
	return func() float64 {
		close(done)
		wg.Wait()
		return sum / max(1, n)
	}
}

// BenchmarkStep measures how long it takes after the capacity has halved, and
// after it has returned, until goodput stays within 10 % of it for half a
// second.
func BenchmarkStep(b *testing.B) {
	for range b.N {
		service := overload.NewService(overload.Config{Workers: 8, Mean: 5 * time.Millisecond, Slowdown: 0.01, Seed: seed()})
		full := service.Capacity()
		server := serve(b, service.Serve, newGate(b))
		l := &overload.Load{Rate: 2 * full, Patience: 100 * time.Millisecond, Seed: seed()}
		l.Call = func(ctx context.Context) error { return server.Call(ctx, l.Arrived.Load()) }
		third := max(seconds(), 4*time.Second)
		time.AfterFunc(third, func() { service.SetWorkers(4) })
		time.AfterFunc(2*third, func() { service.SetWorkers(8) })
		l.Run(b.Context(), 3*third)
		b.ReportMetric(recovery(l, third, 2*third, full/2).Seconds(), "down-s")
		b.ReportMetric(recovery(l, 2*third, 3*third, full).Seconds(), "up-s")
		b.ReportMetric(0, "ns/op")
		service.Close()
	}
}

// recovery is how long after a step goodput is within 10 % of capacity, over
// half a second.
func recovery(l *overload.Load, from, to time.Duration, capacity float64) time.Duration {
	const span, stride = 500 * time.Millisecond, 100 * time.Millisecond
	for at := from; at+span <= to; at += stride {
		if l.Between(at, at+span).Goodput() >= 0.9*capacity {
			return at - from
		}
	}
	return to - from
}

// BenchmarkNeighbours measures what others leave of what somebody asks for: critical
// calls, a fifth of four times the capacity; and nine tenants, who ask for four fifths of
// a tenth of the capacity each, beside one who asks for ten times that.
func BenchmarkNeighbours(b *testing.B) {
	const key = "x-who" // a benchmark trusts its own metadata
	who := func(ctx context.Context) string { return metadata.ValueFromIncomingContext(ctx, key)[0] }
	class := interceptors.WithClassifier(func(ctx context.Context, _ interceptors.CallMeta) admit.Class {
		if who(ctx) == "critical" {
			return admit.Critical
		}
		return admit.Default
	})
	tenant := interceptors.WithTenant(func(ctx context.Context, _ interceptors.CallMeta) string { return who(ctx) })
	for _, c := range []struct {
		name          string
		opt           interceptors.ServerOption
		protect, rest float64 // loads
		name1, name2  func(n int64) string
	}{
		{"critical", class, 0.8, 3.2, func(int64) string { return "critical" }, func(int64) string { return "default" }},
		{"tenants", tenant, 9 * 0.08, 10 * 0.08, func(n int64) string { return strconv.Itoa(int(n % 9)) }, func(int64) string { return "greedy" }},
	} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				service := overload.NewService(overload.Config{Workers: 8, Mean: 5 * time.Millisecond, Slowdown: 0.01, Seed: seed()})
				server := serve(b, service.Serve, newGate(b), c.opt)
				load := func(rate float64, name func(int64) string) *overload.Load {
					l := &overload.Load{Rate: rate * service.Capacity(), Patience: 100 * time.Millisecond, Seed: seed()}
					l.Call = func(ctx context.Context) error {
						n := l.Arrived.Load()
						return server.Call(metadata.AppendToOutgoingContext(ctx, key, name(n)), n)
					}
					return l
				}
				protected, rest := load(c.protect, c.name1), load(c.rest, c.name2)
				warm, length := seconds()/2, seconds()
				var both sync.WaitGroup
				both.Go(func() { protected.Run(b.Context(), warm+length) })
				both.Go(func() { rest.Run(b.Context(), warm+length) })
				both.Wait()
				p, r := protected.Between(warm, warm+length), rest.Between(warm, warm+length)
				b.ReportMetric(float64(p.Good)/float64(p.Offered), "protected/asked")
				b.ReportMetric(float64(r.Good)/float64(r.Offered), "others/asked")
				b.ReportMetric((p.Goodput()+r.Goodput())/service.Capacity(), "goodput/capacity")
				b.ReportMetric(0, "ns/op")
				service.Close()
			}
		})
	}
}

// BenchmarkCPU is a handler that burns a core. Its capacity is what as many
// closed-loop callers as there are cores get out of it, before.
func BenchmarkCPU(b *testing.B) {
	rounds := overload.Rounds(2 * time.Millisecond)
	work := func(context.Context) { overload.Burn(rounds) }
	for _, load := range []float64{1, 2, 4} {
		for _, name := range []string{"default", "none"} {
			b.Run(fmt.Sprintf("load=%g/gate=%s", load, name), func(b *testing.B) {
				for range b.N {
					capacity := closedLoop(b, work)
					var gate *admit.Gate
					if name == "default" {
						gate = newGate(b)
					}
					run(b, work, capacity, load*capacity, 100*time.Millisecond, gate)
					b.ReportMetric(capacity, "capacity/s")
				}
			})
		}
	}
}

func closedLoop(b *testing.B, work func(context.Context)) float64 {
	b.Helper()
	server := serve(b, work, nil)
	const length = time.Second
	var wg sync.WaitGroup
	counts := make([]int, runtime.GOMAXPROCS(0))
	stop := time.Now().Add(length)
	for i := range counts {
		wg.Go(func() {
			for time.Now().Before(stop) {
				if err := server.Call(b.Context(), int64(i)); err != nil {
					b.Error(err)
					return
				}
				counts[i]++
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / length.Seconds()
}
