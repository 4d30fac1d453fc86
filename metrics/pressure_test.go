package metrics_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/weir-go/weir/metrics"
	"github.com/weir-go/weir/pressure"
)

func newMonitor(t *testing.T, opts ...pressure.Option) *pressure.Monitor {
	t.Helper()
	m, err := pressure.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestExpositionSaysWhatAMonitorSees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMonitor(t, pressure.WithSignals(
			pressure.NewSignal("pool", func() (float64, error) { return 0.95, nil }),
			pressure.NewSignal("disk", func() (float64, error) { return 0, errors.New("no disk") })))
		c, err := metrics.NewCollector(m)
		if err != nil {
			t.Fatal(err)
		}
		r := show(t, prometheus.NewPedanticRegistry(), c)
		golden(t, r, "pressure_first_scrape.prom")
		m.Start()
		time.Sleep(250 * time.Millisecond) // three samples
		synctest.Wait()
		golden(t, r, "pressure_worked.prom")
		m.Stop()
		problems, err := testutil.GatherAndLint(r)
		if err != nil || len(problems) > 0 {
			t.Errorf("got %v, %v, want metrics as Prometheus has them", problems, err)
		}
	})
}

// A registry takes two monitors only if their names differ.
func TestTwoMonitors(t *testing.T) {
	_, err := metrics.NewCollector(newMonitor(t), newMonitor(t))
	wantMistakes(t, true, err, `monitor name: got "default" more than once`)
	if _, err := metrics.NewCollector(newMonitor(t), newMonitor(t, pressure.WithName("pools"))); err != nil {
		t.Errorf("two names: got %v, want no error", err)
	}
}
