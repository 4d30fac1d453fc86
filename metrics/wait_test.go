package metrics_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/metrics"
)

// wait makes a call wait for exactly d, and lets it in.
func wait(t *testing.T, g *admit.Gate, d time.Duration) {
	t.Helper()
	first, second := acquire(t, g), acquire(t, g)
	queue(t.Context(), g, admit.Default, 0)
	time.Sleep(d)
	first.Release(admit.Success)
	second.Release(admit.Success)
	synctest.Wait()
}

func histogram(t *testing.T, r prometheus.Gatherer, result string) sample {
	t.Helper()
	found := find(t, r, "weir_wait_seconds", result)
	if len(found) != 1 {
		t.Fatalf("weir_wait_seconds of %s: got %d series, want 1", result, len(found))
	}
	return found[0]
}

func TestWaitIsAClassicAndANativeHistogram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		r := collect(t, g)
		for _, result := range []string{"admitted", "refused", "left"} {
			if h := histogram(t, r, result); !h.native || len(h.classic) != 12 {
				t.Errorf("%s, before the first wait: got native %v and %d classic buckets, want true and 12",
					result, h.native, len(h.classic))
			}
		}
		for range 10 {
			wait(t, g, 30*time.Millisecond)
		}
		wait(t, g, 800*time.Millisecond)
		h := histogram(t, r, "admitted")
		if got, want := h.sum, 1.1; got < want-1e-9 || got > want+1e-9 {
			t.Errorf("sum of the waits: got %v s, want %v", got, want)
		}
		// Schema 3: a bucket's bounds are 2^(1/8) = 1.09 apart, the finest not above 1.1.
		if got := h.schema; got != 3 {
			t.Errorf("schema: got %d, want 3", got)
		}
		if got, want := h.deltas, []int64{10, -9}; !slices.Equal(got, want) {
			t.Errorf("native buckets (as differences): got %v, want %v", got, want)
		}
		for le, got := range h.classic {
			want := uint64(0)
			switch {
			case le >= 1:
				want = 11
			case le >= 0.05:
				want = 10
			}
			if got != want {
				t.Errorf("classic bucket le=%v: got %d, want %d", le, got, want)
			}
		}
	})
}

// However odd the waits are, the histogram stays small; and when an hour has
// passed it starts again rather than staying coarse for ever.
func TestNativeHistogramIsBounded(t *testing.T) {
	const odd = 240 // waits that are each 9 % longer than the one before: a bucket each
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		if err := g.Update(admit.WithQueue(admit.QueueConfig{MaxWait: time.Hour})); err != nil {
			t.Fatal(err)
		}
		r := collect(t, g)
		spread := func() sample {
			for d, i := 10.0, 0; i < odd; i++ {
				wait(t, g, time.Duration(d))
				d *= 1.09
			}
			return histogram(t, r, "admitted")
		}
		h := spread()
		if got := len(h.deltas); got > 160 || got < 20 {
			t.Errorf("native buckets after %d different waits: got %d, want 20 to 160", odd, got)
		}
		if got := h.count; got != odd {
			t.Errorf("waits in the histogram within the hour: got %d, want %d", got, odd)
		}
		before := h.count
		time.Sleep(time.Hour)
		if got, most := spread().count, before+odd; got >= most {
			t.Errorf("waits in the histogram after an hour and as many again: got %d, want fewer than %d", got, most)
		}
	})
}

func TestCallsThatDidNotWaitAreNotWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admit.WithoutQueue())
		r := collect(t, g)
		first, second := acquire(t, g), acquire(t, g)
		for range 1000 {
			refused(t, g, admit.Default, admit.QueueFull)
		}
		first.Release(admit.Success)
		second.Release(admit.Success)
		if got := count(t, r, "weir_wait_seconds"); got != 0 {
			t.Errorf("waits: got %v, want 0", got)
		}
		if got := count(t, r, "weir_refusals_total"); got != 1000 {
			t.Errorf("refusals: got %v, want 1000", got)
		}
	})
}

// traced is the key of a trace's name in a context.
type traced struct{}

func TestExemplarsLeadToTraces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		c, err := metrics.NewCollector(g)
		if err != nil {
			t.Fatal(err)
		}
		r := prometheus.NewPedanticRegistry()
		r.MustRegister(c)
		exemplars := func() (found []string) {
			families, err := r.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				for _, m := range f.GetMetric() {
					for _, b := range m.GetHistogram().GetBucket() {
						for _, l := range b.GetExemplar().GetLabel() {
							found = append(found, l.GetName()+"="+l.GetValue())
						}
					}
				}
			}
			return found
		}
		waitWith := func(ctx context.Context) {
			first, second := acquire(t, g), acquire(t, g)
			queue(ctx, g, admit.Default, 0)
			time.Sleep(30 * time.Millisecond)
			first.Release(admit.Success)
			second.Release(admit.Success)
			synctest.Wait()
		}
		traceOf := func(ctx context.Context) prometheus.Labels {
			id, ok := ctx.Value(traced{}).(string)
			if !ok {
				return nil
			}
			return prometheus.Labels{"trace_id": id}
		}
		withTrace := func(id string) context.Context { return context.WithValue(t.Context(), traced{}, id) }

		waitWith(withTrace("early"))
		if got := exemplars(); len(got) != 0 {
			t.Errorf("exemplars by default: got %v, want none", got)
		}
		c.UseExemplars(traceOf)
		waitWith(t.Context())
		if got := exemplars(); len(got) != 0 {
			t.Errorf("exemplars of a call without a trace: got %v, want none", got)
		}
		waitWith(withTrace("abc"))
		if got, want := exemplars(), []string{"trace_id=abc"}; !slices.Equal(got, want) {
			t.Errorf("exemplars: got %v, want %v", got, want)
		}
		c.UseExemplars(nil)
		waitWith(withTrace("late"))
		if got, want := exemplars(), []string{"trace_id=abc"}; !slices.Equal(got, want) {
			t.Errorf("exemplars after the end: got %v, want %v", got, want)
		}
		if got := count(t, r, "weir_wait_seconds", "admitted"); got != 4 {
			t.Errorf("waits: got %v, want 4, with and without exemplars", got)
		}
	})
}

// A scrape has the exemplar beside its bucket in the format OpenMetrics, and not in the old one.
func TestAScrapeHasExemplars(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		c, err := metrics.NewCollector(g)
		if err != nil {
			t.Fatal(err)
		}
		c.UseExemplars(func(context.Context) prometheus.Labels { return prometheus.Labels{"trace_id": "4bf92f3577b34da6"} })
		r := prometheus.NewPedanticRegistry()
		r.MustRegister(c)
		wait(t, g, 30*time.Millisecond)
		scraped := promhttp.HandlerFor(r, promhttp.HandlerOpts{EnableOpenMetrics: true})
		bucket := func(accept string) string {
			request := httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody)
			request.Header.Set("Accept", accept)
			answer := httptest.NewRecorder()
			scraped.ServeHTTP(answer, request)
			for line := range strings.Lines(answer.Body.String()) {
				if strings.HasPrefix(line, "weir_wait_seconds_bucket{") && strings.Contains(line, `result="admitted",le="0.05"`) {
					return strings.TrimSpace(line)
				}
			}
			t.Errorf("a scrape with Accept %q: got no bucket of 50 ms, want one", accept)
			return ""
		}
		const want = ` 1 # {trace_id="4bf92f3577b34da6"} 0.03`
		if got := bucket("application/openmetrics-text; version=1.0.0"); !strings.Contains(got, want) {
			t.Errorf("OpenMetrics: got %s, want %s in it", got, want)
		}
		if got := bucket("text/plain"); strings.Contains(got, "#") {
			t.Errorf("the old format: got %s, want no exemplar", got)
		}
	})
}
