package metrics

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/admit"
)

var gateReadings = []reading[admit.Stats]{
	{
		"left_total", "Calls whose caller gave up before their turn.",
		prometheus.CounterValue, func(s *admit.Stats) float64 { return float64(s.Left) },
	},
	{
		"limit", "Permits there are: calls of cost 1 that may run at once.",
		prometheus.GaugeValue, func(s *admit.Stats) float64 { return float64(s.Limit) },
	},
	{
		"min_limit", "Smallest limit that the algorithm may choose, 0 if it is fixed.",
		prometheus.GaugeValue, func(s *admit.Stats) float64 { return float64(s.MinLimit) },
	},
	{
		"in_flight", "Permits in use now.",
		prometheus.GaugeValue, func(s *admit.Stats) float64 { return float64(s.InFlight) },
	},
	{
		"utilization_ratio", "Permits in use now, divided by the limit.",
		prometheus.GaugeValue, func(s *admit.Stats) float64 { return s.Utilization() },
	},
	{
		"queue_length", "Calls that wait now.",
		prometheus.GaugeValue, func(s *admit.Stats) float64 { return float64(s.Queue) },
	},
	{
		"queue_capacity", "Calls that may wait at once.",
		prometheus.GaugeValue, func(s *admit.Stats) float64 { return float64(s.QueueCapacity) },
	},
	{
		"max_wait_seconds", "How long a call may wait, 0 if there is no bound or no queue.",
		prometheus.GaugeValue, func(s *admit.Stats) float64 { return s.MaxWait.Seconds() },
	},
	{
		"open", "Calls that run or wait, and those that go on without a permit.",
		prometheus.GaugeValue, func(s *admit.Stats) float64 { return float64(s.Open()) },
	},
	{
		"max_open", "Calls that may be open at once, 0 if any number.",
		prometheus.GaugeValue, func(s *admit.Stats) float64 { return float64(s.MaxOpen) },
	},
	{
		"tenants", "Tenants that have calls which run or wait.",
		prometheus.GaugeValue, func(s *admit.Stats) float64 { return float64(s.Tenants) },
	},
	{
		"running_seconds_total", "Time that the calls that have ended ran, together.",
		prometheus.CounterValue, func(s *admit.Stats) float64 { return s.RunningSeconds },
	},
	{
		"panics_total", "Panics of hooks and of the algorithm, all survived.",
		prometheus.CounterValue, func(s *admit.Stats) float64 { return float64(s.Panics) },
	},
	{
		"draining", "1 if the gate drains: every new call is refused.",
		prometheus.GaugeValue, func(s *admit.Stats) float64 { return oneIf(s.Draining) },
	},
	{
		"dry_run", "1 if the gate decides and counts, but refuses nothing.",
		prometheus.GaugeValue, func(s *admit.Stats) float64 { return oneIf(s.DryRun) },
	},
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// waitBuckets reach beyond a queue's default bound of one second.
var waitBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}

// Bounds of the native histogram. mostNativeBuckets bounds its memory and the size of a
// scrape.
const (
	nativeFactor     = 1.1
	nativeBuckets    = 160
	nativeResetAfter = time.Hour
)

// A gateSeries holds the metrics of one gate.
type gateSeries struct {
	gate     *admit.Gate
	calls    *prometheus.Desc
	refusals *prometheus.Desc
	waiting  *prometheus.Desc
	held     *prometheus.Desc
	changes  *prometheus.Desc
	stalls   *prometheus.Desc
	readings table[admit.Stats]

	waits        *prometheus.HistogramVec
	limitChanges atomic.Uint64
	exemplar     atomic.Pointer[func(context.Context) prometheus.Labels]
}

func newGateSeries(g *admit.Gate) *gateSeries {
	of := describer{"", prometheus.Labels{"gate": g.Name()}}
	return &gateSeries{
		gate:     g,
		readings: newTable(of, gateReadings),
		calls:    of.desc("calls_total", "Calls that ran and have ended, by how they ended.", "outcome"),
		refusals: of.desc("refusals_total",
			"Calls refused, or in a dry run those that would have been.", "class", "reason"),
		waiting: of.desc("class_waiting", "Calls of a class that wait now.", "class"),
		held: of.desc("class_permits",
			"Permits that a class has now, of calls whose class or tenant is counted.", "class"),
		changes: of.desc("limit_changes_total", "Changes of the limit, by its algorithm or by Update."),
		stalls:  of.desc("send_stalls_total", "Streams that were ended because their clients did not take what was sent."),
		waits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace:                       namespace,
			Name:                            "wait_seconds",
			Help:                            "How long calls waited that had to, by what came of it.",
			ConstLabels:                     of.source,
			Buckets:                         waitBuckets,
			NativeHistogramBucketFactor:     nativeFactor,
			NativeHistogramMaxBucketNumber:  nativeBuckets,
			NativeHistogramMinResetDuration: nativeResetAfter,
		}, []string{"result"}),
	}
}

// hooks returns hooks that feed the histogram. Its children are looked up once, so that
// nothing in a call can fail.
func (s *gateSeries) hooks() admit.Hooks {
	admitted := s.waits.WithLabelValues("admitted")
	refused := s.waits.WithLabelValues("refused")
	left := s.waits.WithLabelValues("left")
	return admit.Hooks{
		Waited: func(ctx context.Context, _ admit.Call, wait time.Duration) { s.waited(ctx, admitted, wait) },
		Refused: func(ctx context.Context, _ admit.Call, _ admit.Reason, wait time.Duration) {
			if wait > 0 { // not refused on arrival
				s.waited(ctx, refused, wait)
			}
		},
		Left: func(ctx context.Context, _ admit.Call, wait time.Duration, _ error) {
			if wait > 0 { // not over on arrival
				s.waited(ctx, left, wait)
			}
		},
		LimitChanged: func(int, int) { s.limitChanges.Add(1) },
	}
}

// waited observes a wait, with an exemplar if the call has a trace.
func (s *gateSeries) waited(ctx context.Context, in prometheus.Observer, wait time.Duration) {
	if f := s.exemplar.Load(); f != nil {
		if with, ok := in.(prometheus.ExemplarObserver); ok {
			if labels := (*f)(ctx); len(labels) > 0 {
				with.ObserveWithExemplar(wait.Seconds(), labels)
				return
			}
		}
	}
	in.Observe(wait.Seconds())
}

func (s *gateSeries) describe(ch chan<- *prometheus.Desc) {
	ch <- s.calls
	ch <- s.refusals
	ch <- s.waiting
	ch <- s.held
	ch <- s.changes
	ch <- s.stalls
	s.readings.describe(ch)
	s.waits.Describe(ch)
}

func (s *gateSeries) collect(ch chan<- prometheus.Metric) {
	now := s.gate.Stats()
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for o, n := range now.Ended {
		counter(s.calls, n, admit.Outcome(o).String())
	}
	for c, name := range now.Classes {
		if name == "" {
			continue
		}
		for why, n := range now.Refused[c] {
			counter(s.refusals, n, name, admit.Reason(why).String())
		}
		ch <- prometheus.MustNewConstMetric(s.waiting, prometheus.GaugeValue, float64(now.Waiting[c]), name)
		ch <- prometheus.MustNewConstMetric(s.held, prometheus.GaugeValue, float64(now.Held[c]), name)
	}
	counter(s.changes, s.limitChanges.Load())
	counter(s.stalls, now.SendStalls)
	s.readings.collect(ch, &now)
	s.waits.Collect(ch)
}
