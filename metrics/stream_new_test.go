package metrics_test

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/metrics"
	"github.com/weir-go/weir/streamcredit"
)

func TestNewCollectorOfStreamsNamesEveryMistake(t *testing.T) {
	feed := streamcredit.NewMeter("feed")
	for _, test := range []struct {
		name   string
		meters []*streamcredit.Meter
		want   []string
	}{
		{"none", nil, []string{"sources: got none, want at least one"}},
		{"nil", []*streamcredit.Meter{nil}, []string{"source 1 of 1: got a nil stream meter, want one with a name from streamcredit.NewMeter"}},
		{"zero", []*streamcredit.Meter{{}}, []string{"source 1 of 1: got a stream meter without a name, want one with a name from streamcredit.NewMeter"}},
		{"nameless", []*streamcredit.Meter{streamcredit.NewMeter("")}, []string{"source 1 of 1: got a stream meter without a name, want one with a name from streamcredit.NewMeter"}},
		{"not text", []*streamcredit.Meter{streamcredit.NewMeter("a\xff")}, []string{`stream meter name: got "a\xff", want valid UTF-8`}},
		{"one twice", []*streamcredit.Meter{feed, feed}, []string{`stream meter name: got "feed" more than once`}},
		{
			"two of a name, and three of another, and nil",
			[]*streamcredit.Meter{
				feed, nil, streamcredit.NewMeter("db"), streamcredit.NewMeter("feed"),
				streamcredit.NewMeter("db"), streamcredit.NewMeter("fine"), streamcredit.NewMeter("db"),
			},
			[]string{
				"source 2 of 7: got a nil stream meter, want one with a name from streamcredit.NewMeter",
				`stream meter name: got "feed" more than once`,
				`stream meter name: got "db" more than once`,
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := metrics.NewCollector(metrics.Sources(test.meters...)...)
			wantMistakes(t, c == nil, err, test.want...)
		})
	}
}

func TestStreamCollectorsShareARegistry(t *testing.T) {
	r := collect(t, newGate(t)) // with a collector of gates, too
	register := func(name string) error {
		c, err := metrics.NewCollector(streamcredit.NewMeter(name))
		if err != nil {
			t.Fatal(err)
		}
		return r.Register(c)
	}
	if err := register("a"); err != nil {
		t.Errorf("first collector: got %v, want no error", err)
	}
	if err := register("b"); err != nil {
		t.Errorf("collector of another meter: got %v, want no error", err)
	}
	if err := register("a"); !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		t.Errorf("collector of another meter of the same name: got %v, want AlreadyRegisteredError", err)
	}
	if got := len(find(t, r, "weir_stream_open")); got != 2 {
		t.Errorf("weir_stream_open: got %d series, want 2", got)
	}
}
