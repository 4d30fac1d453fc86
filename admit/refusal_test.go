package admit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
)

// delays refuses many times and returns the delays asked for, and the distinct
// refusals.
func delays(t *testing.T, refuse func() *admit.Refusal) (ds []time.Duration, distinct map[*admit.Refusal]bool) {
	t.Helper()
	distinct = map[*admit.Refusal]bool{}
	for range 5000 {
		r := refuse()
		distinct[r] = true
		ds = append(ds, r.RetryAfter)
	}
	slices.Sort(ds)
	return ds, distinct
}

// wantJitter: from half of mean to one and a half, rounded up to the next rung of a
// ladder of steps of 10 %, with the median near the mean.
func wantJitter(t *testing.T, what string, ds []time.Duration, mean time.Duration) {
	t.Helper()
	least, median, most := ds[0], ds[len(ds)/2], ds[len(ds)-1]
	if least < mean/2 || least > mean*6/10 || most > mean*165/100+ms || most < mean*14/10 {
		t.Errorf("%s: got delays from %v to %v, want about %v to %v", what, least, most, mean/2, mean*3/2)
	}
	if median < mean*9/10 || median > mean*12/10 {
		t.Errorf("%s: got a median of %v, want about %v", what, median, mean)
	}
}

func TestRetryAfterIsJittered(t *testing.T) { synctest.Test(t, testJitter) }

func testJitter(t *testing.T) {
	g := newGate(t, 1, admit.WithoutQueue())
	p := take(t, g)
	ds, distinct := delays(t, func() *admit.Refusal { return refused(t, g, admit.Default, admit.QueueFull) })
	wantJitter(t, "refused now and then", ds, 100*ms)
	if len(distinct) < 8 || len(distinct) > 80 {
		t.Errorf("distinct refusals: got %d, want 8 to 80: enough to spread callers, few enough to prepare", len(distinct))
	}
	p.Release(admit.Ignored)

	g.Drain()
	ds, distinct = delays(t, func() *admit.Refusal { return refused(t, g, admit.Default, admit.Draining) })
	if least, most := ds[0], ds[len(ds)-1]; least < 10*ms || most > 20*ms || len(distinct) < 6 {
		t.Errorf("draining: got %d delays from %v to %v, want at least 6 from 10ms to 20ms: another server may take the call at once",
			len(distinct), least, most)
	}
}

// The more is refused of what comes, the later it should come back. Calls take 10 ms,
// and there is no queue, so a permit is free after 10 ms on the mean; and no delay is
// longer than a second.
func TestRetryAfterGrowsWithTheOverload(t *testing.T) {
	for overload, want := range map[int]time.Duration{1: 20 * ms, 4: 40 * ms, 20: 200 * ms, 150: 667 * ms, 1000: 667 * ms} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, 1, admit.WithoutQueue())
			for range 21 { // two windows
				p := take(t, g)
				for range overload - 1 {
					refused(t, g, admit.Default, admit.QueueFull)
				}
				time.Sleep(10 * ms)
				p.Release(admit.Success)
			}
			p := take(t, g)
			ds, distinct := delays(t, func() *admit.Refusal { return refused(t, g, admit.Default, admit.QueueFull) })
			if last := ds[len(ds)-1]; last > time.Second {
				t.Errorf("overload %d: got a delay of %v, want at most 1s", overload, last)
			}
			wantJitter(t, fmt.Sprintf("overload %d", overload), ds, want)
			if len(distinct) > 50 {
				t.Errorf("distinct refusals: got %d, want at most 50", len(distinct))
			}
			p.Release(admit.Ignored)
		})
	}
}

// A refused caller comes back about when the queue that was full has been served. A
// queue that stands is full with a call for each permit, and with as many as its
// Capacity. The longest wait bounds what the queue says, and so does a second.
func TestRetryAfterIsWhatTheQueueSays(t *testing.T) {
	for _, c := range []struct {
		limit int
		queue admit.QueueConfig
		want  time.Duration
	}{
		{8, admit.QueueConfig{Capacity: 8}, 9 * 20 * ms},
		{8, admit.QueueConfig{}, 9 * 20 * ms},
		{8, admit.QueueConfig{Capacity: 1000}, 9 * 20 * ms},
		{8, admit.QueueConfig{Capacity: 3}, 4 * 20 * ms},
		{1, admit.QueueConfig{Capacity: 8}, 3 * 20 * ms},
		{8, admit.QueueConfig{Capacity: 8, MaxWait: 50 * ms}, 50 * ms},
		{100, admit.QueueConfig{Capacity: 1000, MaxWait: time.Minute}, 667 * ms},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, c.limit, admit.WithQueue(c.queue))
			occupy := func(outcome admit.Outcome) (release func()) {
				var held []*admit.Permit
				for range c.limit {
					held = append(held, take(t, g))
				}
				return func() {
					for _, p := range held {
						p.Release(outcome)
					}
				}
			}
			for range 40 { // a permit comes back every 20 ms, on the mean
				release := occupy(admit.Success)
				time.Sleep(time.Duration(c.limit) * 20 * ms)
				release()
			}
			if err := g.Update(admit.WithoutQueue()); err != nil { // so that there is a refusal
				t.Fatal(err)
			}
			defer occupy(admit.Ignored)()
			ds, _ := delays(t, func() *admit.Refusal { return refused(t, g, admit.Default, admit.QueueFull) })
			wantJitter(t, fmt.Sprintf("limit %d, a queue of %+v", c.limit, c.queue), ds, c.want)
		})
	}
}

// While no permit comes back, refused callers are not told the delay of the time before. A
// gate that was idle says nothing about its silence.
func TestRetryAfterWhileNoPermitComesBack(t *testing.T) {
	for _, tt := range []struct {
		name  string
		limit int
		opts  []admit.Option
		rate  int // calls a second before the calls hang
		then  int // and afterwards
	}{
		{"a queue", 4, nil, 2000, 100},
		{"no queue", 4, []admit.Option{admit.WithoutQueue()}, 2000, 100},
		{"few callers come back", 4, []admit.Option{admit.WithoutQueue()}, 20_000, 15},
		{"a short MaxWait", 8, []admit.Option{admit.WithQueue(admit.QueueConfig{MaxWait: 20 * ms})}, 2000, 50},
		{"a larger bound", 2, []admit.Option{admit.WithoutQueue(), admit.WithMaxRetryAfter(5 * time.Second)}, 1000, 1000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := limited(tt.limit, tt.opts...)(t)
				var hangs atomic.Bool
				ctx, stop := context.WithCancel(t.Context())
				var latest, shortest atomic.Int64
				call := func() {
					p, err := g.Acquire(ctx, admit.Call{})
					if r, ok := errors.AsType[*admit.Refusal](err); ok {
						latest.Store(int64(r.RetryAfter))
						shortest.Store(min(shortest.Load(), int64(r.RetryAfter)))
					}
					if err != nil {
						return
					}
					defer p.Release(admit.Success)
					time.Sleep(5 * ms)
					if hangs.Load() {
						<-ctx.Done()
					}
				}
				during := func(rate int, d time.Duration) {
					for end := time.Now().Add(d); time.Now().Before(end); {
						time.Sleep(time.Second / time.Duration(rate))
						go call()
					}
				}
				during(tt.rate, 2*time.Second)
				if got := time.Duration(latest.Load()); got > 200*ms {
					t.Errorf("while calls take 5 ms: got a delay of %v, want a short one", got)
				}
				hangs.Store(true)
				during(tt.then, 2500*ms)
				shortest.Store(int64(time.Hour))
				during(tt.then, 2*time.Second)
				if got := time.Duration(shortest.Load()); got < 333*ms {
					t.Errorf("2.5 s after a permit came back: got a delay of %v, want at least 333 ms", got)
				}
				hangs.Store(false)
				stop()
				synctest.Wait()
				if g.Stats().InFlight > 0 {
					t.Fatalf("in flight: got %d, want none", g.Stats().InFlight)
				}
				ctx, stop = context.WithCancel(t.Context())
				during(tt.rate, 3*time.Second) // the calls that hung are forgotten
				time.Sleep(time.Minute)
				stop()
				held := takeN(t, g, g.Limit())
				update(t, g, admit.WithoutQueue())
				for range 20 {
					time.Sleep(ms)
					if got := refused(t, g, admit.Default, admit.QueueFull).RetryAfter; got > 200*ms {
						t.Errorf("full for 20 ms at most after an idle minute: got a delay of %v, want a short one", got)
					}
				}
				release(held)
			})
		})
	}
}

// Each gate has refusals of its own, with its name, and of each reason a bounded number.
func TestRefusalsAreShared(t *testing.T) {
	all := map[*admit.Refusal]bool{}
	for i := range 5 {
		name := strconv.Itoa(i)
		g := newGate(t, 1, admit.WithoutQueue(), admit.WithName(name))
		p := take(t, g)
		own := map[*admit.Refusal]bool{}
		for range 2000 {
			own[refused(t, g, admit.Default, admit.QueueFull)] = true
		}
		p.Release(admit.Ignored)
		g.Drain()
		for range 2000 {
			own[refused(t, g, admit.Default, admit.Draining)] = true
		}
		if len(own) > 2*50 {
			t.Errorf("distinct refusals of two reasons: got %d, want at most 100", len(own))
		}
		for r := range own {
			if r.Gate != name || all[r] {
				t.Errorf("refusal of gate %s: got gate %s, want its own", name, r.Gate)
			}
			all[r] = true
		}
	}
}

func TestWithMaxRetryAfter(t *testing.T) {
	overloaded := func(t *testing.T, opts ...admit.Option) *admit.Gate {
		g := newGate(t, 1, append(opts, admit.WithoutQueue())...)
		for range 21 {
			p := take(t, g)
			for range 1000 {
				gateFuncs.TurnAway(context.Background(), g, admit.Call{})
			}
			time.Sleep(200 * ms)
			p.Release(admit.Success)
		}
		p := take(t, g)
		t.Cleanup(func() { p.Release(admit.Ignored) })
		return g
	}
	longest := func(t *testing.T, g *admit.Gate) time.Duration {
		t.Helper()
		ds, _ := delays(t, func() *admit.Refusal { return refused(t, g, admit.Default, admit.QueueFull) })
		return ds[len(ds)-1]
	}
	synctest.Test(t, func(t *testing.T) {
		for most, want := range map[time.Duration]time.Duration{0: time.Second, 10 * ms: 10 * ms, 25 * ms: 25 * ms, time.Minute: time.Minute} {
			g := overloaded(t, admit.WithMaxRetryAfter(most))
			if got := longest(t, g); got > want || got < want*8/10 {
				t.Errorf("WithMaxRetryAfter(%v): got a longest delay of %v, want nearly %v", most, got, want)
			}
			if err := g.Update(admit.WithMaxRetryAfter(100 * ms)); err != nil {
				t.Fatal(err)
			}
			if got := longest(t, g); got > 100*ms {
				t.Errorf("after an Update to 100ms: got a longest delay of %v, want at most that", got)
			}
		}
		if got := longest(t, newGateThatIsFull(t, admit.WithMaxRetryAfter(30*ms))); got > 30*ms {
			t.Errorf("before anything is known: got a longest delay of %v, want at most 30ms", got)
		}
	})
	for _, bad := range []time.Duration{-1, 1, 9 * ms, time.Minute + 1, time.Hour} {
		if _, err := admit.New(admit.WithMaxRetryAfter(bad)); !errors.Is(err, admit.ErrConfig) || !strings.Contains(err.Error(), "WithMaxRetryAfter: got "+bad.String()) {
			t.Errorf("WithMaxRetryAfter(%v): got %v, want an error that wraps ErrConfig and names it", bad, err)
		}
	}
}

func newGateThatIsFull(t *testing.T, opts ...admit.Option) *admit.Gate {
	t.Helper()
	g := newGate(t, 1, append(opts, admit.WithoutQueue())...)
	p := take(t, g)
	t.Cleanup(func() { p.Release(admit.Ignored) })
	return g
}

// For one whom Full has turned away before it could ask: counted, and pressing on the
// limit, as if it had been refused.
func TestTurnAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r record
		g := newGate(t, 1, admit.WithoutQueue(), admit.WithHooks(r.hooks()))
		for range 21 {
			p := take(t, g)
			for range 3 {
				gateFuncs.TurnAway(context.Background(), g, admit.Call{Class: admit.Sheddable})
			}
			time.Sleep(10 * ms)
			p.Release(admit.Success)
		}
		s := g.Stats()
		if got := s.Refused[admit.Sheddable][admit.QueueFull]; got != 63 || accounted(s) != 84 {
			t.Errorf("turned away: got %d, and %d calls accounted for, want 63 and 84", got, accounted(s))
		}
		if got := r.take(); len(got) != 63*len("sheddable refused queue_full 0s; ")-2 {
			t.Errorf("hooks were told: got %q, want 63 refusals", got)
		}
		p := take(t, g)
		ds, _ := delays(t, func() *admit.Refusal { return refused(t, g, admit.Default, admit.QueueFull) })
		wantJitter(t, "with three of four turned away", ds, 40*ms)
		p.Release(admit.Ignored)
		gateFuncs.TurnAway(context.Background(), g, admit.Call{}) // a permit is free
		p = take(t, g)
		gateFuncs.TurnAway(context.Background(), g, admit.Call{Class: 99})
		p.Release(admit.Ignored)
		if got := g.Stats().Refused[admit.Background][admit.QueueFull]; got != 1 {
			t.Errorf("turned away as an unknown class: got %d of background, want 1", got)
		}
		wantWhole(t, g, 1)

		g.Drain()
		gateFuncs.TurnAway(context.Background(), g, admit.Call{Class: admit.Critical})
		if got := g.Stats().Refused[admit.Critical][admit.Draining]; got != 1 {
			t.Errorf("turned away while draining: got %d because of that, want 1", got)
		}
	})
}
