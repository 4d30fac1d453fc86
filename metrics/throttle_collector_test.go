package metrics_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-go/weir/interceptors"
)

func TestAThrottleShowsFromTheFirstScrape(t *testing.T) {
	th := newThrottle(t, interceptors.ThrottleConfig{Name: "backends"})
	golden(t, show(t, prometheus.NewPedanticRegistry(), throttles(t, th)), "throttle_first_scrape.prom")
}

// The throttle draws lots. It lets all calls pass that begin before it has seen one
// refused, so of those the numbers are known.
func TestExpositionSaysWhatThrottlesDid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(t, interceptors.ThrottleConfig{Name: "backends"})
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
		golden(t, r, "throttle_worked.prom") // 9 requests, 1 accepted: (9 - 2*1) / (9 + 1)

		close(ends) // from now on all is well
		refused := 0
		for range 20 {
			if err := c.work(t.Context()); errors.Is(err, interceptors.ErrThrottled) {
				refused++
			}
		}
		for name, want := range map[string]int{
			"weir_throttle_refused_calls_total": refused,
			"weir_throttle_allowed_calls_total": 29 - refused,
			"weir_throttle_window_requests":     29,
			"weir_throttle_window_accepts":      21 - refused,
		} {
			if got := count(t, r, name); got != float64(want) {
				t.Errorf("%s: got %v, want %d, with %d calls refused", name, got, want, refused)
			}
		}
	})
}

func TestATargetThatCannotBeALabel(t *testing.T) {
	th := newThrottle(t, interceptors.ThrottleConfig{})
	r := show(t, prometheus.NewPedanticRegistry(), throttles(t, th))
	cc, err := grpc.NewClient("passthrough:///a%ff", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cc.Close() }() // it was never connected
	_ = interceptors.UnaryThrottle(th)(t.Context(), "/s/m", nil, nil, cc,
		func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil })
	if got := count(t, r, "weir_throttle_allowed_calls_total", "*"); got != 1 {
		t.Errorf("allowed calls of the rest: got %v, want 1", got)
	}
}
