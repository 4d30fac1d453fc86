package metrics_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/metrics"
)

func named(t *testing.T, name string) *admit.Gate {
	t.Helper()
	return newGate(t, admit.WithName(name))
}

func TestNewCollectorNamesEveryMistake(t *testing.T) {
	for _, test := range []struct {
		name  string
		gates []*admit.Gate
		want  []string
	}{
		{"none", nil, []string{"got none, want at least one"}},
		{"nil", []*admit.Gate{nil}, []string{"source 1 of 1: got a nil gate, want one from admit.New"}},
		{"zero", []*admit.Gate{{}}, []string{"source 1 of 1: got a zero Gate"}},
		{"not text", []*admit.Gate{named(t, "a\xff")}, []string{`got "a\xff", want valid UTF-8`}},
		{
			"two of a name, and three of another, and nil",
			[]*admit.Gate{
				named(t, "api"), nil, named(t, "db"), named(t, "api"), named(t, "db"), named(t, "fine"), named(t, "db"),
			},
			[]string{
				"source 2 of 7: got a nil gate, want one from admit.New",
				`gate name: got "api" more than once`,
				`gate name: got "db" more than once`,
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := metrics.NewCollector(metrics.Sources(test.gates...)...)
			wantMistakes(t, c == nil, err, test.want...)
		})
	}
}

func TestOneGateTwiceIsAMistake(t *testing.T) {
	g := named(t, "api")
	if _, err := metrics.NewCollector(g, g); err == nil || !strings.Contains(err.Error(), `"api"`) {
		t.Errorf("got %v, want an error that names the gate", err)
	}
}

func TestCollectorsShareARegistry(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	register := func(name string) error {
		c, err := metrics.NewCollector(named(t, name))
		if err != nil {
			t.Fatal(err)
		}
		return r.Register(c)
	}
	if err := register("a"); err != nil {
		t.Errorf("first collector: got %v, want no error", err)
	}
	if err := register("b"); err != nil {
		t.Errorf("collector of another gate: got %v, want no error", err)
	}
	if err := register("a"); !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		t.Errorf("collector of another gate of the same name: got %v, want AlreadyRegisteredError", err)
	}
	if got := len(find(t, r, "weir_limit")); got != 2 {
		t.Errorf("weir_limit: got %d series, want 2", got)
	}
}
