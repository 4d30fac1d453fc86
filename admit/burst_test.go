package admit_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/weir-go/weir/admit"
)

// limited returns a gate with a fixed limit, or with the default one if that is 0.
func limited(n int, opts ...admit.Option) func(t *testing.T) *admit.Gate {
	return func(t *testing.T) *admit.Gate {
		t.Helper()
		if n > 0 {
			return newGate(t, n, opts...)
		}
		g, err := admit.New(opts...)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
}

// A burst that can be served before its callers give up is served, whether calls come
// besides or not.
func TestABurstIsAbsorbed(t *testing.T) {
	const workers, service = 8, 5 * ms
	for row, tt := range []struct {
		name     string
		burst    int
		every    time.Duration
		deadline time.Duration
		steady   float64 // calls a second besides
	}{
		{"300 a second", 300, time.Second, 900 * ms, 0},
		{"300 a second beside 0.3 of capacity", 300, time.Second, 900 * ms, 480},
		{"600 each two seconds beside a trickle", 600, 2 * time.Second, 900 * ms, 20},
		{"1000 each five seconds", 1000, 5 * time.Second, 900 * ms, 0},
		{"1000 each five seconds without deadlines, beside a trickle", 1000, 5 * time.Second, 0, 20},
		{"40 each 50 ms with short deadlines", 40, 50 * ms, 50 * ms, 0},
	} {
		for _, limit := range []int{workers, workers + 2, 0} {
			if limit == 0 && tt.deadline == 50*ms {
				continue // while the default finds the limit, it may be too low for these
			}
			t.Run(fmt.Sprintf("%s, limit %d", tt.name, limit), func(t *testing.T) {
				spare(t, row)
				streams := []stream{{rate: float64(tt.burst) / tt.every.Seconds(), burst: tt.burst, lasts: always(service), deadline: tt.deadline}}
				if tt.steady > 0 {
					streams = append(streams, stream{rate: tt.steady, lasts: always(service), deadline: tt.deadline})
				}
				got, _ := world{gate: limited(limit), workers: workers, lasts: 10 * time.Second, streams: streams}.run(t)
				measured(t, got...)
				for i, c := range got {
					if share := c.share(); share < 0.99 {
						t.Errorf("stream %d: got %.4f of %d served, want at least 0.99; refused %v, left %d", i, share, c.calls, c.refused, c.left)
					}
				}
			})
		}
	}
}

// A call that cannot be served within MaxWait is refused when it comes, not after it has
// waited in vain; and those that are served have not waited for long.
func TestRefusedAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name    string
		limit   int
		service time.Duration
		load    float64
		wait    time.Duration
	}{
		{"two permits of 200 ms at 2x", 2, 200 * ms, 2, time.Second},
		{"at 4x", 2, 200 * ms, 4, time.Second},
		{"two permits of 500 ms at 2x", 2, 500 * ms, 2, time.Second},
		{"a patience of 300 ms", 4, 50 * ms, 2, 300 * ms},
		{"eight permits of 20 ms at 4x", 8, 20 * ms, 4, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			capacity := float64(tt.limit) / tt.service.Seconds()
			got, _ := world{
				gate: limited(tt.limit, admit.WithQueue(admit.QueueConfig{MaxWait: tt.wait})), lasts: 60 * time.Second,
				streams: []stream{{rate: tt.load * capacity, lasts: always(tt.service)}},
			}.run(t)
			c := got[0]
			if p50, p90 := quantile(c.refusedIn, 0.5), quantile(c.refusedIn, 0.9); p50 > 0 || p90 > 0 {
				t.Errorf("time until a refusal: got p50 %v, p90 %v, want none; refused %v", p50, p90, c.refused)
			}
			if late := c.refused[admit.WaitedTooLong]; late > c.calls/50 {
				t.Errorf("refused after waiting: got %d of %d calls, want next to none", late, c.calls)
			}
			if good := float64(c.good) / capacity / 60; good < 0.95 {
				t.Errorf("served: got %.3f of capacity, want at least 0.95", good)
			}
		})
	}
}

// Below capacity nothing is refused; beyond, calls that are served wait for about as long
// as they take, and no capacity is lost.
func TestTheQueueDoesNotStand(t *testing.T) {
	const workers, service, lasts = 8, 5 * ms, 10 * time.Second
	const capacity = workers * float64(time.Second/service)
	for row, tt := range []struct {
		load, good float64
		wait       time.Duration // p50 of what is served
	}{
		{0.5, 0.47, 0}, {0.9, 0.86, 5 * ms}, {1, 0.93, 50 * ms}, {1.2, 0.93, 20 * ms}, {2, 0.96, 10 * ms}, {4, 0.96, 10 * ms},
	} {
		for _, deadline := range []time.Duration{100 * ms, time.Second, 0} {
			t.Run(fmt.Sprintf("%gx, deadline %v", tt.load, deadline), func(t *testing.T) {
				spare(t, row)
				got, _ := world{
					gate: limited(workers + 1), workers: workers, lasts: lasts, seed: 3,
					streams: []stream{{rate: tt.load * capacity, lasts: exponential(service), deadline: deadline}},
				}.run(t)
				c := got[0]
				if good := float64(c.good) / capacity / lasts.Seconds(); good < tt.good {
					t.Errorf("served: got %.3f of capacity, want at least %v; refused %v, left %d", good, tt.good, c.refused, c.left)
				}
				if tt.load < 1 && len(c.refused) > 0 {
					t.Errorf("below capacity: got %v refused, want none", c.refused)
				}
				if p50 := quantile(c.waited, 0.5); p50 > tt.wait {
					t.Errorf("wait of those served: got p50 %v, want at most %v", p50, tt.wait)
				}
				t.Logf("served %.4f, waited p50 %v p99 %v, refused %v in p50 %v p99 %v, left %d", c.share(),
					quantile(c.waited, 0.5), quantile(c.waited, 0.99), c.refused, quantile(c.refusedIn, 0.5), quantile(c.refusedIn, 0.99), c.left)
			})
		}
	}
}

// A limit that is too low for a moment is bridged: what waits is served once the limit is
// right again.
func TestTheQueueBridgesALowLimit(t *testing.T) {
	for _, moment := range []time.Duration{100 * ms, 250 * ms} {
		got, _ := world{
			gate: limited(10), workers: 8, lasts: 10 * time.Second,
			streams: []stream{{rate: 1120, lasts: exponential(5 * ms), deadline: time.Second}},
			during: func(g *admit.Gate) {
				for range 4 {
					time.Sleep(2 * time.Second)
					update(t, g, fixed(t, 2))
					time.Sleep(moment)
					update(t, g, fixed(t, 10))
				}
			},
		}.run(t)
		if c := got[0]; len(c.refused) > 0 || c.share() < 0.999 {
			t.Errorf("a limit of a quarter for %v: got %.4f served, refused %v, want all served", moment, c.share(), c.refused)
		}
	}
}

// When all calls that wait would get their permits just before their deadlines, the queue
// serves those that have time left. Otherwise it would serve none in time, and the limit
// would learn nothing from their ends.
func TestAQueueOfTheDoomed(t *testing.T) {
	const deadline = time.Second
	got, _ := world{
		gate: limited(32), workers: 2, lasts: 60 * time.Second,
		streams: []stream{{rate: 160, lasts: always(50 * ms), deadline: deadline}},
	}.run(t)
	c := got[0]
	if p90 := quantile(c.waited, 0.9); p90 > deadline/2 || len(c.waited) < 60*20 {
		t.Errorf("wait of the %d calls that were let in: got p90 %v of %v, want at most a half; refused %v, left %d",
			len(c.waited), p90, deadline, c.refused, c.left)
	}
}
