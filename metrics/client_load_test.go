package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/throttle"
)

// sound checks what holds for each circuit and target at every moment, and returns
// the counters.
func sound(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	counters, gauges := numbers(t, g)
	states := map[string]float64{}
	for name, n := range gauges {
		var breaker, method, state, target string
		if _, err := fmt.Sscanf(name, "weir_breaker_state breaker=%s method=%s state=%s target=%s",
			&breaker, &method, &state, &target); err == nil {
			states[method+" "+target] += n
		}
	}
	for circuit, n := range states {
		if n != 1 {
			t.Errorf("%s: got %v states, want 1", circuit, n)
		}
	}
	const b, th = " breaker=backends method=/weir.demo.v1.DemoService/Work target=passthrough:///bufconn", " class=default method=/weir.demo.v1.DemoService/Work target=passthrough:///bufconn throttle=backends"
	if failed, allowed := counters["weir_breaker_failed_calls_total"+b], counters["weir_breaker_allowed_calls_total"+b]; failed > allowed {
		t.Errorf("got %v calls failed of %v allowed, want no more", failed, allowed)
	}
	if p := gauges["weir_throttle_probability"+th]; p < 0 || p >= 1 {
		t.Errorf("probability: got %v, want it from 0 up to 1", p)
	}
	ended := counters["weir_throttle_accepted_calls_total"+th] + counters["weir_throttle_rejected_calls_total"+th]
	if allowed := counters["weir_throttle_allowed_calls_total"+th]; ended > allowed {
		t.Errorf("got %v calls accepted and rejected of %v allowed, want no more", ended, allowed)
	}
	return counters
}

// Scrapes and calls at once, to a server that is well for a while and then is not: no
// counter falls, and in the end each call is counted once.
func TestScrapesWhileClientsCall(t *testing.T) {
	const callers, each, scrapers = 8, 150, 3
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{
			Name: "backends", MinCalls: 5, FailureRatio: 0.2, Window: 100 * time.Millisecond, OpenFor: 20 * time.Millisecond,
		})
		th := newThrottle(t, throttle.Config{
			Name: "backends", Window: 200 * time.Millisecond, Evidence: 42, // the breaker needs fewer
		})
		r := show(t, prometheus.NewPedanticRegistry(), breakers(t, b), throttles(t, th))
		began := time.Now()
		c := demo{work: func(context.Context) error {
			time.Sleep(time.Millisecond)
			if time.Since(began)/(200*time.Millisecond)%2 == 1 {
				return errUnavailable
			}
			return nil
		}}.start(t, dialOptions(t, interceptors.ClientConfig{Breaker: b, Throttle: th})...)

		var calls, scrapes sync.WaitGroup
		var over atomic.Bool
		var refused [2]atomic.Int64 // by the breaker, by the throttle
		for range scrapers {
			scrapes.Go(func() {
				before := sound(t, r)
				for !over.Load() {
					time.Sleep(3 * time.Millisecond)
					after := sound(t, r)
					notFallen(t, before, after)
					before = after
				}
			})
		}
		for range callers {
			calls.Go(func() {
				for range each {
					err := c.work(t.Context())
					switch {
					case errors.Is(err, breaker.ErrOpen):
						refused[0].Add(1)
					case errors.Is(err, throttle.ErrThrottled):
						refused[1].Add(1)
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
		}
		calls.Wait()
		over.Store(true)
		scrapes.Wait()

		counted := func(name string) int64 { return int64(count(t, r, name)) }
		broken, throttled := refused[0].Load(), refused[1].Load()
		if broken == 0 || throttled == 0 || counted("weir_breaker_openings_total") < 2 {
			t.Errorf("got %d calls refused by the breaker, %d by the throttle, %d openings, want some of each",
				broken, throttled, counted("weir_breaker_openings_total"))
		}
		for name, want := range map[string]int64{
			"weir_throttle_refused_calls_total": throttled,
			"weir_throttle_allowed_calls_total": callers*each - throttled,
			"weir_breaker_refused_calls_total":  broken,
			"weir_breaker_allowed_calls_total":  callers*each - throttled - broken,
		} {
			if got := counted(name); got != want {
				t.Errorf("%s: got %d, want %d", name, got, want)
			}
		}
	})
}

// What a scrape of one breaker costs, by its circuits: 1025 are the most.
func BenchmarkBreakerScrape(b *testing.B) {
	for _, n := range []int{0, 10, 1025} {
		b.Run(fmt.Sprintf("circuits=%d", n), func(b *testing.B) {
			circuits := newBreaker(b, breaker.Config{})
			r := show(b, prometheus.NewRegistry(), breakers(b, circuits))
			for i := range n {
				_ = breaker.Unary(circuits)(b.Context(), fmt.Sprint("/s/", i), nil, nil, nil,
					func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil })
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Gather(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
