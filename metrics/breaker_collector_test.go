package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/throttle"
)

var errUnavailable = status.Error(codes.Unavailable, "as told")

func unavailable(err error) bool {
	return status.Code(err) == codes.Unavailable && !errors.Is(err, breaker.ErrOpen)
}
func brokenOff(err error) bool { return errors.Is(err, breaker.ErrOpen) }
func well(err error) bool      { return err == nil }

func TestABreakerShowsFromTheFirstScrape(t *testing.T) {
	b := newBreaker(t, breaker.Config{Name: "backends"})
	golden(t, show(t, prometheus.NewPedanticRegistry(), breakers(t, b)), "breaker_first_scrape.prom")
}

// A client of a server that has a method in each state that there is.
func TestExpositionSaysWhatBreakersDid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{Name: "backends", MinCalls: 4})
		r := show(t, prometheus.NewPedanticRegistry(), breakers(t, b))
		hang, sick := make(chan struct{}), true
		ended := []error{nil, status.Error(codes.Internal, "as told"), status.Error(codes.NotFound, "as told")}
		c := demo{
			work: func(context.Context) error {
				if sick {
					return errUnavailable
				}
				<-hang
				return nil
			},
			watch: func() error { return errUnavailable },
			exchange: func() error {
				err := ended[0]
				ended = ended[1:]
				return err
			},
		}.start(t, dialOptions(t, interceptors.ClientConfig{Breaker: b})...)

		wantError(t, 4, c.work, unavailable)
		wantError(t, 2, c.work, brokenOff)
		time.Sleep(10 * time.Second) // it is open for 7.5 s at most
		wantError(t, 2, c.work, unavailable)
		wantError(t, 1, c.work, brokenOff)
		time.Sleep(10 * time.Second)
		wantError(t, 4, c.watch, unavailable)
		wantError(t, 1, c.watch, brokenOff)
		for range 3 {
			_ = c.exchange(t.Context()) // as ended says
		}
		sick = false
		go func() { _ = c.work(t.Context()) }() // a probe
		synctest.Wait()
		golden(t, r, "breaker_worked.prom")

		close(hang)
		wantError(t, 2, c.work, well) // the other probes
		synctest.Wait()               // for the first one
		if got := count(t, r, "weir_breaker_state", "/weir.demo.v1.DemoService/Work", "closed"); got != 1 {
			t.Errorf("state closed of a circuit whose probes went well: got %v, want 1", got)
		}
	})
}

// Whatever methods a program calls, they are told apart up to a number; and what
// cannot be a label does not hinder the scrape.
func TestCircuitsAreBounded(t *testing.T) {
	b := newBreaker(t, breaker.Config{Name: "proxy"})
	r := show(t, prometheus.NewPedanticRegistry(), breakers(t, b))
	const named, more, odd = 1024, 100, 10
	call := func(method string) {
		_ = breaker.Unary(b)(t.Context(), method, nil, nil, nil,
			func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil })
	}
	for i := range odd {
		call(fmt.Sprintf("/odd\xff/%d", i))
	}
	for i := range named + more {
		call(fmt.Sprintf("/evil.Service/\n\"%d", i))
	}
	const circuits = named + 1
	for name, want := range map[string]int{
		"weir_breaker_state":               3 * circuits,
		"weir_breaker_allowed_calls_total": circuits,
		"weir_breaker_refused_calls_total": circuits,
		"weir_breaker_failed_calls_total":  circuits,
		"weir_breaker_openings_total":      circuits,
	} {
		if got := len(find(t, r, name)); got != want {
			t.Errorf("%s: got %d series, want %d", name, got, want)
		}
	}
	if got := count(t, r, "weir_breaker_circuits"); got != circuits {
		t.Errorf("weir_breaker_circuits: got %v, want %d", got, circuits)
	}
	if got := count(t, r, "weir_breaker_allowed_calls_total", "*"); got != odd+more {
		t.Errorf("allowed calls of the rest: got %v, want %d", got, odd+more)
	}
}

func TestClientLint(t *testing.T) {
	b, th := newBreaker(t, breaker.Config{}), newThrottle(t, throttle.Config{})
	c := demo{work: func(context.Context) error { return nil }}.
		start(t, dialOptions(t, interceptors.ClientConfig{Breaker: b, Throttle: th})...)
	wantError(t, 1, c.work, well)
	problems, err := testutil.GatherAndLint(show(t, prometheus.NewPedanticRegistry(), breakers(t, b), throttles(t, th)))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
