package admit

import (
	"math"
	"runtime/metrics"
	"time"
)

// schedulerWaits knows how long goroutines of the process waited for a processor.
// The zero value is ready to use. It is not safe for concurrent use.
//
// The Go runtime counts every eighth such wait or so in a histogram, whether
// anybody reads it or not.
type schedulerWaits struct {
	sample [1]metrics.Sample
	count  float64 // of all waits so far
	sum    float64 // of their times, in seconds
}

// mean returns the mean wait since it was called last; 0 the first time, or if
// there was none. It takes some microseconds.
func (s *schedulerWaits) mean() time.Duration {
	s.sample[0].Name = "/sched/latencies:seconds"
	metrics.Read(s.sample[:])
	if s.sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return 0 // another version of Go: nothing is known
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
