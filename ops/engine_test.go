package ops_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

var language = parser.NewParser(parser.Options{})

// A clockwork evaluates the rules of alerts.yml over the series of a test, step by step, as Prometheus does.
type clockwork struct {
	engine *promql.Engine
	series map[string]*promql.Series // by labels
	rules  []rule
	since  map[string]time.Time // when an alert became pending, by its name and labels
}

func newClockwork(t *testing.T) *clockwork {
	return &clockwork{
		engine: promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Parser: language}),
		series: map[string]*promql.Series{}, rules: rules(t), since: map[string]time.Time{},
	}
}

// load adds the values of a series, one each step.
func (c *clockwork) load(t *testing.T, desc, values string, step time.Duration) {
	t.Helper()
	of, sequence, err := language.ParseSeriesDesc(desc + " " + values)
	if err != nil {
		t.Fatalf("%s %s: %v", desc, values, err)
	}
	s := promql.Series{Metric: of}
	for i, v := range sequence {
		at := int64(i) * step.Milliseconds()
		switch {
		case v.Omitted:
		case v.Histogram != nil:
			s.Histograms = append(s.Histograms, promql.HPoint{T: at, H: v.Histogram})
		default:
			s.Floats = append(s.Floats, promql.FPoint{T: at, F: v.Value})
		}
	}
	c.series[of.String()] = &s
}

// Querier implements storage.Queryable.
func (c *clockwork) Querier(int64, int64) (storage.Querier, error) {
	return &storage.MockQuerier{SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
		found := &set{}
		for _, name := range slices.Sorted(maps.Keys(c.series)) {
			s := c.series[name]
			if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.Metric.Get(m.Name)) }) {
				found.all = append(found.all, promql.NewStorageSeries(*s))
			}
		}
		return found
	}}, nil
}

// A set is a storage.SeriesSet.
type set struct {
	all []*promql.StorageSeries
	at  int
}

func (s *set) Next() bool                        { s.at++; return s.at <= len(s.all) }
func (s *set) At() storage.Series                { return s.all[s.at-1] }
func (s *set) Err() error                        { return nil }
func (s *set) Warnings() annotations.Annotations { return nil }

// step evaluates the rules once, and returns the labels of the alerts that fire, by name.
func (c *clockwork) step(t *testing.T, at time.Time) map[string][]string {
	t.Helper()
	firing, active := map[string][]string{}, map[string]bool{}
	for _, r := range c.rules {
		for _, s := range c.eval(t, r, at) {
			if r.Record != "" {
				c.record(r.Record, s, at)
				continue
			}
			with := labels.NewBuilder(s.Metric).Del(labels.MetricName)
			for name, value := range r.Labels {
				with.Set(name, value)
			}
			id := r.Alert + with.Labels().String()
			active[id] = true
			if _, pending := c.since[id]; !pending {
				c.since[id] = at
			}
			hold, err := time.ParseDuration(cmp.Or(r.For, "0s"))
			if err != nil {
				t.Fatalf("%s: for: %v", r.Alert, err)
			}
			if at.Sub(c.since[id]) >= hold {
				firing[r.Alert] = append(firing[r.Alert], with.Labels().String())
			}
		}
	}
	maps.DeleteFunc(c.since, func(id string, _ time.Time) bool { return !active[id] })
	return firing
}

func (c *clockwork) eval(t *testing.T, r rule, at time.Time) []promql.Sample {
	t.Helper()
	q, err := c.engine.NewInstantQuery(t.Context(), c, nil, r.Expr, at)
	if err != nil {
		t.Fatalf("%s: %v", r.name(), err)
	}
	defer q.Close()
	result := q.Exec(t.Context())
	if result.Err != nil {
		t.Fatalf("%s: %v", r.name(), result.Err)
	}
	vector, err := result.Vector()
	if err != nil {
		t.Fatalf("%s: %v", r.name(), err)
	}
	return slices.Clone(vector)
}

// record appends a sample to a recorded series.
func (c *clockwork) record(name string, s promql.Sample, at time.Time) {
	of := labels.NewBuilder(s.Metric).Set(labels.MetricName, name).Labels()
	if c.series[of.String()] == nil {
		c.series[of.String()] = &promql.Series{Metric: of}
	}
	to := c.series[of.String()]
	to.Floats = append(to.Floats, promql.FPoint{T: at.UnixMilli(), F: s.F})
}

// A ruleTest is a test as promtool reads it.
type ruleTest struct {
	Name     string
	Interval string
	Series   []struct{ Series, Values string } `yaml:"input_series"`
	Alerts   []struct {
		Time  string `yaml:"eval_time"`
		Alert string `yaml:"alertname"`
		Exp   []struct {
			Labels map[string]string `yaml:"exp_labels"`
		} `yaml:"exp_alerts"`
	} `yaml:"alert_rule_test"`
}

func ruleTests(t testing.TB, file string) []ruleTest {
	t.Helper()
	var content struct{ Tests []ruleTest }
	readYAML(t, file, &content)
	if len(content.Tests) == 0 {
		t.Fatalf("%s: got no test, want some", file)
	}
	return content.Tests
}

// The alerts that read histograms, with native ones. Debian's promtool reads none in tests, so the engine of a later
// Prometheus evaluates the rules in process.
func TestRulesOnNativeHistograms(t *testing.T) {
	for _, test := range ruleTests(t, "alerts_native_test.yml") {
		t.Run(test.Name, func(t *testing.T) { play(t, test) })
	}
}

// The engine in process says the same as promtool about one alert.
func TestRulesInProcess(t *testing.T) {
	for _, test := range ruleTests(t, "alerts_test.yml") {
		if strings.HasPrefix(test.Name, "WeirWaitLong") {
			t.Run(test.Name, func(t *testing.T) { play(t, test) })
		}
	}
}

// play runs a test to its last check.
func play(t *testing.T, test ruleTest) {
	t.Helper()
	interval, err := time.ParseDuration(test.Interval)
	if err != nil {
		t.Fatal(err)
	}
	c := newClockwork(t)
	for _, s := range test.Series {
		c.load(t, s.Series, s.Values, interval)
	}
	checks := map[time.Duration][]int{}
	var last time.Duration
	for i, a := range test.Alerts {
		at, err := time.ParseDuration(a.Time)
		if err != nil || at%interval != 0 {
			t.Fatalf("eval_time: got %s, %v, want a multiple of %v", a.Time, err, interval)
		}
		checks[at] = append(checks[at], i)
		last = max(last, at)
	}
	for at := time.Duration(0); at <= last; at += interval {
		firing := c.step(t, time.UnixMilli(at.Milliseconds()))
		for _, i := range checks[at] {
			a := test.Alerts[i]
			var want []string
			for _, e := range a.Exp {
				want = append(want, labels.FromMap(e.Labels).String())
			}
			got := firing[a.Alert]
			slices.Sort(got)
			slices.Sort(want)
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s after %s: got %v, want %v", a.Alert, a.Time, got, want)
			}
		}
	}
}
