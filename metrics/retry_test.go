package metrics_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/metrics"
)

// Retries, and calls to which the budget refused one, are counted by method. The budget is shown
// while there is a connection.
func TestExpositionSaysWhatRetriesDid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := retry.NewMeter("backends")
		c, err := metrics.NewCollector(meter)
		if err != nil {
			t.Fatal(err)
		}
		r := show(t, prometheus.NewPedanticRegistry(), c)
		golden(t, r, "retry_first_scrape.prom")
		fails := 0
		d := demo{work: func(context.Context) error {
			if fails > 0 {
				fails--
				return errUnavailable
			}
			return nil
		}}.start(t, dialOptions(t, interceptors.ClientConfig{Retry: &retry.Config{BudgetTokens: 10, BudgetRatio: 0.5}, Retries: meter})...)
		for _, n := range []int{0, 1, 0, 3, 3, 3} { // of the attempts fail
			fails = n
			_ = d.work(t.Context())
		}
		golden(t, r, "retry_worked.prom") // 10 tokens, less one for each of the last six attempts
	})
}

func TestMetersOfRetriesThatAreWrong(t *testing.T) {
	for _, m := range []*retry.Meter{nil, {}, retry.NewMeter("")} {
		if c, err := metrics.NewCollector(m); err == nil || c != nil {
			t.Errorf("NewCollector of %+v: got %v, %v, want an error", m, c, err)
		}
	}
}
