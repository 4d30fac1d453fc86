package limit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/weir-go/weir/limit"
)

// Every change of the limit by Adaptive has a reason and plausible measurements, over a cold
// start, a steady overload and a failing server.
func TestAdaptiveExplainsEveryChange(t *testing.T) {
	a, err := limit.NewAdaptive(limit.AdaptiveConfig{})
	if err != nil {
		t.Fatal(err)
	}
	const capacity, service = 8.0, 10 * time.Millisecond
	reasons := map[string]int{}
	before := a.Limit()
	for n := range 4000 {
		overloaded := 0
		if n > 3000 { // calls time out
			overloaded = 40
		}
		inFlight := float64(before)
		latency := time.Duration(max(1, inFlight/capacity) * float64(service))
		w := limit.Window{
			Duration: 50 * time.Millisecond, Limit: before, InFlight: inFlight, MaxInFlight: before, Arrived: 400, Pressed: 390,
			Succeeded: 40 - overloaded, Overloaded: overloaded, MeanLatency: latency, MinLatency: latency, LatencyDeviation: latency / 10,
			Ran: limit.Latencies{Calls: 40, Mean: latency, Deviation: latency / 10, StartInFlight: inFlight},
		}
		if before <= a.Mark() {
			w.Low = w.Ran
		}
		now := a.Update(w)
		if now == before {
			continue
		}
		e := limit.Explain(a, w)
		reasons[e.Why]++
		if e.Why == "" || e.Period <= 0 || e.Arrived <= 0 || e.Pressed > e.Arrived || e.Throughput < 0 || e.Latency < 0 {
			t.Fatalf("%d -> %d: got %+v, want a reason and measurements", before, now, e)
		}
		before = now
	}
	for _, want := range []string{"latency did not rise", "queue", "measure"} {
		found := false
		for why := range reasons {
			found = found || strings.Contains(why, want)
		}
		if !found {
			t.Errorf("reasons: got %v, want one that says %q", reasons, want)
		}
	}
	if len(reasons) < 4 {
		t.Errorf("reasons: got %v, want at least four", reasons)
	}
}

// An algorithm without explanations is explained by its window.
func TestExplainWithoutAnExplainer(t *testing.T) {
	f, err := limit.NewFixed(3)
	if err != nil {
		t.Fatal(err)
	}
	w := limit.Window{Duration: 2 * time.Second, Arrived: 10, Pressed: 4, Succeeded: 8, Overloaded: 1, InFlight: 2.5, MeanLatency: time.Second}
	want := limit.Explanation{Period: 2 * time.Second, Arrived: 10, Pressed: 4, Throughput: 4, Overloaded: 1, InFlight: 2.5, Latency: time.Second}
	if got := limit.Explain(f, w); got != want {
		t.Errorf("Explain: got %+v, want %+v", got, want)
	}
	if got := limit.Explain(f, limit.Window{}); got != (limit.Explanation{}) {
		t.Errorf("Explain of nothing: got %+v, want nothing", got)
	}
}

func TestMin(t *testing.T) {
	for _, tt := range []struct {
		new func() (interface{ Min() int }, error)
	}{
		{func() (interface{ Min() int }, error) { return limit.NewAdaptive(limit.AdaptiveConfig{Min: 3}) }},
		{func() (interface{ Min() int }, error) { return limit.NewAIMD(limit.AIMDConfig{Min: 3}) }},
		{func() (interface{ Min() int }, error) { return limit.NewVegas(limit.VegasConfig{Min: 3}) }},
		{func() (interface{ Min() int }, error) { return limit.NewGradient(limit.GradientConfig{Min: 3}) }},
	} {
		a, err := tt.new()
		if err != nil || a.Min() != 3 {
			t.Errorf("%T: got %v, %v, want a smallest limit of 3", a, a, err)
		}
	}
}
