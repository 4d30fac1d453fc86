package main

import (
	"context"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/internal/overload"
	"github.com/weir-go/weir/interceptors"
)

const (
	bare     = "bare"
	withWeir = "weir"

	patience = 100 * time.Millisecond // of a caller, from when it meant to call
	sampling = 100 * time.Millisecond

	// A caller that sets off later than this was held up by the machine. If
	// more than tooMany were, the figures are the machine's, not the server's.
	heldUp  = patience / 10
	tooMany = 0.1
)

// A Row is what one load came to.
type Row struct {
	Run     string  `json:"run"`
	Load    float64 `json:"load"`
	Offered float64 `json:"offered"` // calls a second
	Goodput float64 `json:"goodput"` // served in time, a second
	Share   float64 `json:"share"`   // of capacity
	P50     float64 `json:"p50"`     // milliseconds, of those
	P99     float64 `json:"p99"`
	Refused float64 `json:"refused"` // a second
	Wasted  float64 `json:"wasted"`  // share of the work that was for nobody
	Heap    float64 `json:"heap"`    // MiB, at most; callers included
	Late    float64 `json:"late"`    // share of the callers that the machine held up
}

// A Sample is what was seen at one moment.
type Sample struct {
	Run      string  `json:"run"`
	At       float64 `json:"at"` // seconds since the run began
	Load     float64 `json:"load"`
	Goodput  float64 `json:"goodput"`
	Refused  float64 `json:"refused"`
	Limit    int     `json:"limit"`
	InFlight int     `json:"inFlight"`
	Queue    int     `json:"queue"`
}

// A stage is a server under one load.
type stage struct {
	run     string
	load    float64
	service *overload.Service
	gate    *admit.Gate // nil: bare
	callers *overload.Load
	late    atomic.Int64 // callers that the machine held up
}

func newStage(run string, load float64, seed uint64) (*stage, *overload.Server, error) {
	s := &stage{run: run, load: load}
	s.service = overload.NewService(overload.Config{
		Workers: 8, Mean: 5 * time.Millisecond, Slowdown: 0.01, Seed: seed,
	})
	var opts []grpc.ServerOption
	if run == withWeir {
		var err error
		if s.gate, err = admit.New(); err != nil { // the defaults: nothing is tuned to this server
			return nil, nil, err
		}
		opts = append(opts, grpc.ChainUnaryInterceptor(interceptors.UnaryServer(s.gate)))
	}
	server, err := overload.Serve(s.service.Serve, 4,
		[]grpc.DialOption{grpc.WithDefaultServiceConfig(overload.RetryConfig)}, opts...)
	if err != nil {
		return nil, nil, err
	}
	s.callers = &overload.Load{Rate: load * s.service.Capacity(), Patience: patience, Seed: seed}
	s.callers.Call = func(ctx context.Context) error {
		s.noteLateness(ctx)
		return server.Call(ctx, s.callers.Arrived.Load())
	}
	return s, server, nil
}

// noteLateness counts a caller that sets off late. Its deadline is its patience
// after it meant to.
func (s *stage) noteLateness(ctx context.Context) {
	if deadline, ok := ctx.Deadline(); ok && patience-time.Until(deadline) > heldUp {
		s.late.Add(1)
	}
}

// measure puts a fresh server under a load for a step, and reports on all but
// its first quarter.
func measure(ctx context.Context, show *show, run string, load float64, step time.Duration, seed uint64) (Row, error) {
	runtime.GC() // what the last step left behind is not this one's peak; the second
	runtime.GC() // collection empties the pools
	s, server, err := newStage(run, load, seed)
	if err != nil {
		return Row{}, err
	}
	watched := s.watch(show)
	warm := step / 4
	s.callers.Run(ctx, step)
	peak := watched()
	r := s.callers.Between(warm, step)
	work := s.service.Work()
	row := Row{
		Run: run, Load: load, Offered: float64(r.Offered) / r.Seconds, Goodput: r.Goodput(),
		Share: r.Goodput() / s.service.Capacity(),
		P50:   r.P50.Seconds() * 1e3, P99: r.P99.Seconds() * 1e3,
		Refused: float64(s.refused()) / step.Seconds(),
		Wasted:  work.Wasted.Seconds() / max(1e-9, (work.Wasted+work.Useful).Seconds()),
		Heap:    peak,
		Late:    float64(s.late.Load()) / float64(max(1, s.callers.Arrived.Load())),
	}
	s.service.Close()
	return row, server.Stop()
}

// refused is how many calls the gate has refused so far.
func (s *stage) refused() uint64 {
	if s.gate == nil {
		return 0
	}
	var n uint64
	for _, reasons := range s.gate.Stats().Refused {
		for _, count := range reasons {
			n += count
		}
	}
	return n
}

// watch samples the stage until the function that it returns is called, which
// returns the largest heap that was seen, in MiB.
func (s *stage) watch(show *show) func() float64 {
	done := make(chan struct{})
	var peak float64
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(sampling / 5)
		defer tick.Stop()
		var last Sample
		var served int64
		var refused uint64
		began := show.clock(s.run)
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			peak = max(peak, heap())
			if i%5 != 4 {
				continue
			}
			last = s.sample()
			last.At = began()
			n, r := s.callers.Served.Load(), s.refused()
			last.Goodput = float64(n-served) / sampling.Seconds()
			last.Refused = float64(r-refused) / sampling.Seconds()
			served, refused = n, r
			show.addSample(last)
		}
	})
	return func() float64 {
		close(done)
		wg.Wait()
		return peak
	}
}

func (s *stage) sample() Sample {
	x := Sample{Run: s.run, Load: s.load}
	if s.gate == nil {
		w := s.service.Work()
		x.InFlight = w.Busy + w.Waiting
		return x
	}
	g := s.gate.Stats()
	x.Limit, x.InFlight, x.Queue = g.Limit, g.InFlight, g.Queue
	return x
}

func heap() float64 {
	m := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(m)
	return float64(m[0].Value.Uint64()) / (1 << 20)
}
