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

func TestPressureCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := pressure.New(pressure.WithSignals(
			pressure.NewSignal("pool", func() (float64, error) { return 0.95, nil }),
			pressure.NewSignal("disk", func() (float64, error) { return 0, errors.New("no disk") })))
		if err != nil {
			t.Fatal(err)
		}
		c, err := metrics.NewPressureCollector(m)
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

func TestPressureCollectorOfNothing(t *testing.T) {
	if c, err := metrics.NewPressureCollector(nil); err == nil || c != nil {
		t.Errorf("got %v, %v, want an error", c, err)
	}
	ch := make(chan prometheus.Metric, 1)
	new(metrics.PressureCollector).Collect(ch)
	if len(ch) != 0 {
		t.Error("a zero collector: got metrics, want none")
	}
}
