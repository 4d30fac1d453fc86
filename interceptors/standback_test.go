package interceptors_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/internal/calltest"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/interceptors/throttle"
)

// wholes are whole clients: every part that stands back, with and without retries.
func wholes(t *testing.T) map[string]interceptors.ClientConfig {
	t.Helper()
	c := interceptors.ClientConfig{
		Throttle: newThrottle(t, throttle.Config{}),
		Gate:     newGate(t),
		Breaker:  newBreaker(t, breaker.Config{}),
	}
	again := interceptors.ClientConfig{
		Throttle: newThrottle(t, throttle.Config{}),
		Gate:     newGate(t),
		Breaker:  newBreaker(t, breaker.Config{}),
		Retry:    &retry.Config{Balancer: "round_robin"},
	}
	return map[string]interceptors.ClientConfig{"without retries": c, "with retries": again}
}

// wantIdle checks that no part of a client refuses anything.
func wantIdle(t *testing.T, c interceptors.ClientConfig) {
	t.Helper()
	for _, s := range c.Throttle.Stats() {
		if s.Refused > 0 {
			t.Errorf("throttle: got %+v, want nothing refused", s)
		}
	}
	for _, s := range c.Breaker.Stats() {
		if s.Refused > 0 || s.Opened > 0 {
			t.Errorf("breaker: got %+v, want it never open", s)
		}
	}
	if s := c.Gate.Stats(); s.Refused != [admit.MaxClasses][len(s.Refused[0])]uint64{} {
		t.Errorf("gate: got %v refused, want nothing", s.Refused)
	}
}

// A quota is its caller's. Reads are served although most of the writes, of the same
// method, are over their quota.
func TestAWholeClientBesideAQuota(t *testing.T) {
	byName := interceptors.WithTenant(func(_ context.Context, c interceptors.CallMeta) string {
		req, _ := c.ReqOrNil.(*demopb.WorkRequest)
		return req.GetName()
	})
	for name, c := range map[string]struct {
		server func(t *testing.T) []grpc.ServerOption
		work   func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error)
	}{
		"of the handler": {nil, func(_ context.Context, req *demopb.WorkRequest) (*demopb.WorkResponse, error) {
			if req.GetName() == "write" {
				return nil, status.Error(codes.ResourceExhausted, "quota")
			}
			return &demopb.WorkResponse{}, nil
		}},
		"of a gate": {func(t *testing.T) []grpc.ServerOption {
			g := newGate(t, admit.WithQuotas(admit.QuotaConfig{Tenant: admit.Rate{PerSecond: 500, Burst: 10}}))
			return unaryServers(interceptors.UnaryServer(g, byName))
		}, nil},
	} {
		for how := range wholes(t) {
			t.Run(name+", "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					client := wholes(t)[how]
					var server []grpc.ServerOption
					if c.server != nil {
						server = c.server(t)
					}
					r := start(t, &service{OnWork: c.work}, server, standBack(t, client)...)
					var reads, served atomic.Int64
					var calls sync.WaitGroup
					for i := range 4000 { // 400 reads and 600 writes a second
						time.Sleep(time.Millisecond)
						calls.Go(func() {
							ctx, cancel := context.WithTimeout(t.Context(), time.Second)
							defer cancel()
							if i%5 < 3 {
								for range 1 + i%2 { // some callers do not give up
									_, _ = r.Work(ctx, &demopb.WorkRequest{Name: "write"})
								}
								return
							}
							reads.Add(1)
							if _, err := r.Work(ctx, &demopb.WorkRequest{Name: "read"}); err == nil {
								served.Add(1)
							}
						})
					}
					calls.Wait()
					if got, want := served.Load(), reads.Load(); got != want {
						t.Errorf("reads: got %d of %d served, want all", got, want)
					}
					wantIdle(t, client)
				})
			})
		}
	}
}

// Impatient callers harm nobody else, whatever parts a client has.
func TestAWholeClientAmongImpatientCallers(t *testing.T) {
	ms := time.Millisecond
	patient := client{Period: 50 * ms, Gives: always(5 * time.Second), Patient: true}
	for name, others := range map[string]client{
		"deadlines":             {Period: 5 * ms, Gives: always(20 * ms)},
		"deadlines just before": {Period: 5 * ms, Gives: always(49 * ms)},
		"cancels":               {Period: 5 * ms, Gives: always(20 * ms), Cancels: true},
	} {
		for how := range wholes(t) {
			t.Run(name+", "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := wholes(t)[how]
					r := start(t, asDeadline(works(50*ms)), nil, standBack(t, c)...)
					if made, served := callers(t, r.DemoServiceClient, 8*time.Second, patient, others); served != made {
						t.Errorf("patient callers: got %d of %d served, want all", served, made)
					}
					wantIdle(t, c)
				})
			})
		}
	}
}

// Where one of several instances fails, a client of all parts is never worse than one of
// none, and one that retries loses nothing that a retry can save.
func TestAWholeClientOfAFleet(t *testing.T) {
	ok := calltest.Takes(10 * time.Millisecond)
	for name, instances := range map[string][]calltest.Instance{
		"one of two fails":      {calltest.Down, ok},
		"two of three fail":     {calltest.Down, ok, calltest.Down},
		"one of two hangs":      {calltest.Hang, ok},
		"one begins to fail":    {calltest.Until(7*time.Second, ok, calltest.Down), ok},
		"one fails, comes back": {calltest.Until(7*time.Second, calltest.Down, ok), ok},
		"one turns slow":        {calltest.Until(7*time.Second, ok, calltest.Takes(150*time.Millisecond)), ok},
	} {
		t.Run(name, func(t *testing.T) {
			run := func(how string, opts func(t *testing.T) []grpc.DialOption) (served int) {
				t.Run(how, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						to := calltest.InMemory(t, "round_robin", true, instances, opts(t)...)
						served = calltest.Sum(calltest.Offer(t, to, time.Second/30, 300*time.Millisecond, 16*time.Second))
					})
				})
				return served
			}
			for how, whole := range wholes(t) {
				want := run("bare, "+how, func(t *testing.T) []grpc.DialOption {
					if whole.Retry == nil {
						return nil
					}
					return []grpc.DialOption{policy(t, *whole.Retry)}
				})
				got := run("whole, "+how, func(t *testing.T) []grpc.DialOption { return standBack(t, wholes(t)[how]) })
				if got < want-3 {
					t.Errorf("%s: got %d served, want the %d of a bare client", how, got, want)
				}
			}
		})
	}
}

// A throttle over the network: a server of which a gate refuses most calls is spared
// within two seconds, and has full service two seconds after it is well.
func TestThrottleOfAFullGate(t *testing.T) {
	for _, kind := range []string{"unary", "stream"} {
		for _, retries := range []bool{false, true} {
			for _, part := range []int{60, 75, 95, 100} { // per cent that are refused
				t.Run(fmt.Sprintf("%s, %d %%, retries %v", kind, part, retries), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						throttleOfAFullGate(t, kind, part, retries)
					})
				})
			}
		}
	}
}

func throttleOfAFullGate(t *testing.T, kind string, part int, retries bool) {
	const rate = 50
	full := strict(t, 1)
	fill(t, full)
	var busy atomic.Bool
	var n atomic.Int64
	refuse := func() bool { return busy.Load() && int(n.Add(1)*37%100) < part }
	unary := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		if refuse() {
			return interceptors.UnaryServer(full)(ctx, req, info, h)
		}
		return h(ctx, req)
	}
	stream := func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		if refuse() {
			return interceptors.StreamServer(full)(srv, ss, info, h)
		}
		return h(srv, ss)
	}
	th := newThrottle(t, throttle.Config{})
	c := interceptors.ClientConfig{Throttle: th}
	if retries {
		c.Retry = &retry.Config{}
	}
	svc := &service{OnExchange: func(demopb.DemoService_ExchangeServer) error { return nil }}
	r := start(t, svc, []grpc.ServerOption{grpc.UnaryInterceptor(unary), grpc.StreamInterceptor(stream)}, standBack(t, c)...)
	load := func(d time.Duration) (held, lost int) {
		var mu sync.Mutex
		var calls sync.WaitGroup
		before := stats(th).Refused
		for range int(d.Seconds() * rate) {
			time.Sleep(time.Second / rate)
			calls.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				call := callWork
				if kind == "stream" {
					call = callExchange
				}
				if err := call(ctx, r.DemoServiceClient); err != nil {
					mu.Lock()
					defer mu.Unlock()
					lost++
				}
			})
		}
		calls.Wait()
		return int(stats(th).Refused - before), lost
	}
	if held, lost := load(5 * time.Second); held > 0 || lost > 0 {
		t.Errorf("a healthy server: got %d refused here and %d lost, want none", held, lost)
	}
	busy.Store(true)
	load(2 * time.Second)
	held, _ := load(8 * time.Second)
	// K is 2, so two calls are sent for each that is accepted, one for each half of the
	// Window to a server that accepts none, and some more to find the way back. Retries
	// make calls that end well of some that were refused first.
	if want := 8*rate - 3*8*rate*(100-part)/100 - 30; !retries && held < want {
		t.Errorf("refused here of %d while %d %% were refused there: got %d, want at least %d", 8*rate, part, held, want)
	}
	busy.Store(false)
	load(2 * time.Second)
	if held, lost := load(5 * time.Second); held > 0 || lost > 0 {
		t.Errorf("from 2 s after it is well: got %d refused here and %d lost, want none", held, lost)
	}
}

// stats returns what a throttle has done with its only target.
func stats(th *throttle.Throttle) (s throttle.TargetStats) {
	for _, s = range th.Stats() {
		return s
	}
	return s
}
