package metrics_test

import (
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// A sample is one series as it was gathered: a number, or a histogram.
type sample struct {
	labels []string // their values
	value  float64  // of a counter or a gauge

	count   uint64
	sum     float64
	schema  int32              // of the native histogram
	native  bool               // there is a native one, with or without buckets
	deltas  []int64            // its buckets, each as the difference to the one before
	classic map[float64]uint64 // cumulative counts by upper bound
}

// find returns the series of one name that have all of the label values.
func find(t testing.TB, g prometheus.Gatherer, name string, values ...string) []sample {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Errorf("Gather: got %v, want no error", err) // not Fatal: also called from other goroutines
	}
	var found []sample
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			h := m.GetHistogram()
			s := sample{
				value:   m.GetCounter().GetValue() + m.GetGauge().GetValue(), // one of them is nil, and 0
				count:   h.GetSampleCount(),
				sum:     h.GetSampleSum(),
				schema:  h.GetSchema(),
				native:  h.GetZeroThreshold() > 0 || len(h.GetPositiveSpan()) > 0,
				deltas:  h.GetPositiveDelta(),
				classic: map[float64]uint64{},
			}
			for _, l := range m.GetLabel() {
				s.labels = append(s.labels, l.GetValue())
			}
			for _, b := range h.GetBucket() {
				s.classic[b.GetUpperBound()] = b.GetCumulativeCount()
			}
			if !slices.ContainsFunc(values, func(v string) bool { return !slices.Contains(s.labels, v) }) {
				found = append(found, s)
			}
		}
	}
	if len(found) == 0 {
		t.Errorf("%s%q: got no series, want at least one", name, values)
	}
	return found
}

// count adds up the numbers, or the counts of the histograms, of one name that
// have all of the label values.
func count(t testing.TB, g prometheus.Gatherer, name string, values ...string) float64 {
	t.Helper()
	sum := 0.0
	for _, s := range find(t, g, name, values...) {
		sum += s.value + float64(s.count)
	}
	return sum
}
