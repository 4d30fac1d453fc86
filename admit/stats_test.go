package admit_test

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
)

func TestUtilization(t *testing.T) {
	for _, tt := range []struct {
		s    admit.Stats
		want float64
	}{
		{admit.Stats{}, 0},
		{admit.Stats{InFlight: 3}, 0},
		{admit.Stats{Limit: 4, InFlight: 0}, 0},
		{admit.Stats{Limit: 4, InFlight: 1}, 0.25},
		{admit.Stats{Limit: 4, InFlight: 4}, 1},
		{admit.Stats{Limit: 4, InFlight: 10}, 2.5},
	} {
		if got := tt.s.Utilization(); got != tt.want {
			t.Errorf("%d in flight of %d: got %v, want %v", tt.s.InFlight, tt.s.Limit, got, tt.want)
		}
	}
}

// Every field of Stats, after a little of everything, to the nanosecond.
func TestStatsAreExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 2, admit.WithName("exact"),
			admit.WithQueue(admit.QueueConfig{Capacity: 2, MaxWait: 500 * ms, Policy: admit.Reject}),
			admit.WithHooks(admit.Hooks{Waited: func(context.Context, admit.Call, time.Duration) { panic("a bug") }}))
		a, b := take(t, g), take(t, g)
		ctx, cancel := context.WithTimeout(t.Context(), 30*ms)
		defer cancel()
		start(ctx, g, admit.Sheddable) // leaves after 30 ms
		c := start(t.Context(), g, admit.Critical)
		refused(t, g, admit.Background, admit.QueueFull)
		time.Sleep(100 * ms)
		a.Release(admit.Success) // ran 100 ms; c runs
		synctest.Wait()
		d := start(t.Context(), g, admit.Default)
		time.Sleep(40 * ms)
		b.Release(admit.Overload) // ran 140 ms; d runs after 40 ms
		synctest.Wait()
		start(t.Context(), g, admit.Default) // waits too long
		time.Sleep(500 * ms)
		synctest.Wait()
		c.permit.Release(admit.Success) // ran 540 ms
		last := take(t, g)
		waiter, leave := context.WithCancel(t.Context())
		start(waiter, g, admit.Background)

		want := admit.Stats{
			Name: "exact", Limit: 2, InFlight: 2, Queue: 1, QueueCapacity: 2, MaxWait: 500 * time.Millisecond,
			Ended:          [3]uint64{admit.Success: 2, admit.Overload: 1},
			Waited:         2,
			WaitSeconds:    0.14,
			Left:           1,
			RunningSeconds: 0.78,
			Panics:         2,
			Classes:        classNames,
		}
		want.Waiting[admit.Background] = 1
		want.Refused[admit.Background][admit.QueueFull] = 1
		want.Refused[admit.Default][admit.WaitedTooLong] = 1
		for range 2 { // reading changes nothing
			if got := g.Stats(); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
		leave()
		synctest.Wait()
		d.permit.Release(admit.Ignored)
		last.Release(admit.Ignored)
		wantWhole(t, g, 2)
	})
}

// Whoever reads while calls run sees counters that only grow, and never more in flight
// or waiting than there may be; at rest every call is accounted for.
func TestStatsWhileCallsRun(t *testing.T) {
	const permits, places, callers, calls = 3, 4, 12, 20_000 / slowdown
	g := newGate(t, permits, queue(places, admit.Reject))
	var over atomic.Bool
	var all, readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for last := g.Stats(); !over.Load(); spin(1) {
				s := g.Stats()
				if s.InFlight < 0 || s.InFlight > permits || s.Queue < 0 || s.Queue > places {
					t.Errorf("got %d in flight, %d waiting, want at most %d, %d", s.InFlight, s.Queue, permits, places)
				}
				if s.Left < last.Left || s.Waited < last.Waited || s.Ended[admit.Success] < last.Ended[admit.Success] ||
					s.RunningSeconds < last.RunningSeconds || s.WaitSeconds < last.WaitSeconds || accounted(s) > callers*calls+permits {
					t.Errorf("got %+v after %+v, want counters that grow", s, last)
				}
				last = s
			}
		})
	}
	for range callers {
		all.Go(func() {
			for range calls {
				ctx, cancel := context.WithCancel(t.Context())
				if rand.IntN(8) == 0 {
					cancel()
				}
				if p, err := g.Acquire(ctx, admit.Call{Class: admit.Class(rand.IntN(4))}); err == nil {
					spin(rand.IntN(2))
					p.Release(admit.Outcome(rand.IntN(3)))
				}
				cancel()
			}
		})
	}
	all.Wait()
	over.Store(true)
	readers.Wait()
	if s := g.Stats(); accounted(s) != callers*calls {
		t.Errorf("calls accounted for: got %d, want %d: %+v", accounted(s), callers*calls, s)
	}
	wantWhole(t, g, permits)
}

// What an algorithm is told of a window, by hand: two run for 10 and 30 ms, a third
// waits and runs for 30 ms, a fourth is refused, seven run for 10 ms one by one.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var windows []limit.Window
		g := newGate(t, 1, queue(1, admit.Reject), admit.WithLimit(&law{initial: 2, next: func(w limit.Window) int {
			windows = append(windows, w)
			return 3
		}}))
		a, b := take(t, g), take(t, g)
		c := start(t.Context(), g, admit.Default)
		refused(t, g, admit.Default, admit.QueueFull)
		time.Sleep(10 * ms)
		a.Release(admit.Success)
		wantState(t, "the third", c, runs)
		time.Sleep(20 * ms)
		b.Release(admit.Success)
		time.Sleep(10 * ms)
		c.permit.Release(admit.Success)
		for _, o := range []admit.Outcome{
			admit.Overload, admit.Ignored, admit.Success, admit.Success, admit.Success, admit.Success, admit.Success, // the first window ends
			admit.Success, admit.Success, admit.Success, admit.Success, admit.Success, admit.Success, admit.Success, admit.Success, admit.Success, admit.Success,
		} {
			p := take(t, g)
			time.Sleep(10 * ms)
			p.Release(o)
		}
		for i := range windows { // floating point is not to the nanosecond
			windows[i].MeanLatency = windows[i].MeanLatency.Round(time.Microsecond)
			windows[i].InFlight = math.Round(windows[i].InFlight*1e6) / 1e6
			windows[i].LatencyDeviation = windows[i].LatencyDeviation.Round(10 * time.Microsecond)
			ran := &windows[i].Ran
			ran.Mean, ran.Deviation = ran.Mean.Round(10*time.Microsecond), ran.Deviation.Round(10*time.Microsecond)
			ran.StartInFlight = math.Round(ran.StartInFlight*1e3) / 1e3
		}
		want := []limit.Window{{
			Duration: 110 * ms, Limit: 2, InFlight: 1.272727, MaxInFlight: 2, Arrived: 11, Pressed: 2,
			Succeeded: 8, Overloaded: 1, Ignored: 1,
			MeanLatency: 15 * ms, MinLatency: 10 * ms, LatencyDeviation: 8660 * time.Microsecond,
			Ran: limit.Latencies{Calls: 9, Mean: 14440 * time.Microsecond, Deviation: 8310 * time.Microsecond, StartInFlight: 1.222},
		}, {
			Duration: 100 * ms, Limit: 3, InFlight: 1, MaxInFlight: 1, Arrived: 10, Succeeded: 10,
			MeanLatency: 10 * ms, MinLatency: 10 * ms,
			Ran: limit.Latencies{Calls: 10, Mean: 10 * ms, StartInFlight: 1},
		}}
		if len(windows) != len(want) {
			t.Fatalf("windows: got %d, want %d: %+v", len(windows), len(want), windows)
		}
		for i := range want {
			if windows[i] != want[i] {
				t.Errorf("window %d: got %+v, want %+v", i, windows[i], want[i])
			}
		}
	})
}

// A window takes at least ten calls and ten milliseconds, whichever comes last.
func TestWindowIsNotTooSmall(t *testing.T) {
	for _, tt := range []struct {
		latency time.Duration
		calls   int
		want    []time.Duration
	}{
		{time.Millisecond, 9, nil},
		{time.Millisecond, 23, []time.Duration{11 * ms, 10 * ms}}, // the first release looks, and again every 10 ms
		{time.Second, 9, nil},
		{time.Second, 10, []time.Duration{10 * time.Second}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var got []time.Duration
			g := newGate(t, 1, admit.WithLimit(&law{initial: 1, next: func(w limit.Window) int {
				got = append(got, w.Duration)
				return 1
			}}))
			for range tt.calls {
				p := take(t, g)
				time.Sleep(tt.latency)
				p.Release(admit.Success)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%d calls of %v: got windows %v, want %v", tt.calls, tt.latency, got, tt.want)
			}
		})
	}
}

// A new algorithm begins with a window of its own, which is not shorter than others and
// knows nothing of calls that ended before it.
func TestWindowBeginsAnewWithANewLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 5)
		end := func(calls int, latency time.Duration) {
			for range calls {
				p := take(t, g)
				time.Sleep(latency)
				p.Release(admit.Success)
			}
		}
		release(takeN(t, g, 5))
		end(4, 4*ms) // not yet a window
		var windows []limit.Window
		update(t, g, admit.WithLimit(&law{initial: 2, next: func(w limit.Window) int {
			windows = append(windows, w)
			return 2
		}}))
		end(80, ms/4)
		if len(windows) != 1 || windows[0].Duration < 10*ms || windows[0].Duration > 20*ms || windows[0].Limit != 2 {
			t.Fatalf("windows after 20ms with the new limit: got %+v, want one of 10ms to 20ms", windows)
		}
		w := windows[0]
		if got, want := w.Completed(), int(w.Duration/(ms/4)); got != want || w.MaxInFlight != 1 || w.Ignored != 0 {
			t.Errorf("the new window: got %d calls (%d ignored), at most %d at once, want %d, 0, 1: only its own", got, w.Ignored, w.MaxInFlight, want)
		}
	})
}

// A server runs more than 292 years of calls, and a window what costs a million.
func TestSumsDoNotOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1000)
		permits := takeN(t, g, 1000)
		const month = 30 * 24 * time.Hour
		time.Sleep(4 * month) // of a thousand streams
		release(permits)
		if got, want := g.Stats().RunningSeconds, 4000*month.Seconds(); got != want {
			t.Errorf("running: got %v s, want %v", got, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		const many = 1 << 20
		g := newGate(t, 1, admit.WithLimit(&law{initial: many, next: func(w limit.Window) int {
			if w.InFlight < 0.99*many {
				t.Errorf("in flight on the mean: got %v, want %v", w.InFlight, many)
			}
			return many
		}}))
		for range 2 {
			p, err := g.Acquire(t.Context(), admit.Call{Cost: many})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Hour)
			p.Release(admit.Success)
		}
		closeWindow(t, g)
	})
}

// oddFloor panics when it is asked for its smallest limit.
type oddFloor struct{ limit.Fixed }

func (*oddFloor) Min() int { panic("no floor") }

// The smallest limit and the longest wait are those in force.
func TestStatsHaveTheBoundsOfLimitAndWait(t *testing.T) {
	adaptive := func(c limit.AdaptiveConfig) limit.Algorithm {
		a, err := limit.NewAdaptive(c)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	fixed, err := limit.NewFixed(7)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		opts   []admit.Option
		update []admit.Option
		floor  int
		wait   time.Duration
	}{
		"default":      {nil, nil, 1, time.Second},
		"own":          {[]admit.Option{admit.WithLimit(adaptive(limit.AdaptiveConfig{Min: 3})), admit.WithQueue(admit.QueueConfig{MaxWait: time.Minute})}, nil, 3, time.Minute},
		"fixed":        {[]admit.Option{admit.WithLimit(fixed)}, nil, 0, time.Second},
		"without":      {[]admit.Option{admit.WithoutQueue()}, nil, 1, 0},
		"block":        {[]admit.Option{admit.WithQueue(admit.QueueConfig{Policy: admit.Block})}, nil, 1, 0},
		"panic":        {[]admit.Option{admit.WithLimit(&oddFloor{*fixed})}, nil, 0, time.Second},
		"updated":      {nil, []admit.Option{admit.WithLimit(adaptive(limit.AdaptiveConfig{Min: 5})), admit.WithQueue(admit.QueueConfig{MaxWait: time.Hour})}, 5, time.Hour},
		"updated name": {[]admit.Option{admit.WithLimit(adaptive(limit.AdaptiveConfig{Min: 4}))}, []admit.Option{admit.WithMaxOpen(9)}, 4, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := admit.New(c.opts...)
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Update(c.update...); err != nil {
				t.Fatal(err)
			}
			if s := g.Stats(); s.MinLimit != c.floor || s.MaxWait != c.wait {
				t.Errorf("got a smallest limit of %d and a longest wait of %v, want %d and %v", s.MinLimit, s.MaxWait, c.floor, c.wait)
			}
		})
	}
}
