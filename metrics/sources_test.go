package metrics_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/throttle"
	"github.com/weir-go/weir/metrics"
	"github.com/weir-go/weir/pressure"
	"github.com/weir-go/weir/streamcredit"
)

// One collector shows sources of all kinds, also where they have one name.
func TestOneCollectorOfAllKinds(t *testing.T) {
	collector, err := metrics.NewCollector(
		named(t, "api"),
		newBreaker(t, breaker.Config{Name: "api"}),
		newThrottle(t, throttle.Config{Name: "api"}),
		streamcredit.NewMeter("api"),
		newMonitor(t, pressure.WithName("api")),
	)
	if err != nil {
		t.Fatal(err)
	}
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(collector); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var labels []string
	for _, f := range families {
		if f.GetHelp() == "" || !strings.HasSuffix(f.GetHelp(), ".") {
			t.Errorf("help of %s: got %q, want a sentence", f.GetName(), f.GetHelp())
		}
		for _, l := range f.GetMetric()[0].GetLabel() {
			if l.GetValue() == "api" && !slices.Contains(labels, l.GetName()) {
				labels = append(labels, l.GetName())
			}
		}
	}
	slices.Sort(labels)
	if want := []string{"breaker", "gate", "meter", "monitor", "throttle"}; !slices.Equal(labels, want) {
		t.Errorf("labels with the name of a source: got %q, want %q", labels, want)
	}
	problems, err := testutil.GatherAndLint(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

type stranger struct{}

func (stranger) Name() string { return "stranger" }

// A mistake of one source is reported with the mistakes of all others, and no gate gets a
// hook then.
func TestMistakesOfAllKinds(t *testing.T) {
	c, err := metrics.NewCollector(
		nil, stranger{}, named(t, "a"), named(t, "a"), &breaker.Breaker{}, (*throttle.Throttle)(nil), streamcredit.NewMeter(""), &pressure.Monitor{})
	wantMistakes(t, c == nil, err,
		"source 1 of 8: got <nil>, want a gate",
		"source 2 of 8: got metrics_test.stranger, want a gate",
		`gate name: got "a" more than once`,
		"source 5 of 8: got a zero Breaker",
		"source 6 of 8: got a nil throttle, want one from throttle.New",
		"source 7 of 8: got a stream meter without a name, want one with a name from streamcredit.NewMeter",
		"source 8 of 8: got a zero Monitor, want one from pressure.New",
	)
}
