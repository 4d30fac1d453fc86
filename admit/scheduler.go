package admit

import (
	"math"
	"runtime/metrics"
	"time"
)

// schedulerWaits measures how long goroutines of the process wait for a processor. The
// zero value is ready to use. It is not safe for concurrent use.
//
// It reads a histogram that the Go runtime keeps anyway, from about one in eight waits.
type schedulerWaits struct {
	sample [1]metrics.Sample
	count  float64 // waits so far
	sum    float64 // their sum in seconds
}

// mean returns the mean wait since the last call of mean. It returns 0 at the first call,
// and if there was no wait. It takes some microseconds.
func (s *schedulerWaits) mean() time.Duration {
	s.sample[0].Name = "/sched/latencies:seconds"
	metrics.Read(s.sample[:])
	if s.sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return 0 // another version of Go
	}
	h := s.sample[0].Value.Float64Histogram()
	count, sum := 0.0, 0.0
	for i, c := range h.Counts {
		if c > 0 {
			count += float64(c)
			sum += float64(c) * middle(h.Buckets[i], h.Buckets[i+1])
		}
	}
	n, t, first := count-s.count, sum-s.sum, s.count == 0
	s.count, s.sum = count, sum
	if first || n < 1 {
		return 0
	}
	return seconds(max(0, t) / n)
}

// middle returns a typical wait of a bucket. The outer buckets are open at one end.
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
