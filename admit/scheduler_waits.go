package admit

import (
	"math"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/weir-go/weir/limit"
)

// schedulerWaits is how long goroutines of the process waited for a processor since its
// gate asked last. The zero value is ready to use. It is not safe for concurrent use.
type schedulerWaits struct{ last waitTotals }

// mean returns the mean wait since it was called last; 0 the first time, or if there
// was none. It is called once a window, and is as old as the latest reading.
func (s *schedulerWaits) mean() time.Duration {
	now := processWaits.totals()
	n, t, first := now.count-s.last.count, now.sum-s.last.sum, s.last.count == 0
	s.last = now
	if first || n < 1 {
		return 0
	}
	return seconds(max(0, t) / n)
}

// waitTotals are of all waits of the process so far, with the sum in seconds.
type waitTotals struct{ count, sum float64 }

// A waitReader reads the waits for all gates of the process together. A reading takes
// one or two microseconds. Each gate could ask for one a window, a hundred times a
// second, so gates share a reading for as long as the shortest window lasts. The next
// window of a gate then finds a newer one, and the price does not grow with the gates.
//
// The Go runtime counts every eighth wait or so in a histogram, whether or not anybody
// reads it.
type waitReader struct {
	mu     sync.Mutex // guards the fields below
	sample [1]metrics.Sample
	at     time.Time
	latest waitTotals
}

var processWaits = waitReader{sample: [1]metrics.Sample{{Name: "/sched/latencies:seconds"}}}

// totals returns the totals of a reading that is at most limit.WindowLength old. It
// blocks only while another gate reads.
func (r *waitReader) totals() waitTotals {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	// A clock that is behind belongs to another test in virtual time.
	if age := now.Sub(r.at); age < 0 || age >= limit.WindowLength {
		r.latest, r.at = r.readLocked(), now
	}
	return r.latest
}

func (r *waitReader) readLocked() (t waitTotals) {
	metrics.Read(r.sample[:])
	if r.sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return waitTotals{} // another version of Go: nothing is known
	}
	h := r.sample[0].Value.Float64Histogram()
	for i, c := range h.Counts {
		if c > 0 {
			t.count += float64(c)
			t.sum += float64(c) * middle(h.Buckets[i], h.Buckets[i+1])
		}
	}
	return t
}

// middle is a wait of a bucket; the outer ones have no outer end.
func middle(lo, hi float64) float64 {
	switch {
	case math.IsInf(lo, -1):
		return 0
	case math.IsInf(hi, 1):
		return lo
	default:
		return (lo + hi) / 2
	}
}
