package metrics_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
	"github.com/weir-go/weir/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newGate returns a gate named "api" with a fixed limit of 2 and room for two
// that wait, oldest first, for a second at most.
func newGate(t testing.TB, opts ...admit.Option) *admit.Gate {
	t.Helper()
	two, err := limit.NewFixed(2)
	if err != nil {
		t.Fatal(err)
	}
	queue := admit.QueueConfig{Capacity: 2, MaxWait: time.Second, Policy: admit.Reject}
	g, err := admit.New(append([]admit.Option{
		admit.WithName("api"), admit.WithLimit(two), admit.WithQueue(queue),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// collect returns a registry that shows the gates.
func collect(t testing.TB, gates ...*admit.Gate) *prometheus.Registry {
	t.Helper()
	c, err := metrics.NewCollector(metrics.Sources(gates...)...)
	if err != nil {
		t.Fatal(err)
	}
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	return r
}

func compare(t *testing.T, g prometheus.Gatherer, want string, names ...string) {
	t.Helper()
	if err := testutil.GatherAndCompare(g, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

// golden compares all that is exposed, to the letter, with a file.
func golden(t *testing.T, g prometheus.Gatherer, file string) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	if err := testutil.GatherAndCompare(g, bytes.NewReader(want)); err != nil {
		t.Errorf("differs from testdata/%s: %v", file, err)
	}
}

// acquire takes a permit that must be free.
func acquire(t *testing.T, g *admit.Gate) *admit.Permit {
	t.Helper()
	p, err := g.Acquire(t.Context(), admit.Call{})
	if err != nil {
		t.Fatalf("Acquire: got %v, want a permit", err)
	}
	return &p
}

// refused makes a call that must be refused at once.
func refused(t *testing.T, g *admit.Gate, c admit.Class, why admit.Reason) {
	t.Helper()
	_, err := g.Acquire(t.Context(), admit.Call{Class: c})
	var r *admit.Refusal
	if !errors.As(err, &r) || r.Reason != why {
		t.Fatalf("Acquire as %v: got %v, want a refusal because of %v", c, err, why)
	}
}

// queue makes a call that waits, and runs for a while if it is let in.
func queue(ctx context.Context, g *admit.Gate, c admit.Class, run time.Duration) {
	go func() {
		if p, err := g.Acquire(ctx, admit.Call{Class: c}); err == nil {
			defer p.Release(admit.Ignored)
			time.Sleep(run)
		}
	}()
	synctest.Wait()
}

func TestEverySeriesIsThereFromTheFirstScrape(t *testing.T) {
	golden(t, collect(t, newGate(t)), "first_scrape.prom")
}

func TestExpositionSaysWhatHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		r := collect(t, g)
		first, second := acquire(t, g), acquire(t, g)

		impatient, giveUp := context.WithCancel(t.Context())
		queue(t.Context(), g, admit.Default, 0)
		queue(impatient, g, admit.Default, 0)
		refused(t, g, admit.Background, admit.QueueFull)

		time.Sleep(50 * time.Millisecond)
		queue(t.Context(), g, admit.Critical, 50*time.Millisecond) // displaces the first, after 50 ms
		time.Sleep(50 * time.Millisecond)
		giveUp() // after 100 ms
		time.Sleep(150 * time.Millisecond)
		first.Release(admit.Success) // lets the critical one in, after 200 ms
		time.Sleep(50 * time.Millisecond)
		second.Release(admit.Overload)
		synctest.Wait()

		third, fourth := acquire(t, g), acquire(t, g)
		queue(t.Context(), g, admit.Sheddable, 0)
		golden(t, r, "worked.prom")

		time.Sleep(time.Second) // too long for the sheddable one
		synctest.Wait()
		third.Release(admit.Success)
		fourth.Release(admit.Success)
		compare(t, r, `
			# HELP weir_running_seconds_total Time that the calls that have ended ran, together.
			# TYPE weir_running_seconds_total counter
			weir_running_seconds_total{gate="api"} 2.6
			# HELP weir_utilization_ratio Permits in use now, divided by the limit.
			# TYPE weir_utilization_ratio gauge
			weir_utilization_ratio{gate="api"} 0
		`, "weir_running_seconds_total", "weir_utilization_ratio")
		if got := count(t, r, "weir_refusals_total", "sheddable", "waited_too_long"); got != 1 {
			t.Errorf("refusals of sheddable calls that waited too long: got %v, want 1", got)
		}
		if got := count(t, r, "weir_wait_seconds", "refused"); got != 2 {
			t.Errorf("calls that waited in vain: got %v, want 2 (evicted, waited too long)", got)
		}
	})
}

func TestDrainAndDryRunShow(t *testing.T) {
	g := newGate(t)
	r := collect(t, g)
	if err := g.Update(admit.WithDryRun(true)); err != nil {
		t.Fatal(err)
	}
	for range 5 { // two run, two would wait, one would be refused
		acquire(t, g)
	}
	compare(t, r, `
		# HELP weir_draining 1 if the gate drains: every new call is refused.
		# TYPE weir_draining gauge
		weir_draining{gate="api"} 0
		# HELP weir_dry_run 1 if the gate decides and counts, but refuses nothing.
		# TYPE weir_dry_run gauge
		weir_dry_run{gate="api"} 1
		# HELP weir_utilization_ratio Permits in use now, divided by the limit.
		# TYPE weir_utilization_ratio gauge
		weir_utilization_ratio{gate="api"} 2.5
	`, "weir_draining", "weir_dry_run", "weir_utilization_ratio")
	if got := count(t, r, "weir_wait_seconds", "admitted"); got != 2 {
		t.Errorf("calls that would have waited: got %v, want 2", got)
	}
	if got := count(t, r, "weir_refusals_total", "default", "queue_full"); got != 1 {
		t.Errorf("calls that would have been refused: got %v, want 1", got)
	}

	if err := g.Update(admit.WithDryRun(false)); err != nil {
		t.Fatal(err)
	}
	g.Drain()
	refused(t, g, admit.Critical, admit.Draining)
	compare(t, r, `
		# HELP weir_draining 1 if the gate drains: every new call is refused.
		# TYPE weir_draining gauge
		weir_draining{gate="api"} 1
		# HELP weir_dry_run 1 if the gate decides and counts, but refuses nothing.
		# TYPE weir_dry_run gauge
		weir_dry_run{gate="api"} 0
	`, "weir_draining", "weir_dry_run")
	if got := count(t, r, "weir_refusals_total", "critical", "draining"); got != 1 {
		t.Errorf("critical calls refused while draining: got %v, want 1", got)
	}
}

// A script is an algorithm that goes through its limits, and panics at their end.
type script []int

func (s *script) Limit() int { return (*s)[0] }

func (s *script) Update(limit.Window) int {
	*s = (*s)[1:]
	return (*s)[0]
}

func TestLimitChangesAndPanicsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admit.WithLimit(&script{4, 7, 7, 3}))
		r := collect(t, g)
		for range 4 { // windows: 7, 7 again, 3, a panic
			for range limit.WindowCalls {
				acquire(t, g).Release(admit.Success)
			}
			time.Sleep(2 * limit.WindowLength)
			acquire(t, g).Release(admit.Success) // closes the window
		}
		compare(t, r, `
			# HELP weir_limit Permits there are: calls of cost 1 that may run at once.
			# TYPE weir_limit gauge
			weir_limit{gate="api"} 3
			# HELP weir_limit_changes_total Changes of the limit, by its algorithm or by Update.
			# TYPE weir_limit_changes_total counter
			weir_limit_changes_total{gate="api"} 2
			# HELP weir_panics_total Panics of hooks and of the algorithm, all survived.
			# TYPE weir_panics_total counter
			weir_panics_total{gate="api"} 1
		`, "weir_limit", "weir_limit_changes_total", "weir_panics_total")
	})
}

func TestAnotherHooksPanicIsCountedAndHidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, admit.WithHooks(admit.Hooks{
			Waited: func(context.Context, admit.Call, time.Duration) { panic("a bug of somebody else") },
		}))
		r := collect(t, g)
		first, second := acquire(t, g), acquire(t, g)
		queue(t.Context(), g, admit.Default, 0)
		first.Release(admit.Success)
		second.Release(admit.Success)
		synctest.Wait()
		if got := count(t, r, "weir_panics_total"); got != 1 {
			t.Errorf("panics: got %v, want 1", got)
		}
		if got := count(t, r, "weir_wait_seconds", "admitted"); got != 1 {
			t.Errorf("calls that waited: got %v, want 1", got)
		}
	})
}

func TestLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(collect(t, newGate(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
