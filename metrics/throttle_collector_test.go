package metrics_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/throttle"
)

func TestAThrottleShowsFromTheFirstScrape(t *testing.T) {
	th := newThrottle(t, throttle.Config{Name: "backends"})
	golden(t, show(t, prometheus.NewPedanticRegistry(), throttles(t, th)), "throttle_first_scrape.prom")
}

func TestExpositionSaysWhatThrottlesDid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(t, throttle.Config{Name: "backends"})
		r := show(t, prometheus.NewPedanticRegistry(), throttles(t, th))
		ends := make(chan error)
		c := demo{work: func(context.Context) error { return <-ends }}.
			start(t, dialOptions(t, interceptors.ClientConfig{Throttle: th})...)
		var calls sync.WaitGroup
		for range 9 {
			calls.Go(func() { _ = c.work(t.Context()) }) // as ends says
		}
		synctest.Wait()
		ends <- nil
		for range 8 {
			ends <- errUnavailable
		}
		calls.Wait()
		golden(t, r, "throttle_worked.prom") // 9 calls, 1 accepted, which is no evidence yet

		close(ends) // from now on all is well
		for range 20 {
			if err := c.work(t.Context()); err != nil {
				t.Errorf("a call of a throttle without evidence: got %v, want no error", err)
			}
		}
		for name, want := range map[string]float64{
			"weir_throttle_refused_calls_total":  0,
			"weir_throttle_allowed_calls_total":  29,
			"weir_throttle_accepted_calls_total": 21,
			"weir_throttle_rejected_calls_total": 8,
			"weir_throttle_probability":          0,
		} {
			if got := count(t, r, name); got != want {
				t.Errorf("%s: got %v, want %v", name, got, want)
			}
		}
	})
}

func TestATargetThatCannotBeALabel(t *testing.T) {
	th := newThrottle(t, throttle.Config{})
	r := show(t, prometheus.NewPedanticRegistry(), throttles(t, th))
	cc, err := grpc.NewClient("passthrough:///a%ff", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cc.Close() }() // it was never connected
	_ = throttle.Unary(th)(t.Context(), "/s/m", nil, nil, cc,
		func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil })
	if got := count(t, r, "weir_throttle_allowed_calls_total", "*"); got != 1 {
		t.Errorf("allowed calls of the rest: got %v, want 1", got)
	}
}
