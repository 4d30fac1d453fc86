package limit_test

import (
	"testing"

	"github.com/weir-go/weir/limit"
)

// until returns a rate that ends at a time.
func until(end, rate float64) func(float64) float64 {
	return func(at float64) float64 {
		if at < end {
			return rate
		}
		return 1e-9
	}
}

// after returns a rate that begins at a time.
func after(begin, rate float64) func(float64) float64 {
	return func(at float64) float64 {
		if at >= begin {
			return rate
		}
		return 1e-9
	}
}

// TestAdaptiveLeavesTheLowestLimit lets a limit fall to 1 because quick calls follow on slow
// ones. No probe is possible there. It grows all the same.
func TestAdaptiveLeavesTheLowestLimit(t *testing.T) {
	skipWithRaceDetector(t)
	for seed := range uint64(20) {
		s := sim{workers: steady(8), gap: 100e-6, until: 10, seed: seed + 1, algorithm: adaptive(t, limit.AdaptiveConfig{})}
		s.flows = []flow{
			{rate: until(5, 800), service: exponential(.02), deadline: .3},
			{rate: after(6, 5000), service: constant(.001), sleeps: true},
		}
		s.run()
		if lost, all := s.flows[1].lost(8, s.until); lost > 0 || all == 0 {
			_, mean, _ := s.limits(8, s.until)
			t.Errorf("seed %d: got %d of %d calls lost at a mean limit of %.1f, want none", seed+1, lost, all, mean)
		}
	}
}
