package limit_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-go/weir/limit"
)

func adaptive(t *testing.T, c limit.AdaptiveConfig) *limit.Adaptive {
	t.Helper()
	a, err := limit.NewAdaptive(c)
	if err != nil {
		t.Fatalf("NewAdaptive(%+v): got %v, want no error", c, err)
	}
	return a
}

// standard is the server of the project's targets: 8 workers, 5 ms, callers
// that give up after 100 ms, and a hand-over that takes a tenth of a
// millisecond.
func standard() sim {
	return sim{
		workers: steady(8), service: exponential(.005), slowdown: .01,
		gap: 100e-6, deadline: .1, until: 12,
	}
}

func with(change func(*sim)) sim {
	s := standard()
	change(&s)
	return s
}

// mix is two methods that share a limit: 1 ms and 100 ms.
func mix(slow float64) func(*rand.Rand, float64) float64 {
	return func(r *rand.Rand, _ float64) float64 {
		if r.Float64() < slow {
			return .1
		}
		return .001
	}
}

// TestAdaptiveGoodput runs the defaults against every kind of server, from a
// cold start, at one to eight times its capacity.
func TestAdaptiveGoodput(t *testing.T) {
	skipWithRaceDetector(t)
	worlds := []struct {
		name     string
		sim      sim
		capacity float64    // calls a second
		want     [4]float64 // least share of it, at 1x, 2x, 4x and 8x
		p50, p99 float64    // most milliseconds at 4x and 8x
	}{
		{"exponential", standard(), 1600, [4]float64{.95, .97, .97, .97}, 10, 30},
		{"constant", with(func(s *sim) { s.service = constant(.005) }), 1600, [4]float64{.95, .97, .97, .97}, 10, 30},
		{"bimodal", with(func(s *sim) { s.service = bimodal(.005) }), 1600, [4]float64{.95, .96, .96, .96}, 10, 40},
		{"one worker", with(func(s *sim) { s.workers = steady(1); s.deadline = 1 }), 200, [4]float64{.92, .95, .96, .96}, 35, 90},
		{"two workers", with(func(s *sim) { s.workers = steady(2) }), 400, [4]float64{.90, .95, .96, .95}, 28, 60},
		{"32 workers", with(func(s *sim) { s.workers = steady(32) }), 6400, [4]float64{.94, .96, .96, .96}, 10, 30},
		{"256 workers", with(func(s *sim) { s.workers = steady(256); s.until = 3 }), 51200, [4]float64{.91, .91, .91, .91}, 10, 30},
		{"256 slow workers", with(func(s *sim) {
			s.workers, s.service, s.deadline, s.until = steady(256), exponential(.16), 2, 36
		}), 1600, [4]float64{.86, .89, .89, .79}, 320, 1100},
		{"two cores, shared", with(func(s *sim) { s.workers, s.sharing, s.slowdown, s.service = steady(2), true, 0, exponential(.002) }), 1000, [4]float64{.94, .96, .96, .96}, 20, 60},
		{"1 ms and 100 ms", with(func(s *sim) { s.service, s.deadline, s.until = mix(.5), 1, 24 }), 8 / .0505, [4]float64{.92, .94, .94, .93}, 120, 260},
		{"half fail fast", with(func(s *sim) {
			s.failing, s.failTime = func(r *rand.Rand, _ float64) bool { return r.IntN(2) == 0 }, .0001
		}), 1600, [4]float64{.47, .90, .92, .88}, 10, 32},
		{"full pool fails fast", with(func(s *sim) { s.pool = 8 }), 1600, [4]float64{.72, .85, .90, .90}, 10, 30},
	}
	for _, w := range worlds {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			for i, load := range []float64{1, 2, 4, 8} {
				goodput, p50, p99, limits := average(t, w.sim, load*w.capacity)
				goodput /= w.capacity
				t.Attr(fmt.Sprintf("%gx", load), fmt.Sprintf("%.3f", goodput))
				t.Logf("%gx: goodput %.3f, p50 %.1f ms, p99 %.1f ms, limits %s", load, goodput, p50, p99, limits)
				if goodput < w.want[i] {
					t.Errorf("goodput at %gx: got %.3f of capacity, want at least %.3f", load, goodput, w.want[i])
				}
				if load >= 4 && (p50 > w.p50 || p99 > w.p99) {
					t.Errorf("latency at %gx: got p50 %.1f ms, p99 %.1f ms, want at most %.0f and %.0f", load, p50, p99, w.p50, w.p99)
				}
			}
		})
	}
}

// average runs a world with a few seeds and returns the means of what it shows
// after the first third.
func average(t *testing.T, world sim, rate float64) (goodput, p50, p99 float64, limits string) {
	t.Helper()
	seeds := 6.0
	switch {
	case rate > 40000:
		seeds = 1 // of which one second says as much as an hour of the others
	case rate > 13000:
		seeds = 2
	}
	lo, hi := math.MaxInt, 0
	for seed := range uint64(seeds) {
		s := world
		s.seed, s.rate, s.algorithm = seed+1, steady(rate), adaptive(t, limit.AdaptiveConfig{})
		s.run()
		from := s.until / 3
		goodput += s.goodput(from, s.until) / seeds
		p50 += s.latency(.5, from, s.until) * 1e3 / seeds
		p99 += s.latency(.99, from, s.until) * 1e3 / seeds
		l, _, h := s.limits(from, s.until)
		lo, hi = min(lo, l), max(hi, h)
	}
	return goodput, p50, p99, fmt.Sprintf("%d to %d", lo, hi)
}

// TestSimulatedServerCollapses shows that the simulation can tell a good limit
// from none: a test that passes without a limit would prove nothing.
func TestSimulatedServerCollapses(t *testing.T) {
	s := standard()
	none, err := limit.NewFixed(limit.Max)
	if err != nil {
		t.Fatal(err)
	}
	s.algorithm, s.seed, s.rate = none, 1, steady(3200.0)
	s.run()
	if got := s.goodput(4, 12) / 1600; got > 0.05 {
		t.Errorf("goodput at 2x without a limit: got %.3f of capacity, want a collapse, at most 0.05", got)
	}
}

// TestAdaptiveStep halves the capacity and gives it back, once by taking away
// workers, once by making calls slower: the first asks for half the limit, the
// second for the same.
func TestAdaptiveStep(t *testing.T) {
	skipWithRaceDetector(t)
	half := func(at float64) bool { return at > 4 && at < 8 }
	kinds := map[string]func(*sim){
		"workers": func(s *sim) {
			s.workers = func(at float64) int {
				if half(at) {
					return 4
				}
				return 8
			}
		},
		"service time": func(s *sim) {
			s.service = func(r *rand.Rand, at float64) float64 {
				if half(at) {
					return r.ExpFloat64() * .01
				}
				return r.ExpFloat64() * .005
			}
		},
	}
	for name, change := range kinds {
		t.Run(name, func(t *testing.T) {
			low := 0
			for seed := uint64(1); seed <= 20; seed++ {
				s := with(change)
				s.seed, s.rate, s.algorithm = seed, steady(3200.0), adaptive(t, limit.AdaptiveConfig{})
				s.run()
				down, up := s.goodput(5.5, 8)/800, s.goodput(9.5, 12)/1600
				if down < .9 || up < .9 {
					low++
				}
				if down < .85 || up < .85 || low > 1 {
					t.Errorf("seed %d, from 1.5 s after each step: got %.3f and %.3f of capacity, want 0.9 (one of 20 may have 0.85)", seed, down, up)
				}
			}
		})
	}
}

// TestAdaptiveFallsFromIdle makes calls ten times slower while the limit was never reached: then
// it suddenly is, at twice the capacity. What was in flight before says nothing about now, and a
// dip below it, or below the knee of before, would starve the server of samples for seconds. (A
// limit that was at one or two when it happened still does: the bound is on the mean of 40.)
func TestAdaptiveFallsFromIdle(t *testing.T) {
	const seeds, want = 40, 0.9
	mean := 0.0
	for seed := uint64(1); seed <= seeds; seed++ {
		s := standard()
		s.service = func(r *rand.Rand, at float64) float64 {
			if at < 4 {
				return r.ExpFloat64() * .005
			}
			return r.ExpFloat64() * .05
		}
		s.deadline, s.until, s.seed, s.algorithm = 1, 9, seed, adaptive(t, limit.AdaptiveConfig{})
		s.rate = steady(320.0)
		s.run()
		mean += s.goodput(5, 9) / 160 / seeds
	}
	if mean < want {
		t.Errorf("from 1 s after, mean of %d seeds: got %.3f of capacity, want at least %v", seeds, mean, want)
	}
	t.Logf("mean %.3f", mean)
}

// TestAdaptivePartialLoad asks for seven tenths of what the server can do: a limit below the knee
// would have calls wait for permits while workers are free.
func TestAdaptivePartialLoad(t *testing.T) {
	const seeds, most, knee = 40, 4, 8
	low := 0
	for seed := uint64(1); seed <= seeds; seed++ {
		s := standard()
		s.until, s.seed, s.rate, s.algorithm = 60, seed, steady(0.7*1600), adaptive(t, limit.AdaptiveConfig{})
		s.run()
		if _, mean, _ := s.limits(50, 60); mean < knee {
			low++
		}
	}
	if low > most {
		t.Errorf("mean limits below the knee: got %d of %d, want at most %d", low, seeds, most)
	}
}

// TestAdaptiveMixShift makes nine calls of ten slow where one in ten was: it
// looks like an overload and is none.
func TestAdaptiveMixShift(t *testing.T) {
	for seed := uint64(1); seed <= 6; seed++ {
		s := standard()
		few, many := 8/(.1*.1+.9*.001), 8/(.9*.1+.1*.001)
		s.service = func(r *rand.Rand, at float64) float64 {
			if at < 10 {
				return mix(.1)(r, at)
			}
			return mix(.9)(r, at)
		}
		s.deadline, s.until, s.seed, s.algorithm = 1, 30, seed, adaptive(t, limit.AdaptiveConfig{})
		s.rate = steady(4 * few)
		s.run()
		if got := s.goodput(16, 30) / many; got < .8 {
			t.Errorf("seed %d: goodput after the mix shifted: got %.3f of capacity, want at least 0.8", seed, got)
		}
	}
}

// TestAdaptiveColdStart looks at the first seconds under eight times the load.
func TestAdaptiveColdStart(t *testing.T) {
	for seed := uint64(1); seed <= 10; seed++ {
		s := standard()
		s.until, s.seed, s.rate, s.algorithm = 3, seed, steady(12800.0), adaptive(t, limit.AdaptiveConfig{})
		s.run()
		if got := s.goodput(1, 3) / 1600; got < .85 {
			t.Errorf("seed %d: goodput from the second second: got %.3f of capacity, want at least 0.85", seed, got)
		}
	}
}

// TestAdaptiveColdStartOfSlowCalls looks at the first four seconds of a server with calls of 40 ms,
// at twice the load. A first probe below the knee must not go on to half of its limit.
func TestAdaptiveColdStartOfSlowCalls(t *testing.T) {
	const seeds, capacity, want = 40, 200.0, .96
	mean := 0.0
	for seed := uint64(1); seed <= seeds; seed++ {
		s := with(func(s *sim) { s.service, s.slowdown, s.deadline, s.until = exponential(.04), 0, .75, 4 })
		s.seed, s.rate, s.algorithm = seed, steady(2*capacity), adaptive(t, limit.AdaptiveConfig{})
		s.run()
		mean += s.goodput(.5, 4) / capacity / seeds
	}
	if mean < want {
		t.Errorf("goodput of the first four seconds, mean of %d seeds: got %.3f of capacity, want at least %v", seeds, mean, want)
	}
}

// TestAdaptiveIdleThenBurst keeps the limit that it has learned through an hour
// with hardly a call.
func TestAdaptiveIdleThenBurst(t *testing.T) {
	s := with(func(s *sim) { s.workers = steady(64) })
	s.rate = func(at float64) float64 {
		if at > 10 && at < 3610 {
			return 1
		}
		return 2 * 12800
	}
	s.until, s.seed, s.algorithm = 3613, 1, adaptive(t, limit.AdaptiveConfig{})
	s.run()
	_, before, _ := s.limits(8, 10)
	_, idle, _ := s.limits(3600, 3610)
	if idle < before*.8 || idle > before*1.2 {
		t.Errorf("limit after an idle hour: got %.1f, want what it was, %.1f", idle, before)
	}
	if got := s.goodput(3610.5, 3613) / 12800; got < .9 {
		t.Errorf("goodput of the burst: got %.3f of capacity, want at least 0.9", got)
	}
}

// TestAdaptiveDoesNotDrift: a limit that nothing pushes against stays.
func TestAdaptiveDoesNotDrift(t *testing.T) {
	s := standard()
	s.until, s.seed, s.rate, s.algorithm = 60, 1, steady(800.0), adaptive(t, limit.AdaptiveConfig{})
	s.run()
	// It looks once, below what is in flight, whether calls queue where nobody sees it.
	if lo, _, hi := s.limits(1, 60); lo < 32 || hi > 32 {
		t.Errorf("limit at half load after the first second: got %d to %d, want the initial 32", lo, hi)
	}
	if got := s.goodput(10, 60) / 800; got < .99 {
		t.Errorf("goodput at half load: got %.3f of what was asked, want at least 0.99", got)
	}
}

// TestAdaptiveTrace pins the law down: the limits, decision by decision, in the
// first second against a server without randomness in its service time.
func TestAdaptiveTrace(t *testing.T) {
	s := standard()
	s.service, s.until, s.seed, s.rate = constant(.005), 1, 1, steady(6400.0)
	s.algorithm = adaptive(t, limit.AdaptiveConfig{})
	s.run()
	var got []int
	for _, x := range s.trace {
		if len(got) == 0 || got[len(got)-1] != x.limit {
			got = append(got, x.limit)
		}
	}
	want := []int{32, 18, 9, 5, 18, 30, 18, 9, 5, 10, 7, 10, 9, 10, 7, 10, 9}
	if !slices.Equal(got, want) {
		t.Errorf("limits: got %v, want %v", got, want)
	}
}

func latencies(t *rapid.T, what string) limit.Latencies {
	return limit.Latencies{
		Calls:         rapid.IntRange(0, 1000).Draw(t, what),
		Mean:          time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, what+" mean")),
		Deviation:     time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, what+" deviation")),
		StartInFlight: rapid.Float64Range(0, 1e6).Draw(t, what+" among"),
	}
}

// TestAdaptiveAnyWindows feeds it windows that no server would produce.
func TestAdaptiveAnyWindows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lo := rapid.IntRange(1, 50).Draw(t, "min")
		hi := rapid.IntRange(lo, 5000).Draw(t, "max")
		a, err := limit.NewAdaptive(limit.AdaptiveConfig{Min: lo, Max: hi})
		if err != nil {
			t.Fatal(err)
		}
		count := rapid.IntRange(0, 1000)
		length := rapid.Int64Range(0, int64(time.Hour))
		for range rapid.IntRange(1, 200).Draw(t, "windows") {
			got := a.Update(limit.Window{
				Duration:         time.Duration(length.Draw(t, "duration")),
				Limit:            a.Limit(),
				InFlight:         rapid.Float64Range(0, 1e6).Draw(t, "in flight"),
				MaxInFlight:      count.Draw(t, "most in flight"),
				Arrived:          count.Draw(t, "arrived"),
				Pressed:          count.Draw(t, "pressed"),
				Succeeded:        count.Draw(t, "succeeded"),
				Overloaded:       count.Draw(t, "overloaded"),
				Ignored:          count.Draw(t, "ignored"),
				MeanLatency:      time.Duration(length.Draw(t, "mean")),
				LatencyDeviation: time.Duration(length.Draw(t, "deviation")),
				Bounded:          count.Draw(t, "bounded"),
				Ran:              latencies(t, "ran"),
				Low:              latencies(t, "low"),
				SchedulerDelay:   time.Duration(length.Draw(t, "scheduler")),
			})
			if got < lo || got > hi {
				t.Fatalf("limit: got %d, want %d to %d", got, lo, hi)
			}
		}
	})
}
