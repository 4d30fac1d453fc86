package limit_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/weir-go/weir/limit"
)

// failures lets a share of the calls of a flow fail, whatever the limit. It counts the ones
// that arrived from a time on.
func failures(f *flow, share, from float64) (failed *int) {
	failed = new(int)
	f.fails = func(r *rand.Rand, at float64) bool {
		fails := r.Float64() < share
		if fails && at >= from {
			*failed++
		}
		return fails
	}
	return failed
}

// TestAdaptiveFailuresAreNoCongestion lets calls fail at random, whatever the limit, after
// several kinds of trouble. Nothing is scarce, so none is refused.
func TestAdaptiveFailuresAreNoCongestion(t *testing.T) {
	skipWithRaceDetector(t)
	const trouble, begin, counted, end = 5.0, 6.0, 8.5, 14.0
	always := func(*rand.Rand, float64) bool { return true }
	half := func(r *rand.Rand, _ float64) bool { return r.IntN(2) == 0 }
	for name, history := range map[string][]flow{
		"nothing":       nil,
		"overload":      {{rate: until(trouble, 800), service: exponential(.02), deadline: .3}},
		"half fails":    {{rate: until(trouble, 500), service: constant(.2), sleeps: true, fails: half}},
		"slow failures": {{rate: until(trouble, 500), service: constant(.5), sleeps: true, fails: always}},
	} {
		for _, share := range []float64{.1, .3, .6} {
			t.Run(fmt.Sprintf("%s, then %g fail", name, share), func(t *testing.T) {
				t.Parallel()
				lost, all := 0, 0
				for seed := range uint64(6) {
					s := sim{workers: steady(8), gap: 100e-6, until: end, seed: seed + 1, algorithm: adaptive(t, limit.AdaptiveConfig{})}
					f := flow{rate: after(begin, 1200), service: exponential(.02), sleeps: true}
					failed := failures(&f, share, counted)
					s.flows = append(append(s.flows, history...), f)
					s.run()
					l, a := s.flows[len(s.flows)-1].lost(counted, end)
					lost, all = lost+max(0, l-*failed), all+a
				}
				most := 0.001
				if name == "overload" {
					most = .03 // in one of six seeds it takes until twelve seconds
				}
				if float64(lost) > most*float64(all) || all == 0 {
					t.Errorf("calls that did not fail by themselves: got %d of %d lost, want at most %g %%", lost, all, 100*most)
				}
			})
		}
	}
}

// TestAdaptiveFailuresUnderLoad lets a share of the calls fail quickly while eight workers get
// more than they can serve. The others get what the best fixed limit gives.
func TestAdaptiveFailuresUnderLoad(t *testing.T) {
	skipWithRaceDetector(t)
	for _, share := range []float64{.3, .6} {
		for _, load := range []float64{2, 4} {
			goodput := func(a limit.Algorithm, seed uint64) float64 {
				s := sim{workers: steady(8), gap: 100e-6, until: 12, seed: seed, algorithm: a}
				f := flow{rate: steady(load * 1600), service: exponential(.005), deadline: .1}
				failures(&f, share, 0)
				s.flows = []flow{f}
				s.run()
				return s.goodput(4, s.until)
			}
			got, want := 0.0, 0.0
			for seed := range uint64(2) {
				f, err := limit.NewFixed(10)
				if err != nil {
					t.Fatal(err)
				}
				got += goodput(adaptive(t, limit.AdaptiveConfig{}), seed+1)
				want += goodput(f, seed+1)
			}
			t.Logf("%g fail at %gx: %.3f of a fixed limit's goodput", share, load, got/want)
			if got < .97*want {
				t.Errorf("goodput with %g failing at %gx: got %.3f of that of a fixed limit, want at least 0.97", share, load, got/want)
			}
		}
	}
}
