package overload_test

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/internal/overload"
)

// saturate keeps n callers busy in a closed loop for d, and returns how many
// calls a second were served.
func saturate(t *testing.T, s *overload.Service, n int, d time.Duration) float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var wg sync.WaitGroup
	counts := make([]int, n)
	for i := range n {
		wg.Go(func() {
			for ctx.Err() == nil {
				s.Serve(context.Background())
				counts[i]++
			}
		})
	}
	wg.Wait()
	total := 0
	for _, c := range counts {
		total += c
	}
	return float64(total) / d.Seconds()
}

func within(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if off := math.Abs(got - want); off > tolerance*want || math.IsNaN(off) {
		t.Errorf("%s: got %.1f, want %.1f within %.0f %%", what, got, want, tolerance*100)
	}
}

// TestCapacity: as many callers as workers get all of it, twice as many lose
// what the waiting costs.
func TestCapacity(t *testing.T) {
	for name, shape := range map[string]overload.Shape{
		"exponential": overload.Exponential, "constant": overload.Constant, "bimodal": overload.Bimodal,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := overload.NewService(overload.Config{Workers: 8, Mean: 5 * time.Millisecond, Shape: shape, Slowdown: 0.01, Seed: 1})
				defer s.Close()
				within(t, "capacity", s.Capacity(), 1600, 0)
				within(t, "8 callers", saturate(t, s, 8, time.Minute), 1600, 0.02)
				within(t, "16 callers", saturate(t, s, 16, time.Minute), 1600/1.08, 0.03)
			})
		})
	}
}

func TestSetWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := overload.NewService(overload.Config{Workers: 8, Mean: 5 * time.Millisecond, Seed: 1})
		defer s.Close()
		s.SetWorkers(4)
		within(t, "4 workers", saturate(t, s, 16, time.Minute), 800, 0.02)
		s.SetWorkers(8)
		within(t, "8 workers again", saturate(t, s, 16, time.Minute), 1600, 0.02)
	})
}

// TestWaste: work for a caller that has gone is done all the same, and counted.
func TestWaste(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := overload.NewService(overload.Config{Workers: 1, Mean: time.Second, Shape: overload.Constant})
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		s.Serve(ctx) // ends in time
		s.Serve(ctx) // does not
		got := s.Work()
		if got.Useful != time.Second || got.Wasted != time.Second {
			t.Errorf("work: got %v useful and %v wasted, want 1s and 1s", got.Useful, got.Wasted)
		}
	})
}

func TestCloseLetsWaitersGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := overload.NewService(overload.Config{Workers: 1, Mean: time.Second, Shape: overload.Constant})
		begin := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { s.Serve(t.Context()) })
		}
		synctest.Wait()
		s.Close()
		wg.Wait()
		if got := time.Since(begin); got != time.Second {
			t.Errorf("10 calls of a service that was closed: ended after %v, want 1s, when the one that was served has", got)
		}
	})
}

// TestOpenLoop: a server that does not answer does not slow arrivals down.
func TestOpenLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &overload.Load{Rate: 1000, Patience: time.Second, Seed: 1}
		l.Call = func(ctx context.Context) error {
			<-ctx.Done()
			return status.FromContextError(ctx.Err()).Err()
		}
		begin := time.Now()
		l.Run(t.Context(), 10*time.Second)
		if took := time.Since(begin); took > 11*time.Second {
			t.Errorf("Run: took %v, want 10s and the patience of the last: the callers waited for one another", took)
		}
		got := l.Between(0, 10*time.Second)
		within(t, "callers", float64(got.Offered), 10000, 0.03) // 3 standard deviations of a Poisson count
		if got.Good != 0 || got.P50 != 0 {
			t.Errorf("served: got %d, p50 %v, want none", got.Good, got.P50)
		}
	})
}

// TestPoisson: the gaps between arrivals vary as much as their mean.
func TestPoisson(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var times []time.Time
		l := &overload.Load{Rate: 1000, Patience: time.Second, Seed: 2, Call: func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			times = append(times, time.Now())
			return nil
		}}
		l.Run(t.Context(), 20*time.Second)
		var sum, squares float64
		for i := 1; i < len(times); i++ {
			gap := times[i].Sub(times[i-1]).Seconds()
			sum += gap
			squares += gap * gap
		}
		n := float64(len(times) - 1)
		mean := sum / n
		within(t, "mean gap in microseconds", mean*1e6, 1000, 0.03)
		within(t, "coefficient of variation in per cent", 100*math.Sqrt(squares/n-mean*mean)/mean, 100, 0.05)
	})
}

func TestResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n int
		var mu sync.Mutex
		l := &overload.Load{Rate: 100, Patience: time.Second, Seed: 3, Call: func(context.Context) error {
			mu.Lock()
			n++
			odd := n%2 == 1
			mu.Unlock()
			if odd {
				return status.Error(codes.Unavailable, "no")
			}
			time.Sleep(20 * time.Millisecond)
			return nil
		}}
		l.Run(t.Context(), 10*time.Second)
		got := l.Between(0, 10*time.Second)
		if got.Good != n/2 || got.Refused != n-n/2 || got.Offered != n {
			t.Errorf("results: got %d served and %d refused of %d, want %d and %d of %d", got.Good, got.Refused, got.Offered, n/2, n-n/2, n)
		}
		if got.Late != 0 {
			t.Errorf("callers that set off late: got %d, want none in virtual time", got.Late)
		}
		if got.P50 != 20*time.Millisecond || got.P99 != 20*time.Millisecond {
			t.Errorf("latency: got p50 %v, p99 %v, want 20ms", got.P50, got.P99)
		}
		if served := l.Served.Load(); int(served) != got.Good {
			t.Errorf("Served: got %d, want %d", served, got.Good)
		}
	})
}

// TestRunEndsWithContext: an interrupted demonstration ends at once.
func TestRunEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("enough"))
		defer cancel()
		begin := time.Now()
		l := &overload.Load{Rate: 100, Patience: time.Second, Call: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		l.Run(ctx, time.Hour)
		if got := time.Since(begin); got > 1200*time.Millisecond {
			t.Errorf("Run after its context ended: returned after %v, want about 1s", got)
		}
	})
}

// TestServe is a round trip over a real socket.
func TestServe(t *testing.T) {
	s := overload.NewService(overload.Config{Workers: 1, Mean: time.Microsecond})
	defer s.Close()
	var served atomic.Int64
	server, err := overload.Serve(func(ctx context.Context) { served.Add(1); s.Serve(ctx) }, 2)
	if err != nil {
		t.Fatalf("Serve: got %v, want a server", err)
	}
	for i := range int64(4) {
		if err := server.Call(t.Context(), i); err != nil {
			t.Errorf("call %d: got %v, want no error", i, err)
		}
	}
	if got := served.Load(); got != 4 {
		t.Errorf("calls that were served: got %d, want 4", got)
	}
	if err := server.Stop(); err != nil {
		t.Errorf("Stop: got %v, want no error", err)
	}
}
