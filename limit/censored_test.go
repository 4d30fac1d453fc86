package limit_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/weir-go/weir/limit"
)

// A censored is a server whose handlers end at their callers' deadlines, so that no
// latency is longer than a deadline.
type censored struct {
	workers  int
	sharing  bool    // the workers share
	deadline float64 // times the service time
	load     float64
	goesOn   bool // handlers go on past the deadline
}

// run returns the successes of the last two thirds of a run, as a share of capacity.
func (c censored) run(a limit.Algorithm, seed uint64) float64 {
	const service = .05
	capacity := float64(c.workers) / service
	s := sim{
		workers: steady(c.workers), sharing: c.sharing, slowdown: .02, gap: 100e-6, until: 45, seed: seed, algorithm: a,
		flows: []flow{{rate: steady(c.load * capacity), service: exponential(service), deadline: c.deadline * service, heeds: !c.goesOn}},
	}
	if c.sharing {
		s.slowdown = .05
	}
	if c.workers > 8 {
		s.until = 15
	}
	s.run()
	return s.goodput(s.until/3, s.until) / capacity
}

// best returns what the best fixed limit gives.
func (c censored) best(t *testing.T) (goodput float64) {
	t.Helper()
	for _, n := range []int{c.workers, c.workers + 1, c.workers + int(math.Ceil(math.Sqrt(float64(c.workers)))) + 1} {
		f, err := limit.NewFixed(n)
		if err != nil {
			t.Fatal(err)
		}
		goodput = max(goodput, c.run(f, 1))
	}
	return goodput
}

// TestAdaptiveCensored overloads servers whose handlers end at their callers' deadline.
// Latencies show no queue there, and a limit that is too high lets no call succeed.
func TestAdaptiveCensored(t *testing.T) {
	skipWithRaceDetector(t)
	for _, workers := range []int{1, 2, 8, 64} {
		t.Run(fmt.Sprintf("%d workers", workers), func(t *testing.T) {
			t.Parallel()
			sum, n, worst, at := 0.0, 0.0, math.Inf(1), censored{}
			for _, sharing := range []bool{false, true} {
				for _, deadline := range []float64{1.5, 3, 5, 10, 20} {
					for _, load := range []float64{2, 4, 8} {
						if workers > 8 && load > 4 {
							continue
						}
						c := censored{workers: workers, sharing: sharing, deadline: deadline, load: load}
						got := c.run(adaptive(t, limit.AdaptiveConfig{}), 1) / c.best(t)
						sum, n = sum+got, n+1
						if got < worst {
							worst, at = got, c
						}
						t.Logf("%+v: %.3f", c, got)
					}
				}
			}
			mean, least := 0.9, 0.6
			if workers > 8 {
				mean, least = 0.8, 0.35
			}
			msg := fmt.Sprintf("goodput, of that of the best fixed limit: got a mean of %.3f, %.3f at worst (%+v)", sum/n, worst, at)
			t.Log(msg)
			if sum/n < mean || worst < least {
				t.Errorf("%s, want %v and %v", msg, mean, least)
			}
		})
	}
}

// A scan leaves out a limit that in flight does not come down to, since handlers go on past the
// deadline. Otherwise the backlog would count as the work of ever lower limits.
func TestAdaptiveScanOfABacklog(t *testing.T) {
	skipWithRaceDetector(t)
	c := censored{workers: 1, sharing: true, deadline: 10, load: 8, goesOn: true}
	got := c.run(adaptive(t, limit.AdaptiveConfig{}), 1) / c.best(t)
	t.Logf("goodput, of that of the best fixed limit: %.3f", got)
	if got < 0.2 {
		t.Errorf("goodput, of that of the best fixed limit: got %.3f, want at least 0.2", got)
	}
}
