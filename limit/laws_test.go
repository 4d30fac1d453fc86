package limit_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-go/weir/limit"
)

// window is one in which demand reaches the limit and calls take latency.
func window(a limit.Algorithm, latency time.Duration) limit.Window {
	n := a.Limit()
	return limit.Window{
		Duration: 100 * time.Millisecond, Limit: n, InFlight: float64(n), MaxInFlight: n,
		Arrived: 100, Pressed: 100, Succeeded: 100, MeanLatency: latency, MinLatency: latency,
	}
}

// trace feeds an algorithm n windows and returns the limits.
func trace(a limit.Algorithm, n int, next func(i int) limit.Window) []int {
	var got []int
	for i := range n {
		got = append(got, a.Update(next(i)))
	}
	return got
}

func check(t *testing.T, got, want []int) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("limits: got %v, want %v", got, want)
	}
}

func must[A any](t *testing.T) func(A, error) A {
	t.Helper()
	return func(a A, err error) A {
		t.Helper()
		if err != nil {
			t.Fatalf("constructor: got %v, want no error", err)
		}
		return a
	}
}

func TestFixed(t *testing.T) {
	f := must[*limit.Fixed](t)(limit.NewFixed(7))
	check(t, trace(f, 3, func(int) limit.Window { return limit.Window{Overloaded: 9, Succeeded: 1} }), []int{7, 7, 7})
}

func TestAIMD(t *testing.T) {
	a := must[*limit.AIMD](t)(limit.NewAIMD(limit.AIMDConfig{Initial: 10, Max: 12, Timeout: time.Second}))
	got := trace(a, 8, func(i int) limit.Window {
		w := window(a, time.Millisecond)
		switch i {
		case 3:
			w.Overloaded = 1 // times 0.9
		case 5:
			w.MeanLatency = 2 * time.Second // too slow: times 0.9
		case 6:
			w.Pressed, w.MaxInFlight = 0, 3 // nothing pushes: stays
		}
		return w
	})
	check(t, got, []int{11, 12, 12, 10, 11, 10, 10, 11})
}

func TestVegas(t *testing.T) {
	v := must[*limit.Vegas](t)(limit.NewVegas(limit.VegasConfig{Initial: 10, ProbeWindows: 8}))
	latencies := []int{10, 10, 12, 20, 40, 40, 20, 10, 40}
	got := trace(v, len(latencies), func(i int) limit.Window {
		return window(v, time.Duration(latencies[i])*time.Millisecond)
	})
	// Two windows without a queue, one with a little, a long one, and then the
	// probe: the ninth window is the new base, 40 ms, and the limit grows.
	check(t, got, []int{16, 23, 24, 23, 21, 20, 19, 26, 35})
}

func TestVegasUnpressed(t *testing.T) {
	v := must[*limit.Vegas](t)(limit.NewVegas(limit.VegasConfig{Initial: 10}))
	got := trace(v, 3, func(int) limit.Window {
		w := window(v, time.Millisecond)
		w.Pressed, w.MaxInFlight = 0, 2
		return w
	})
	check(t, got, []int{10, 10, 10})
}

func TestGradient(t *testing.T) {
	g := must[*limit.Gradient](t)(limit.NewGradient(limit.GradientConfig{Initial: 20}))
	latencies := []int{10, 10, 10, 40, 40, 40, 10}
	got := trace(g, len(latencies), func(i int) limit.Window {
		return window(g, time.Duration(latencies[i])*time.Millisecond)
	})
	check(t, got, []int{20, 21, 22, 20, 18, 16, 17})
}

// TestGradientModestOverload: with latency a quarter above the tolerance the
// ratio is 0.8. A queue allowance added to that outweighs it: the limit would
// grow to 25 = (sqrt(L) / (1 - 0.8))^2 ... and stay, instead of shrinking.
func TestGradientModestOverload(t *testing.T) {
	g := must[*limit.Gradient](t)(limit.NewGradient(limit.GradientConfig{Initial: 20, Tolerance: 1, LongWindows: 1 << 30}))
	g.Update(window(g, 8*time.Millisecond))
	for range 200 {
		g.Update(window(g, 10*time.Millisecond))
	}
	if got := g.Limit(); got != 1 {
		t.Errorf("limit after a lasting ratio of 0.8: got %d, want 1", got)
	}
}

// TestEmptyWindowChangesNothing holds for every law.
func TestEmptyWindowChangesNothing(t *testing.T) {
	for _, a := range []limit.Algorithm{
		must[*limit.Fixed](t)(limit.NewFixed(20)),
		must[*limit.AIMD](t)(limit.NewAIMD(limit.AIMDConfig{})),
		must[*limit.Vegas](t)(limit.NewVegas(limit.VegasConfig{})),
		must[*limit.Gradient](t)(limit.NewGradient(limit.GradientConfig{})),
		must[*limit.Adaptive](t)(limit.NewAdaptive(limit.AdaptiveConfig{Initial: 20})),
	} {
		for range 100 {
			a.Update(limit.Window{})
		}
		if got := a.Limit(); got != 20 {
			t.Errorf("%T after empty windows: got a limit of %d, want 20", a, got)
		}
	}
}

// TestBadConfig: every wrong field is named, all at once, with got and want.
func TestBadConfig(t *testing.T) {
	nan := math.NaN()
	tests := map[string]struct {
		make func() (limit.Algorithm, error)
		want []string
	}{
		"fixed 0":      {func() (limit.Algorithm, error) { return limit.NewFixed(0) }, []string{"got 0, want 1 to"}},
		"fixed -1":     {func() (limit.Algorithm, error) { return limit.NewFixed(-1) }, []string{"got -1"}},
		"fixed MaxInt": {func() (limit.Algorithm, error) { return limit.NewFixed(math.MaxInt) }, []string{"got 9223372036854775807"}},
		"aimd": {func() (limit.Algorithm, error) {
			return limit.NewAIMD(limit.AIMDConfig{Initial: -3, Min: -2, Max: math.MaxInt, Timeout: -1, Backoff: nan})
		}, []string{"Min: got -2", "Max: got 9223372036854775807", "Initial: got -3", "Timeout: got -1ns", "Backoff: got NaN"}},
		"vegas": {func() (limit.Algorithm, error) {
			return limit.NewVegas(limit.VegasConfig{Alpha: nan, Beta: math.Inf(1), ProbeWindows: -1})
		}, []string{"Alpha: got NaN", "Beta: got +Inf", "ProbeWindows: got -1"}},
		"vegas order": {func() (limit.Algorithm, error) {
			return limit.NewVegas(limit.VegasConfig{Alpha: 6, Beta: 3})
		}, []string{"Beta: got 3, want at least Alpha (6)"}},
		"gradient": {func() (limit.Algorithm, error) {
			return limit.NewGradient(limit.GradientConfig{Tolerance: .5, Smoothing: 2, LongWindows: -1})
		}, []string{"Tolerance: got 0.5", "Smoothing: got 2", "LongWindows: got -1"}},
		"adaptive": {func() (limit.Algorithm, error) {
			return limit.NewAdaptive(limit.AdaptiveConfig{Initial: 5, Min: 10, Max: 9})
		}, []string{"Max: got 9, want Min (10)", "Initial: got 5"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := tt.make()
			if !errors.Is(err, limit.ErrConfig) {
				t.Fatalf("error: got %v, want one that wraps ErrConfig", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error: got %q, want it to contain %q", err, want)
				}
			}
		})
	}
}

// Every algorithm that changes its limit tells the smallest one.
func TestAlgorithmsTellTheirSmallestLimit(t *testing.T) {
	for name, made := range map[string]func() (limit.Algorithm, error){
		"adaptive": func() (limit.Algorithm, error) { return limit.NewAdaptive(limit.AdaptiveConfig{Min: 3}) },
		"aimd":     func() (limit.Algorithm, error) { return limit.NewAIMD(limit.AIMDConfig{Min: 3}) },
		"vegas":    func() (limit.Algorithm, error) { return limit.NewVegas(limit.VegasConfig{Min: 3}) },
		"gradient": func() (limit.Algorithm, error) { return limit.NewGradient(limit.GradientConfig{Min: 3}) },
	} {
		a, err := made()
		if err != nil {
			t.Fatal(err)
		}
		floored, ok := a.(limit.Floored)
		if !ok || floored.Min() != 3 {
			t.Errorf("%s: got no smallest limit of 3, want one (Floored: %v)", name, ok)
		}
		for range 1000 {
			a.Update(limit.Window{Duration: time.Second, Limit: a.Limit(), InFlight: float64(a.Limit()), MaxInFlight: a.Limit(), Overloaded: 100})
		}
		if got := a.Limit(); got < 3 {
			t.Errorf("%s after many overloads: got a limit of %d, want at least 3", name, got)
		}
	}
}
