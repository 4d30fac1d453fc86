package overload

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A Load is an open loop of callers: they come when they come, whether or not
// those before them were served, which is what an overload is made of. A closed
// loop, whose callers wait for an answer before they ask again, slows down with
// the server and hides it.
type Load struct {
	// Rate is how many callers come a second, at random (Poisson).
	Rate float64
	// Patience is how long a caller waits from when it meant to call.
	Patience time.Duration
	// Call makes one call.
	Call func(context.Context) error
	// Seed makes the arrivals reproducible.
	Seed uint64

	// Progress: how many callers came and were served in time, so far. Safe to
	// read at any time.
	Arrived, Served atomic.Int64

	mu      sync.Mutex
	results []result
}

type result struct {
	meant   time.Duration // since the start
	lag     time.Duration // from there until the caller set off
	latency time.Duration
	code    codes.Code
}

// Run lets callers come for d, waits until the last has gone, and returns. It
// returns early when ctx ends. A Load runs once.
func (l *Load) Run(ctx context.Context, d time.Duration) {
	random := rand.New(rand.NewPCG(l.Seed, 7))
	start := time.Now()
	var callers sync.WaitGroup
	defer callers.Wait()
	for at := time.Duration(0); ; {
		at += time.Duration(random.ExpFloat64() / l.Rate * float64(time.Second))
		if at >= d || ctx.Err() != nil {
			return
		}
		if wait := time.Until(start.Add(at)); wait > 0 {
			time.Sleep(wait)
		}
		l.Arrived.Add(1)
		callers.Go(func() { l.call(ctx, start, at) })
	}
}

func (l *Load) call(ctx context.Context, start time.Time, at time.Duration) {
	meant := start.Add(at)
	lag := time.Since(meant)
	ctx, cancel := context.WithDeadline(ctx, meant.Add(l.Patience))
	defer cancel()
	err := l.Call(ctx)
	latency := time.Since(meant)
	code := status.Code(err)
	if err == nil && latency > l.Patience {
		code = codes.DeadlineExceeded
	}
	if code == codes.OK {
		l.Served.Add(1)
	}
	l.mu.Lock()
	l.results = append(l.results, result{at, lag, latency, code})
	l.mu.Unlock()
}

// A Result is what became of the callers of a part of a Load.
type Result struct {
	// Seconds is how long the part was.
	Seconds float64
	// Offered is how many callers came, Good how many were served in time, and
	// Refused how many were told UNAVAILABLE or RESOURCE_EXHAUSTED.
	Offered, Good, Refused int
	// Late is how many callers the machine held up before they called, for more
	// than a tenth of their patience.
	Late int
	// P50 and P99 are quantiles of the latency of those that were served, from
	// when they meant to call; zero if none was.
	P50, P99 time.Duration
}

// Goodput is how many callers a second were served in time.
func (r Result) Goodput() float64 { return float64(r.Good) / r.Seconds }

// Between returns what became of those who meant to call from a to b after the
// start. Call it after Run.
func (l *Load) Between(a, b time.Duration) Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := Result{Seconds: (b - a).Seconds()}
	var latencies []time.Duration
	for _, x := range l.results {
		if x.meant < a || x.meant >= b {
			continue
		}
		r.Offered++
		if x.lag > l.Patience/10 {
			r.Late++
		}
		switch x.code { //nolint:exhaustive // the others gave up
		case codes.OK:
			latencies = append(latencies, x.latency)
		case codes.Unavailable, codes.ResourceExhausted:
			r.Refused++
		}
	}
	r.Good = len(latencies)
	if r.Good > 0 {
		slices.Sort(latencies)
		r.P50, r.P99 = latencies[r.Good/2], latencies[r.Good*99/100]
	}
	return r
}
