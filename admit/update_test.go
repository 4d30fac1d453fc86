package admit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
)

func TestUpdateRaisesTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(5, admit.Reject))
		p := take(t, g)
		var calls []*call
		for range 5 {
			calls = append(calls, start(t.Context(), g, admit.Default))
		}
		time.Sleep(10 * ms)
		update(t, g, fixed(t, 4))
		synctest.Wait()
		for i, want := range []string{runs, runs, runs, waits, waits} {
			wantState(t, fmt.Sprintf("waiter %d with a limit of 4", i), calls[i], want)
		}
		if s := g.Stats(); s.InFlight != 4 || s.Queue != 2 || s.WaitSeconds != 0.03 {
			t.Errorf("got %d in flight, %d waiting, waited for %v s, want 4, 2, 0.03", s.InFlight, s.Queue, s.WaitSeconds)
		}
		p.Release(admit.Ignored)
		update(t, g, fixed(t, 100))
		synctest.Wait()
		for i, a := range calls {
			wantState(t, fmt.Sprintf("waiter %d with a limit of 100", i), a, runs)
			a.permit.Release(admit.Ignored)
		}
		wantWhole(t, g, 100)
	})
}

func TestUpdateLowersTheLimitBelowWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 10, queue(1, admit.Reject))
		permits := takeN(t, g, 10)
		update(t, g, fixed(t, 3))
		if s := g.Stats(); s.Limit != 3 || s.InFlight != 10 {
			t.Errorf("just after: got limit %d, in flight %d, want 3, 10", s.Limit, s.InFlight)
		}
		next := start(t.Context(), g, admit.Default)
		for i, p := range permits {
			if i < 7 {
				wantState(t, fmt.Sprintf("with %d in flight", 10-i), next, waits)
				refused(t, g, admit.Default, admit.QueueFull)
			}
			p.Release(admit.Ignored)
			synctest.Wait()
			want := 10 - 1 - i
			if i >= 7 { // the waiter has got the eighth
				want++
				wantState(t, fmt.Sprintf("with %d in flight", want), next, runs)
			}
			if got := g.Stats().InFlight; got != want {
				t.Errorf("in flight after %d were released: got %d, want %d", i+1, got, want)
			}
		}
		next.permit.Release(admit.Ignored)
		wantWhole(t, g, 3)
	})
}

func TestUpdateShortensTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(10, admit.Reject))
		p := take(t, g)
		calls := map[string]*call{}
		for name, class := range map[string]admit.Class{"c": admit.Critical, "b": admit.Background} {
			for i := range 3 {
				calls[name+fmt.Sprint(i)] = start(t.Context(), g, class)
			}
		}
		want := func(what, gone string) {
			t.Helper()
			synctest.Wait()
			for name, a := range calls {
				state := waits
				if strings.Contains(gone, name) {
					state = evicted
				}
				wantState(t, name+what, a, state)
			}
		}
		update(t, g, queue(6, admit.Reject))
		want(" with room for all", "")
		update(t, g, queue(4, admit.Reject))
		want(" with room for four", "b0 b1")
		update(t, g, queue(2, admit.Reject))
		want(" with room for two", "b0 b1 b2 c0")
		update(t, g, admit.WithoutQueue())
		want(" without a queue", "b0 b1 b2 c0 c1 c2")
		p.Release(admit.Ignored)
		wantWhole(t, g, 1)
	})
}

// A lower limit does not shorten a queue, a smaller capacity does; with Block nobody has
// to go, until the policy changes.
func TestUpdateShortensTheQueueByItsPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 100)
		permits := takeN(t, g, 100)
		all, leave := context.WithCancel(t.Context())
		for range 100 {
			start(all, g, admit.Default)
		}
		for _, tt := range []struct {
			what string
			opts []admit.Option
			want int
		}{
			{"limit 1", []admit.Option{fixed(t, 1)}, 100},
			{"capacity 50", []admit.Option{queue(50, admit.Reject)}, 50},
			{"Block", []admit.Option{queue(5, admit.Block)}, 50},
			{"Reject", []admit.Option{queue(5, admit.Reject)}, 5},
		} {
			update(t, g, tt.opts...)
			synctest.Wait()
			if got := g.Stats().Queue; got != tt.want {
				t.Errorf("waiting after %s: got %d, want %d", tt.what, got, tt.want)
			}
		}
		leave()
		synctest.Wait()
		release(permits)
		wantWhole(t, g, 1)
	})
}

func TestUpdateKeepsTheRest(t *testing.T) {
	var r record
	g := newGate(t, 5, admit.WithName("kept"), queue(7, admit.Reject), admit.WithHooks(r.hooks()))
	want := admit.Stats{Name: "kept", Limit: 5, QueueCapacity: 7, MaxWait: time.Second, Classes: classNames}
	check := func(what string) {
		t.Helper()
		if got := g.Stats(); got != want {
			t.Errorf("after %s: got %+v, want %+v", what, got, want)
		}
	}
	update(t, g)
	check("nothing")
	update(t, g, fixed(t, 6))
	want.Limit = 6
	check("a limit")
	update(t, g, queue(8, admit.Reject))
	want.QueueCapacity = 8
	check("a queue")
	update(t, g, admit.WithDryRun(true))
	want.DryRun = true
	check("a dry run")
	update(t, g, admit.WithDryRun(false), admit.WithName("kept"), admit.WithoutQueue())
	want.DryRun, want.QueueCapacity, want.MaxWait = false, 0, 0
	check("the same name and no queue")
	r.take()
	permits := takeN(t, g, 6)
	refused(t, g, admit.Default, admit.QueueFull)
	if got, want := r.take(), "default refused queue_full 0s"; got != want {
		t.Errorf("hooks after all updates: got %q, want %q", got, want)
	}
	release(permits)
}

func TestUpdateThatIsWrongChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(3, admit.Reject))
		p := take(t, g)
		waiter := start(t.Context(), g, admit.Default)
		before := g.Stats()
		err := g.Update(fixed(t, 50), admit.WithDryRun(true), admit.WithHooks(admit.Hooks{}),
			admit.WithQueue(admit.QueueConfig{Capacity: -1, MaxWait: -2}))
		if !errors.Is(err, admit.ErrConfig) {
			t.Errorf("Update: got %v, want an error that wraps ErrConfig", err)
		}
		for _, want := range []string{"capacity: got -1", "MaxWait: got -2ns"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Update: got %v, want it to say %q", err, want)
			}
		}
		synctest.Wait()
		if got := g.Stats(); got != before {
			t.Errorf("after a wrong update: got %+v, want %+v as before", got, before)
		}
		wantState(t, "the waiter", waiter, waits)
		p.Release(admit.Ignored)
		synctest.Wait()
		waiter.permit.Release(admit.Ignored)
		wantWhole(t, g, 1)
	})
}

func TestUpdateCannotRename(t *testing.T) {
	g := newGate(t, 2, admit.WithName("old"))
	for _, opts := range [][]admit.Option{
		{admit.WithName("new")},
		{admit.WithName("new"), fixed(t, 3)},
		{admit.WithName("new"), admit.WithQueue(admit.QueueConfig{Capacity: -1})},
	} {
		err := g.Update(opts...)
		if !errors.Is(err, admit.ErrConfig) || !strings.Contains(err.Error(), `got "new", want "old"`) {
			t.Errorf("Update: got error %v, want one that wraps ErrConfig and names both", err)
		}
		if s := g.Stats(); s.Name != "old" || s.Limit != 2 || g.Name() != "old" {
			t.Errorf("after it: got name %q, limit %d, want old, 2", s.Name, s.Limit)
		}
	}
}

// A thousand updates a second, for ten seconds, on a gate that is overloaded: at no
// moment is more in flight than the largest limit, and no permit is lost.
func TestUpdateAThousandTimesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const highest, seconds = 16, 10
		g := newGate(t, highest, queue(8, admit.Reject))
		var all sync.WaitGroup
		var running, most, served atomic.Int64
		stop := time.Now().Add(seconds * time.Second)
		for range 40 {
			all.Go(func() {
				for time.Now().Before(stop) {
					p, err := g.Acquire(t.Context(), admit.Call{Class: admit.Class(rand.IntN(4))})
					if err == nil {
						served.Add(1)
						if n := running.Add(1); n > most.Load() {
							most.Store(n)
						}
						time.Sleep(time.Duration(rand.IntN(3_000)) * time.Microsecond)
						running.Add(-1)
						p.Release(admit.Success)
					} else {
						time.Sleep(time.Duration(rand.IntN(3_000)) * time.Microsecond)
					}
				}
			})
		}
		for updates := range 1000 * seconds {
			n := 1 + rand.IntN(highest)
			update(t, g, fixed(t, n), queue(rand.IntN(20), admit.Policy(updates%2)))
			synctest.Wait()
			if s := g.Stats(); s.Limit != n || s.InFlight > highest || s.Queue > 0 && s.InFlight < n {
				t.Fatalf("update %d: got limit %d, in flight %d, queue %d, want limit %d and nobody waiting below it",
					updates, s.Limit, s.InFlight, s.Queue, n)
			}
			time.Sleep(time.Millisecond)
		}
		all.Wait()
		if most.Load() > highest || served.Load() < 1000*seconds {
			t.Errorf("got %d at once and %d served, want at most %d and at least %d",
				most.Load(), served.Load(), highest, 1000*seconds)
		}
		update(t, g, fixed(t, highest))
		wantWhole(t, g, highest)
	})
}

// The same on real cores, as fast as they can.
func TestUpdateWhileCallsRun(t *testing.T) {
	const highest, callers, calls = 8, 6, 60_000 / slowdown
	g := newGate(t, highest, queue(4, admit.Reject))
	var running, most atomic.Int64
	var over atomic.Bool
	var all, updaters sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range calls {
				p, err := g.Acquire(t.Context(), admit.Call{Class: admit.Class(rand.IntN(4))})
				if err != nil {
					continue
				}
				if n := running.Add(1); n > most.Load() {
					most.Store(n)
				}
				spin(rand.IntN(3))
				running.Add(-1)
				p.Release(admit.Success)
			}
		})
	}
	updates := 0
	updaters.Go(func() {
		for ; !over.Load(); updates++ {
			update(t, g, fixed(t, 1+rand.IntN(highest)), queue(1+rand.IntN(4), admit.Policy(rand.IntN(2))))
			spin(5)
		}
	})
	all.Wait()
	over.Store(true)
	updaters.Wait()
	s := g.Stats()
	if most.Load() > highest || updates == 0 {
		t.Errorf("got %d at once in %d updates, want at most %d in some", most.Load(), updates, highest)
	}
	if got, want := accounted(s), callers*calls; got != want {
		t.Errorf("calls accounted for: got %d, want %d: %+v", got, want, s)
	}
	update(t, g, fixed(t, highest))
	wantWhole(t, g, highest)
}
