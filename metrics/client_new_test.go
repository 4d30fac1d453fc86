package metrics_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/throttle"
	"github.com/weir-go/weir/metrics"
)

// wantMistakes checks that there is no collector, and that each line of the error
// names one of the mistakes.
func wantMistakes(t *testing.T, none bool, err error, want ...string) {
	t.Helper()
	if err == nil || !none {
		t.Fatalf("got a collector: %t, %v, want none and an error", !none, err)
	}
	text, wraps := strings.CutPrefix(err.Error(), metrics.ErrConfig.Error()+": ")
	if !wraps || !errors.Is(err, metrics.ErrConfig) {
		t.Errorf("got %v, want an error that wraps ErrConfig", err)
	}
	lines := strings.Split(text, "\n")
	if len(lines) != len(want) {
		t.Fatalf("got %d mistakes, want %d: %v", len(lines), len(want), err)
	}
	for i, w := range want {
		if !strings.Contains(lines[i], w) {
			t.Errorf("mistake %d: got %q, want it to say %q", i+1, lines[i], w)
		}
	}
}

func TestNewCollectorOfBreakersNamesEveryMistake(t *testing.T) {
	of := func(name string) *breaker.Breaker {
		return newBreaker(t, breaker.Config{Name: name})
	}
	one := of("api")
	for name, test := range map[string]struct {
		breakers []*breaker.Breaker
		want     []string
	}{
		"none":     {nil, []string{"sources: got none, want at least one"}},
		"nil":      {[]*breaker.Breaker{nil}, []string{"source 1 of 1: got a nil breaker, want one from breaker.New"}},
		"zero":     {[]*breaker.Breaker{{}}, []string{"source 1 of 1: got a zero Breaker, want one"}},
		"not text": {[]*breaker.Breaker{of("a\xff")}, []string{`breaker name: got "a\xff", want valid UTF-8`}},
		"twice":    {[]*breaker.Breaker{one, one}, []string{`breaker name: got "api" more than once`}},
		"all": {
			[]*breaker.Breaker{one, nil, of("api"), of(""), of("fine"), of(""), of("api")},
			[]string{"source 2 of 7: got a nil breaker, want one from breaker.New", `got "api" more than once`, `got "default" more than once, want one for each (breaker.Config.Name)`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := metrics.NewCollector(metrics.Sources(test.breakers...)...)
			wantMistakes(t, c == nil, err, test.want...)
		})
	}
}

func TestNewCollectorOfThrottlesNamesEveryMistake(t *testing.T) {
	of := func(name string) *throttle.Throttle {
		return newThrottle(t, throttle.Config{Name: name})
	}
	one := of("api")
	for name, test := range map[string]struct {
		throttles []*throttle.Throttle
		want      []string
	}{
		"none":     {nil, []string{"sources: got none, want at least one"}},
		"nil":      {[]*throttle.Throttle{nil}, []string{"source 1 of 1: got a nil throttle, want one from throttle.New"}},
		"zero":     {[]*throttle.Throttle{{}}, []string{"source 1 of 1: got a zero Throttle, want one"}},
		"not text": {[]*throttle.Throttle{of("a\xff")}, []string{`throttle name: got "a\xff", want valid UTF-8`}},
		"twice":    {[]*throttle.Throttle{one, one}, []string{`throttle name: got "api" more than once`}},
		"all": {
			[]*throttle.Throttle{one, nil, of("api"), of(""), of("fine"), of(""), of("api")},
			[]string{"source 2 of 7: got a nil throttle, want one from throttle.New", `got "api" more than once`, `got "default" more than once, want one for each (throttle.Config.Name)`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := metrics.NewCollector(metrics.Sources(test.throttles...)...)
			wantMistakes(t, c == nil, err, test.want...)
		})
	}
}

// A breaker, a throttle and a gate may have one name; two breakers may not.
func TestClientCollectorsShareARegistry(t *testing.T) {
	r := collect(t, newGate(t)) // its name is api, too
	breaker := func(name string) prometheus.Collector {
		return breakers(t, newBreaker(t, breaker.Config{Name: name}))
	}
	throttle := func(name string) prometheus.Collector {
		return throttles(t, newThrottle(t, throttle.Config{Name: name}))
	}
	show(t, r, breaker("api"), breaker("db"), throttle("api"), throttle("db"))
	for what, c := range map[string]prometheus.Collector{"breaker": breaker("api"), "throttle": throttle("api")} {
		if err := r.Register(c); !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			t.Errorf("another %s of the same name: got %v, want AlreadyRegisteredError", what, err)
		}
	}
	for _, name := range []string{"weir_breaker_circuits", "weir_throttle_targets"} {
		if got := len(find(t, r, name)); got != 2 {
			t.Errorf("%s: got %d series, want 2", name, got)
		}
	}
}
