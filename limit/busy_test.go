package limit_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/weir-go/weir/limit"
)

// TestAdaptiveIdleInABusyProcess gives a gate a few calls in a process whose processors other
// work keeps busy. The calls then take up to thirty times as long, and have done nothing to
// deserve it. Without a queue, each lowered limit is a refusal.
func TestAdaptiveIdleInABusyProcess(t *testing.T) {
	skipWithRaceDetector(t)
	for _, rate := range []float64{0.5, 5, 50} {
		for _, mean := range []float64{.001, .02} {
			for _, wait := range []float64{0.3, 3} { // for a processor, in means
				for _, fails := range []float64{0, 0.1} {
					t.Run(fmt.Sprintf("%g/s of %g s, waits of %g, %g fail", rate, mean, wait, fails), func(t *testing.T) {
						t.Parallel()
						for seed := range uint64(4) {
							busy := phases(seed)
							service := func(r *rand.Rand, at float64) float64 { return mean * (1 + 5*busy(at)*r.ExpFloat64()) }
							failing := func(r *rand.Rand, _ float64) bool { return r.Float64() < fails }
							s := sim{
								workers: steady(1), noQueue: true, until: 200, seed: seed + 1, algorithm: adaptive(t, limit.AdaptiveConfig{}),
								waits: func(r *rand.Rand, at float64) float64 { return wait * mean * (.1 + busy(at)) * r.ExpFloat64() },
								flows: []flow{
									{rate: steady(rate), service: service, sleeps: true, fails: failing},
									{burst: 3, service: service, sleeps: true, fails: failing},
								},
							}
							s.run()
							if lo, _, hi := s.limits(0, s.until); s.refused > 0 || lo < 32 {
								t.Errorf("seed %d: got %d of %d calls refused and limits from %d to %d, want none, and at least the initial 32",
									seed, s.refused, s.arrivals, lo, hi)
							}
						}
					})
				}
			}
		}
	}
}

// phases returns how busy a machine is, from 0 to 1. It changes each second.
func phases(seed uint64) func(at float64) float64 {
	r := rand.New(rand.NewPCG(seed, 3))
	busy := make([]float64, 1000)
	for i := range busy {
		busy[i] = max(0, 2*r.Float64()-1)
	}
	return func(at float64) float64 { return busy[int(at)%len(busy)] }
}

// TestAdaptiveHealsWithoutAQueue lets a light load follow on an overload of a gate without a
// queue. Calls that rarely meet then refuse each other at a low limit, and too seldom to be
// noticed as a share.
func TestAdaptiveHealsWithoutAQueue(t *testing.T) {
	skipWithRaceDetector(t)
	for _, workers := range []int{1, 2, 8} {
		for _, burst := range []int{2, 5} {
			lost, all := 0, 0
			for seed := range uint64(4) {
				s := sim{workers: steady(workers), noQueue: true, until: 120, seed: seed + 1, algorithm: adaptive(t, limit.AdaptiveConfig{})}
				s.flows = []flow{
					{service: exponential(.005), rate: func(at float64) float64 {
						if at < 10 {
							return 800 * float64(workers)
						}
						return 1e-9
					}},
					{burst: burst, service: constant(.005), sleeps: true},
					{rate: steady(50.0), service: constant(.005), sleeps: true},
				}
				s.run()
				for i := range s.flows[1:] {
					l, a := s.flows[1+i].lost(30, s.until) // 1,000 calls after the trouble
					lost, all = lost+l, all+a
				}
			}
			if lost > 0 || all == 0 {
				t.Errorf("%d workers, bursts of %d: got %d of %d calls refused, want none", workers, burst, lost, all)
			}
		}
	}
}
