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

// A Load is an open loop of callers. They come at their rate, whether or not earlier calls
// were served, and so can overload a server. In a closed loop callers wait for an answer
// before they call again. It slows down with the server and hides an overload.
type Load struct {
	// Rate is the mean number of callers a second. They come at random (Poisson).
	Rate float64
	// Patience is how long a caller waits, from the time at which it meant to call.
	Patience time.Duration
	// Call makes one call.
	Call func(context.Context) error
	// Seed makes the arrivals reproducible.
	Seed uint64

	// Arrived and Served count the callers so far, and the ones that were served in time.
	// They are safe to read at any time.
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

// Run lets callers come for d and waits for the last one. It returns early when ctx ends. A
// Load runs once.
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

// A Result sums up the calls of a part of a Load.
type Result struct {
	// Seconds is the length of the part.
	Seconds float64
	// Offered is the number of callers, Good the number served in time, and Refused the
	// number that got UNAVAILABLE or RESOURCE_EXHAUSTED.
	Offered, Good, Refused int
	// Late is the number of callers that the machine delayed before their call, by more
	// than a tenth of their patience.
	Late int
	// P50 and P99 are quantiles of the latency of Good calls, from the time at which
	// their callers meant to call. They are zero without any.
	P50, P99 time.Duration
}

// Goodput returns the number of callers a second that were served in time.
func (r Result) Goodput() float64 { return float64(r.Good) / r.Seconds }

// Between returns the result of the callers that meant to call from a to b after the start.
// Call it after Run.
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
		switch x.code { //nolint:exhaustive // all other callers gave up
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
