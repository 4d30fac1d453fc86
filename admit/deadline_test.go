package admit_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
)

func TestDeadlineInTheQueue(t *testing.T) {
	for _, policy := range []admit.Policy{admit.Reject, admit.Block} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, 1, queue(3, policy))
			p := take(t, g)
			ctx, cancel := context.WithTimeout(t.Context(), 50*ms)
			defer cancel()
			a := start(ctx, g, admit.Default)
			next := start(t.Context(), g, admit.Default)
			time.Sleep(50*ms - 1)
			synctest.Wait()
			wantState(t, "a nanosecond before its deadline", a, waits)
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			if a.err != context.DeadlineExceeded || a.took != 50*ms {
				t.Errorf("got %v after %v, want context.DeadlineExceeded, unchanged, after 50ms", a.err, a.took)
			}
			wantState(t, "the one behind it", next, waits)
			p.Release(admit.Ignored)
			synctest.Wait()
			wantState(t, "the one behind it, at its turn", next, runs)
			next.permit.Release(admit.Ignored)
			if s := g.Stats(); s.Left != 1 {
				t.Errorf("left: got %d, want 1", s.Left)
			}
			wantWhole(t, g, 1)
		})
	}
}

func TestExpiredOnArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), -time.Second)
		defer cancel()
		g := newGate(t, 1)
		arrive := func(what string) {
			t.Helper()
			if _, err := g.Acquire(ctx, admit.Call{}); err != context.DeadlineExceeded {
				t.Errorf("%s: got %v, want context.DeadlineExceeded", what, err)
			}
		}
		arrive("with a permit free")
		p := take(t, g)
		arrive("with a place in the queue")
		g.Drain()
		arrive("while it drains")
		if s := g.Stats(); s.Left != 3 || s.InFlight != 1 || s.Queue != 0 || s.Refused != [admit.MaxClasses][admit.NumReasons]uint64{} {
			t.Errorf("stats: got %+v, want 3 left, 1 in flight, nobody waiting or refused", s)
		}
		p.Release(admit.Ignored)
	})
}

func TestMaxWait(t *testing.T) {
	for _, tt := range []struct {
		name    string
		queue   admit.QueueConfig
		timeout time.Duration // of the call's context
		want    string
		after   time.Duration
	}{
		{"default", admit.QueueConfig{}, 0, tooLong, time.Second},
		{"chosen", admit.QueueConfig{MaxWait: 70 * ms}, 0, tooLong, 70 * ms},
		{"the smallest", admit.QueueConfig{MaxWait: 1}, 0, tooLong, 1},
		{"Reject", admit.QueueConfig{Policy: admit.Reject}, 0, tooLong, time.Second},
		{"Block", admit.QueueConfig{Policy: admit.Block}, 0, waits, 0},
		{"Block, chosen", admit.QueueConfig{Policy: admit.Block, MaxWait: 3 * time.Second}, 0, tooLong, 3 * time.Second},
		{"before the deadline", admit.QueueConfig{MaxWait: 70 * ms}, 71 * ms, tooLong, 70 * ms},
		{"with the deadline", admit.QueueConfig{MaxWait: 70 * ms}, 70 * ms, context.DeadlineExceeded.Error(), 70 * ms},
		{"after the deadline", admit.QueueConfig{MaxWait: 70 * ms}, 69 * ms, context.DeadlineExceeded.Error(), 69 * ms},
		{"longer than time", admit.QueueConfig{MaxWait: 1<<63 - 1}, 0, waits, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, 1, admit.WithQueue(tt.queue))
				p := take(t, g)
				ctx, cancel := context.WithCancel(t.Context())
				if tt.timeout > 0 {
					ctx, cancel = context.WithTimeout(t.Context(), tt.timeout)
				}
				a := start(ctx, g, admit.Default)
				time.Sleep(time.Hour)
				wantState(t, "after an hour", a, tt.want)
				if a.took != tt.after {
					t.Errorf("waited: got %v, want %v", a.took, tt.after)
				}
				cancel()
				p.Release(admit.Ignored)
				synctest.Wait()
				wantWhole(t, g, 1)
			})
		})
	}
}

// A waiter's patience is its own, although waiters are used again.
func TestMaxWaitOfOneAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1)
		p := take(t, g)
		for i := range 20 {
			patience := time.Duration(i%5+1) * 10 * ms
			update(t, g, admit.WithQueue(admit.QueueConfig{MaxWait: patience}))
			served := start(t.Context(), g, admit.Default)
			time.Sleep(patience - 1)
			p.Release(admit.Ignored)
			synctest.Wait()
			wantState(t, "just in time", served, runs)
			p = &served.permit
			late := start(t.Context(), g, admit.Default)
			time.Sleep(patience)
			synctest.Wait()
			wantState(t, "just too late", late, tooLong)
		}
		p.Release(admit.Ignored)
		wantWhole(t, g, 1)
	})
}

// A call that cannot end in time is refused at once: before its turn comes the calls
// ahead of it, each of which frees the permit for the next, and then it takes at
// least as long as the fastest.
func TestDeadlineTooClose(t *testing.T) {
	for _, tt := range []struct {
		name    string
		class   admit.Class
		waiting int // of the default class
		timeout time.Duration
		want    string
	}{
		{"nobody waits, time for a call", admit.Default, 0, 101 * ms, waits},
		{"nobody waits, no time for a call", admit.Default, 0, 100 * ms, tooClose},
		{"three wait, time for all", admit.Default, 3, 401 * ms, waits},
		{"three wait, no time for all", admit.Default, 3, 399 * ms, tooClose},
		{"three wait, but a class below", admit.Critical, 3, 101 * ms, waits},
		{"three wait, a class above", admit.Background, 3, 399 * ms, tooClose},
		{"two wait, and no time for all", admit.Default, 2, 299 * ms, tooClose},
		{"two wait, and there is time", admit.Default, 2, 301 * ms, waits},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, 1, admit.WithQueue(admit.QueueConfig{Capacity: 6, MaxWait: time.Hour}))
				teachClass(t, g, tt.class, 100*ms)
				p := take(t, g)
				all, leave := context.WithCancel(t.Context())
				for range tt.waiting {
					start(all, g, admit.Default)
				}
				ctx, cancel := context.WithTimeout(all, tt.timeout)
				defer cancel()
				a := start(ctx, g, tt.class)
				wantState(t, "on arrival", a, tt.want)
				if a.took != 0 {
					t.Errorf("got an answer after %v, want it at once", a.took)
				}
				leave()
				synctest.Wait()
				p.Release(admit.Ignored)
				wantWhole(t, g, 1)
			})
		})
	}
}

// Permits come back at the limit divided by the latency.
func TestDeadlineTooCloseKnowsTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 4, queue(100, admit.Reject))
		permits := takeN(t, g, 3)
		teachClass(t, g, admit.Background, 100*ms) // a permit every 25 ms
		permits = append(permits, take(t, g))
		all, leave := context.WithCancel(t.Context())
		for range 8 {
			start(all, g, admit.Default)
		}
		for timeout, want := range map[time.Duration]string{299 * ms: tooClose, 301 * ms: waits} { // 8 * 25 + 100
			ctx, cancel := context.WithTimeout(all, timeout)
			defer cancel()
			a := start(ctx, g, admit.Background)
			wantState(t, timeout.String(), a, want)
			cancel()
			synctest.Wait()
		}
		leave()
		synctest.Wait()
		release(permits)
		wantWhole(t, g, 4)
	})
}

// Whoever cannot end in time any more when its turn comes is passed over.
func TestDeadlineTooCloseAtItsTurn(t *testing.T) {
	for _, tt := range []struct {
		handOver        time.Duration
		wantA, wantNext string
	}{
		{49 * ms, runs, waits},
		{50 * ms, tooClose, runs},
		{149 * ms, tooClose, runs},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, 1, queue(10, admit.Reject))
			teach(t, g, 100*ms)
			p := take(t, g)
			ctx, cancel := context.WithTimeout(t.Context(), 150*ms)
			defer cancel()
			a := start(ctx, g, admit.Default)
			next := start(t.Context(), g, admit.Default)
			time.Sleep(tt.handOver)
			p.Release(admit.Ignored)
			synctest.Wait()
			wantState(t, "handed over after "+tt.handOver.String()+", due at 150ms, takes 100ms", a, tt.wantA)
			wantState(t, "the next", next, tt.wantNext)
			a.permit.Release(admit.Ignored)
			synctest.Wait()
			next.permit.Release(admit.Ignored)
			wantWhole(t, g, 1)
		})
	}
}

// A gate that has seen no call end knows nothing, and lets everybody try.
func TestUnknownLatencyRefusesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(10, admit.Reject))
		p := take(t, g)
		ctx, cancel := context.WithTimeout(t.Context(), 1)
		defer cancel()
		a := start(ctx, g, admit.Default)
		wantState(t, "with a nanosecond left", a, waits)
		p.Release(admit.Ignored)
		synctest.Wait()
		wantState(t, "at its turn", a, runs)
		a.permit.Release(admit.Ignored)
		wantWhole(t, g, 1)
	})
}

// An Overload of a call that waited here for longer than it ran is our own doing.
func TestOverloadOfALongWaitIsIgnored(t *testing.T) {
	for _, tt := range []struct {
		waited, ran time.Duration
		ended, want admit.Outcome
	}{
		{0, 0, admit.Overload, admit.Overload},
		{50 * ms, 50 * ms, admit.Overload, admit.Overload},
		{50 * ms, 49 * ms, admit.Overload, admit.Ignored},
		{50 * ms, 49 * ms, admit.Success, admit.Success},
		{10 * ms, 500 * ms, admit.Overload, admit.Overload},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, 1)
			p := take(t, g)
			a := start(t.Context(), g, admit.Default)
			time.Sleep(tt.waited)
			p.Release(admit.Success)
			synctest.Wait()
			time.Sleep(tt.ran)
			a.permit.Release(tt.ended)
			want := [3]uint64{admit.Success: 1}
			want[tt.want]++
			if got := g.Stats().Ended; got != want {
				t.Errorf("waited %v, ran %v, %v: got ended %v, want %v", tt.waited, tt.ran, tt.ended, got, want)
			}
		})
	}
}

// The least that a background call waits behind 100 critical ones, at one permit each 2.5 ms:
// less if its class is owed one, or if those above it may have none.
func TestDeadlineTooCloseKnowsClasses(t *testing.T) {
	background := func(c admit.ClassConfig) admit.Option { return admit.WithClassConfig(admit.Background, c) }
	for _, tt := range []struct {
		name   string
		option admit.Option
		held   int           // permits of background calls
		least  time.Duration // that a call waits and takes
	}{
		{"one permit of 20", admit.WithDryRun(false), 0, 60 * ms},
		{"a share", background(admit.ClassConfig{Share: 0.5}), 1, 10 * ms},
		{"a share that is used up", background(admit.ClassConfig{Share: 0.5}), 2, 15 * ms},
		{"a bound for those above", admit.WithClassConfig(admit.Critical, admit.ClassConfig{Max: 0.25}), 0, 10 * ms},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, 4, queue(400, admit.Reject))
			permits := takeN(t, g, 3)
			teachClass(t, g, admit.Background, 10*ms)
			release(permits)
			update(t, g, tt.option)
			for range tt.held {
				start(t.Context(), g, admit.Background)
			}
			start(t.Context(), g, admit.Critical)
			takeN(t, g, 3-tt.held)
			for range 100 {
				start(t.Context(), g, admit.Critical)
			}
			for _, c := range []struct {
				timeout time.Duration
				want    string
			}{{tt.least - ms, tooClose}, {tt.least + ms, waits}} {
				ctx, cancel := context.WithTimeout(t.Context(), c.timeout)
				defer cancel()
				wantState(t, fmt.Sprintf("%s: a call with %v", tt.name, c.timeout), start(ctx, g, admit.Background), c.want)
			}
		})
	}
}

// A tenant that holds nothing is next where all that wait hold something: its deadline is not
// too close.
func TestDeadlineOfANewTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 40
		g := newGate(t, n, queue(200, admit.Reject))
		for range 3 { // it learns that calls take 100 ms
			permits := takeN(t, g, n)
			time.Sleep(100 * ms)
			for _, p := range permits {
				p.Release(admit.Success)
			}
		}
		for i := range 3 * n { // each of 20 holds two, and waits for four
			startCall(t.Context(), g, admit.Call{Tenant: strconv.Itoa(i % (n / 2))})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 150*ms)
		defer cancel()
		wantState(t, "a new tenant's call", startCall(ctx, g, admit.Call{Tenant: "new"}), waits)
		ctx, cancel = context.WithTimeout(t.Context(), 150*ms)
		defer cancel()
		wantState(t, "one more of a tenant with four", startCall(ctx, g, admit.Call{Tenant: "1"}), tooClose)
	})
}
