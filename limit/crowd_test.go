package limit_test

import (
	"testing"

	"github.com/weir-go/weir/limit"
)

// Where goroutines wait for processors, latencies mislead. A lower limit that costs no
// successes is right there, and one that costs some is not.
func TestInACrowdSuccessesDecide(t *testing.T) {
	for _, tt := range []struct {
		name     string
		enough   float64 // calls in flight with which the server does all that it can
		from, to int
	}{
		{"one processor", 1, 1, 4},
		{"eight processors", 8, 8, 14},
	} {
		a, err := limit.NewAdaptive(limit.AdaptiveConfig{})
		if err != nil {
			t.Fatal(err)
		}
		most := 0
		for i := range 3000 {
			n := float64(a.Limit())
			rate := 400 * min(n/tt.enough, 1)
			latency := n / rate
			if n > 12 && n < 24 {
				latency *= 1.4 // calls of the time before, and what else takes the processor
			}
			length := max(10/rate, 0.01)
			ran := limit.Latencies{Calls: int(length * rate), Mean: seconds(latency), Deviation: seconds(latency / 4), StartInFlight: n}
			w := limit.Window{
				Duration: seconds(length), Limit: a.Limit(), MaxInFlight: a.Limit(), InFlight: n,
				Arrived: int(1600 * length), Pressed: int(1600 * length), Succeeded: ran.Calls,
				MeanLatency: ran.Mean, MinLatency: ran.Mean / 2, LatencyDeviation: ran.Deviation, Ran: ran,
				SchedulerDelay: ran.Mean / 3,
			}
			if a.Limit() <= a.Mark() {
				w.Low = ran
			}
			if l := a.Update(w); i > 300 {
				most = max(most, l)
			}
		}
		if got := a.Limit(); most < tt.from || most > tt.to {
			t.Errorf("%s: got a limit of %d, and at most %d after the beginning, want %d to %d", tt.name, got, most, tt.from, tt.to)
		}
	}
}
