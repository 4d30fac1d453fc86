package admit_test

import (
	"fmt"
	"testing"
	"time"
)

// A process that does not run for a moment (its machine is busy or moves, or its container has
// used up its processor time) finds the calls of that moment at once. It serves them all.
func TestAStopRefusesNothing(t *testing.T) {
	for row, tt := range []struct {
		rate     float64
		service  time.Duration
		workers  int
		limit    int
		stop     time.Duration
		deadline time.Duration
	}{
		{1000, 10 * ms, 0, 0, 300 * ms, 10 * time.Second},
		{1000, 10 * ms, 0, 0, 900 * ms, 10 * time.Second},
		{1000, 10 * ms, 0, 0, 1800 * ms, 0},
		{200, 10 * ms, 0, 0, 600 * ms, 10 * time.Second},
		{2000, 5 * ms, 0, 0, 300 * ms, 2 * time.Second},
		{100, 100 * ms, 0, 0, 300 * ms, 10 * time.Second},
		{400, 10 * ms, 0, 8, 500 * ms, 2 * time.Second},
		{800, 5 * ms, 8, 0, 300 * ms, 2 * time.Second},
		{1120, 5 * ms, 8, 0, 200 * ms, 2 * time.Second},
		{480, 5 * ms, 8, 0, 800 * ms, 2 * time.Second},
		{1120, 5 * ms, 8, 10, 200 * ms, 2 * time.Second},
		{20, 40 * ms, 0, 2, 600 * ms, 2 * time.Second},
	} {
		for _, at := range []time.Duration{50 * ms, 2 * time.Second} {
			for _, stops := range []int{1, 3} {
				name := fmt.Sprintf("%g calls a second of %v, %d workers, limit %d, %d stops of %v at %v", tt.rate, tt.service, tt.workers, tt.limit, stops, tt.stop, at)
				t.Run(name, func(t *testing.T) {
					spare(t, row)
					w := world{
						gate: limited(tt.limit), lasts: 8 * time.Second, seed: uint64(row), workers: tt.workers,
						streams: []stream{{rate: tt.rate, lasts: always(tt.service), deadline: tt.deadline}},
					}
					if tt.workers > 0 {
						w.streams[0].lasts = exponential(tt.service)
					}
					for i := range stops {
						w.stops = append(w.stops, stop{at + time.Duration(i)*(tt.stop+1200*ms), tt.stop})
					}
					got, _ := w.run(t)
					if c := got[0]; len(c.refused) > 0 || c.left > 0 {
						t.Errorf("got %v refused at first after %v, and %d left, of %d calls, want none", c.refused, c.first, c.left, c.calls)
					}
				})
			}
		}
	}
}
