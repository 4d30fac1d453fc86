package metrics_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/admit"
)

// seriesOf returns every series of a registry by its name and labels.
func seriesOf(t *testing.T, g prometheus.Gatherer) []string {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatalf("Gather: got %v, want no error", err)
	}
	var names []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Whatever calls do (every class and outcome that fits in a byte, names of an
// attacker in their contexts), no series appears that was not there at first.
func TestNothingThatCallsBringBecomesALabel(t *testing.T) {
	type key struct{}
	g := newGate(t, admit.WithoutQueue())
	r := collect(t, g)
	before := seriesOf(t, r)
	held := acquire(t, g)
	for i := range 256 {
		attack := strings.Repeat("/evil.Service/\n\"", i)
		ctx, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, attack))
		p, err := g.Acquire(ctx, admit.Call{Class: admit.Class(i)})
		if err != nil {
			t.Fatalf("Acquire as class %d: got %v, want a permit", i, err)
		}
		refused(t, g, admit.Class(i), admit.QueueFull)
		p.Release(admit.Outcome(i))
		cancel(&admit.Refusal{Reason: admit.Reason(i)})
		if _, err := g.Acquire(ctx, admit.Call{Class: admit.Class(i)}); err == nil {
			t.Fatalf("Acquire with a context that is over: got a permit, want its error")
		}
	}
	held.Release(admit.Ignored)
	if after := seriesOf(t, r); !slices.Equal(after, before) {
		t.Errorf("series: got %d\n%s\nwant the same %d as at first", len(after), strings.Join(after, "\n"), len(before))
	}
	// What is unknown is counted as what it is treated as.
	for _, c := range []struct {
		want float64
		name string
		of   []string
	}{
		{253, "weir_refusals_total", []string{"background"}},
		{1, "weir_refusals_total", []string{"critical"}},
		{255, "weir_calls_total", []string{"ignored"}},
		{1, "weir_calls_total", []string{"overload"}},
		{256, "weir_left_total", nil},
	} {
		if got := count(t, r, c.name, c.of...); got != c.want {
			t.Errorf("%s%v: got %v, want %v", c.name, c.of, got, c.want)
		}
	}
}
