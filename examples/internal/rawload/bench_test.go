package rawload_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/examples/internal/child"
	"github.com/weir-go/weir/examples/internal/overload"
	"github.com/weir-go/weir/examples/internal/rawload"
	"github.com/weir-go/weir/interceptors"
)

func TestMain(m *testing.M) {
	child.Main(serve)
	os.Exit(m.Run())
}

// A config describes the server, which is a process of its own.
type config struct {
	Guard   string // a guard's name
	Rounds  int    // of hashing in a call, to compute; 0: eight workers sleep for 5 ms
	Permits int    // of the guard "semaphore"
}

// serve runs the server of a benchmark, and prints its address.
func serve(c config, out io.Writer) error {
	work := func(context.Context) { overload.Burn(c.Rounds) }
	if c.Rounds == 0 {
		work = overload.NewService(overload.Config{Workers: workers, Mean: sleeps, Shape: overload.Constant}).Serve
	}
	opts, err := guard(c)
	if err != nil {
		return err
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := grpc.NewServer(opts...)
	demopb.RegisterDemoServiceServer(s, worker{work: work})
	go func() { _ = s.Serve(lis) }() // until the process is killed
	_, err = fmt.Fprintln(out, lis.Addr())
	return err
}

type worker struct {
	demopb.UnimplementedDemoServiceServer
	work func(context.Context)
}

func (w worker) Work(ctx context.Context, _ *demopb.WorkRequest) (*demopb.WorkResponse, error) {
	w.work(ctx)
	return &demopb.WorkResponse{Message: "done"}, nil
}

// guard returns what is between the calls and the work.
func guard(c config) ([]grpc.ServerOption, error) {
	if c.Guard == "none" {
		return nil, nil
	}
	if c.Guard == "semaphore" {
		return []grpc.ServerOption{grpc.ChainUnaryInterceptor(semaphore(c.Permits))}, nil
	}
	g, err := admit.New()
	if err != nil {
		return nil, err
	}
	opts := []grpc.ServerOption{grpc.ChainUnaryInterceptor(interceptors.UnaryServer(g))}
	switch c.Guard {
	case "tap":
		if opts, err = interceptors.Server(interceptors.ServerConfig{Gate: g, Tap: true}); err != nil {
			return nil, err
		}
		opts = append(opts, grpc.MaxConcurrentStreams(math.MaxUint32)) // as without it
	case "draining":
		g.Drain()
	}
	return opts, nil
}

// semaphore is the least that a limiter can be: it knows the right limit, and
// refuses with a status that was made before.
func semaphore(permits int) grpc.UnaryServerInterceptor {
	free := make(chan struct{}, permits)
	full := status.Error(codes.Unavailable, "full")
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		select {
		case free <- struct{}{}:
			defer func() { <-free }()
			return handler(ctx, req)
		default:
			return nil, full
		}
	}
}

const (
	workers = 8
	sleeps  = 5 * time.Millisecond
	burns   = 2 * time.Millisecond
)

func seconds() time.Duration {
	if s, err := strconv.ParseFloat(os.Getenv("WEIR_BENCH_SECONDS"), 64); err == nil {
		return time.Duration(s * float64(time.Second))
	}
	return 2 * time.Second
}

func message(name string) []byte {
	data, err := proto.Marshal(&demopb.WorkRequest{Name: name})
	if err != nil {
		return nil
	}
	return data
}

// A trial is one server under one load.
type trial struct {
	config
	rate, capacity float64 // calls a second
	patience       time.Duration
}

// run measures a trial, and returns the result and the share of a processor that
// the server took.
func (c trial) run(b *testing.B) (r rawload.Result, cpu float64) {
	b.Helper()
	p := c.start(b)
	defer func() { _ = p.Stop() }()
	if !p.Lines.Scan() {
		b.Fatalf("server: got %v, want its address", p.Lines.Err())
	}
	l := c.load(p.Lines.Text())
	begin, used := time.Now(), time.Duration(0)
	l.Edge = func() {
		u, err := cpuTime(p.PID)
		if err != nil {
			b.Log(err)
		}
		cpu = (u - used).Seconds() / time.Since(begin).Seconds()
		begin, used = time.Now(), u
	}
	r, err := l.Run(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return r, cpu
}

// load returns the load for a server.
func (c trial) load(addr string) *rawload.Load {
	return &rawload.Load{
		Addr: addr, Method: demopb.DemoService_Work_FullMethodName, Message: message("raw"), Conns: 4,
		Rate: c.rate, Patience: c.patience, Warm: seconds() / 2, Length: seconds(), Seed: uint64(time.Now().UnixNano()),
	}
}

// start starts the server on the first processor; this process keeps to another.
func (c trial) start(b *testing.B) *child.Process {
	b.Helper()
	cpus := processors()
	if len(cpus) > 1 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := pin(0, cpus[0]); err != nil { // the child inherits it
			b.Log(err)
		}
		defer func() {
			if err := pinAll(cpus[1:]...); err != nil {
				b.Log(err)
			}
		}()
	}
	p, err := child.Start(b.Context(), c.config, 1)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func (c trial) report(b *testing.B) (rawload.Result, float64) {
	b.Helper()
	r, cpu := c.run(b)
	good := float64(r.Good) / seconds().Seconds()
	b.ReportMetric(good/c.capacity, "goodput/capacity")
	b.ReportMetric(r.P50.Seconds()*1e3, "p50-ms")
	b.ReportMetric(r.P99.Seconds()*1e3, "p99-ms")
	b.ReportMetric(r.NoP50.Seconds()*1e3, "refused-p50-ms")
	b.ReportMetric(r.NoP99.Seconds()*1e3, "refused-p99-ms")
	b.ReportMetric(cpu*100, "server-cpu-%")
	b.ReportMetric(r.Lag.Seconds()*1e3, "sender-late-ms")
	b.ReportMetric(0, "ns/op")
	return r, cpu
}

// BenchmarkOneCore measures a server that is alone on one processor: eight workers
// sleep for 5 ms, 1,600 calls a second, and are asked for one to twelve times that.
// The semaphore is told what weir has to find out. Each takes WEIR_BENCH_SECONDS
// (default 2) after half as long to warm up; cpu/semaphore compares with the run just
// before. It needs two processors that are quiet. Medians of five interleaved runs:
//
//	WEIR_BENCH_SECONDS=5 make bench BENCH=OneCore BENCHTIME=1x BENCHCOUNT=5 PKGS=./examples/internal/rawload
func BenchmarkOneCore(b *testing.B) {
	capacity := workers / sleeps.Seconds()
	for _, load := range []float64{1, 4, 8, 12} {
		var floor float64
		for _, name := range []string{"none", "semaphore", "weir", "tap"} {
			b.Run(fmt.Sprintf("load=%g/guard=%s", load, name), func(b *testing.B) {
				for range b.N {
					c := trial{config{Guard: name, Permits: workers + 2}, load * capacity, capacity, 100 * time.Millisecond}
					_, cpu := c.report(b)
					switch {
					case name == "semaphore":
						floor = cpu
					case floor > 0:
						b.ReportMetric(cpu/floor, "cpu/semaphore")
					}
				}
			})
		}
	}
}

// BenchmarkOneCoreComputing is the same with a handler that hashes for 2 ms.
// goodput/left is the share of the processor's time that refusals leave.
func BenchmarkOneCoreComputing(b *testing.B) {
	rounds := overload.Rounds(burns)
	capacity := 1 / burns.Seconds()
	refusal := refusalTime(b)
	for _, load := range []float64{1, 2, 4, 8} {
		for _, name := range []string{"none", "semaphore", "weir", "tap"} {
			b.Run(fmt.Sprintf("load=%g/guard=%s", load, name), func(b *testing.B) {
				for range b.N {
					c := trial{config{Guard: name, Rounds: rounds, Permits: 2}, load * capacity, capacity, 100 * time.Millisecond}
					r, _ := c.report(b)
					took := seconds().Seconds()
					left := 1 - float64(r.Refused)/took*refusal
					b.ReportMetric(float64(r.Good)*burns.Seconds()/took/left, "goodput/left")
				}
			})
		}
	}
}

// BenchmarkOneCoreHealthy counts the calls that a server refuses which computes for 2 ms and is
// asked for half of what it can do, fresh and a second after it was asked for four times that.
func BenchmarkOneCoreHealthy(b *testing.B) {
	capacity := 1 / burns.Seconds()
	for _, before := range []float64{0, 4} {
		b.Run(fmt.Sprintf("before=%g", before), func(b *testing.B) {
			for range b.N {
				c := trial{config{Guard: "weir", Rounds: overload.Rounds(burns)}, capacity / 2, capacity, time.Second}
				p := c.start(b)
				if !p.Lines.Scan() {
					b.Fatalf("server: got %v, want its address", p.Lines.Err())
				}
				l := c.load(p.Lines.Text())
				if before > 0 {
					l.Rate, l.Patience = before*capacity, 100*time.Millisecond
					if _, err := l.Run(b.Context()); err != nil {
						b.Fatal(err)
					}
					l = c.load(l.Addr)
					l.Warm = time.Second
				}
				r, err := l.Run(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(r.Offered), "calls")
				b.ReportMetric(float64(r.Refused), "refused")
				b.ReportMetric(float64(r.Lost), "lost")
				b.ReportMetric(0, "ns/op")
				_ = p.Stop()
			}
		})
	}
}

// refusalTime returns how long the processor works for a call that is refused, in
// seconds.
func refusalTime(b *testing.B) float64 {
	b.Helper()
	const rate = 4000
	_, cpu := trial{config{Guard: "draining"}, rate, rate, 100 * time.Millisecond}.run(b)
	return cpu / rate
}
