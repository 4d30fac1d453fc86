package admit_test

import (
	"testing"
	"time"
)

// A burst of calls of another kind than those before is served. How long the others took says
// nothing about it.
func TestABurstOfAnotherKindIsAbsorbed(t *testing.T) {
	for _, limit := range []int{32, 0} {
		got, _ := world{
			gate: limited(limit), workers: 32, lasts: 12 * time.Second, seed: 1,
			streams: []stream{
				{rate: 80, lasts: always(100 * ms)},
				{rate: 200, burst: 600, lasts: exponential(2 * ms)},
			},
		}.run(t)
		for i, c := range got {
			if c.share() < 1 {
				t.Errorf("limit %d, stream %d: got %d of %d served, want all; refused %v", limit, i, c.good, c.calls, c.refused)
			}
		}
	}
}
