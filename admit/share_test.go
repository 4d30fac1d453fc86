package admit_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
)

func of(c admit.Class) func(*rand.Rand) admit.Call {
	return func(*rand.Rand) admit.Call { return admit.Call{Class: c} }
}

// A fifth of the calls matters most, and four times of what the server can do comes. The
// goroutines of a bubble run in another order each time, so the bounds are on the mean.
func TestCriticalCallsGoThrough(t *testing.T) {
	const seeds = 5
	critical, all := 0.0, 0.0
	for seed := range uint64(seeds) {
		got := compete(t, seed, nil, flow{0.8, of(admit.Critical)}, flow{3.2, of(admit.Default)})
		critical += got[0] / seeds
		all += (0.8*got[0] + 3.2*got[1]) / seeds
	}
	if critical < 0.99 {
		t.Errorf("critical calls in time, mean of %d runs: got %.4f, want at least 0.99", seeds, critical)
	}
	if all < 0.93 {
		t.Errorf("all, mean of %d runs: got %.3f of capacity, want at least 0.93", seeds, all)
	}
}

// The lowest class gets one permit of 20 and a few, however much the others want.
func TestTheLowestClassMakesProgress(t *testing.T) {
	got := compete(t, 1, nil, flow{3, of(admit.Critical)}, flow{3, of(admit.Default)}, flow{1, of(admit.Background)})
	for i, class := range []string{"critical", "default", "background"} {
		if capacity := got[i] * []float64{3, 3, 1}[i]; capacity < 0.02 {
			t.Errorf("%s calls: got %.4f of capacity, want at least 0.02", class, capacity)
		}
	}
	if got[0] < 0.25 { // of three times the capacity
		t.Errorf("critical calls: got %.3f of them in time, want most of the capacity", got[0])
	}
}

// Ten tenants: nine ask for four fifths of a tenth of what the server can do each, and one for
// ten times as much as each of them.
func TestAGreedyTenantHarmsItself(t *testing.T) {
	const polite, share, seeds = 9, 0.08, 8
	mean := 0.0
	for seed := range uint64(seeds) {
		got := compete(t, seed, nil,
			flow{polite * share, func(r *rand.Rand) admit.Call { return admit.Call{Tenant: strconv.Itoa(r.IntN(polite))} }},
			flow{10 * share, func(*rand.Rand) admit.Call { return admit.Call{Tenant: "greedy"} }})
		mean += got[0] / seeds
	}
	if mean < 0.97 {
		t.Errorf("the nine, mean of %d runs: got %.3f of what they asked for, want at least 0.97", seeds, mean)
	}
}

// Whose share is used up is told so; who meets a server that others have filled is not.
func TestOverShareIsTheGreedyOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 2, queue(4, admit.Reject))
		p := takeN(t, g, 2)
		calls := map[string]*call{}
		for i := range 4 {
			calls["g"+strconv.Itoa(i)] = startCall(t.Context(), g, admit.Call{Tenant: "greedy"})
		}
		polite := startCall(t.Context(), g, admit.Call{Tenant: "polite"})
		wantState(t, "the polite one", polite, waits)
		wantState(t, "the oldest of the greedy one's", calls["g0"], overShare)
		again := startCall(t.Context(), g, admit.Call{Tenant: "greedy"})
		wantState(t, "one more of the greedy one's", again, overShare)
		release(p)
		wantState(t, "the polite one, who has less", polite, runs)
	})
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(3, admit.Reject))
		take(t, g)
		for i := range 3 {
			startCall(t.Context(), g, admit.Call{Tenant: strconv.Itoa(i)})
		}
		wantState(t, "a fourth tenant's", startCall(t.Context(), g, admit.Call{Tenant: "3"}), full)
	})
}

const overShare = "admit: refused: over_share"

// Others may have a class's share while it does not want it; then it gets what comes free.
func TestAShareIsLentAndGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 4, queue(20, admit.Reject), admit.WithClassConfig(admit.Background, admit.ClassConfig{Share: 0.5}))
		borrowed := takeN(t, g, 4)
		var critical, background []*call
		for range 4 {
			critical = append(critical, start(t.Context(), g, admit.Critical))
			background = append(background, start(t.Context(), g, admit.Background))
		}
		for i := range 2 {
			borrowed[i].Release(admit.Ignored)
			wantState(t, "a background call within its share", background[i], runs)
		}
		borrowed[2].Release(admit.Ignored)
		wantState(t, "a background call beyond it", background[2], waits)
		wantState(t, "the critical one then", critical[0], runs)
		if s := g.Stats(); s.Held[admit.Background] != 2 || s.Held[admit.Critical] != 1 || s.Waiting[admit.Critical] != 3 {
			t.Errorf("got held %v, waiting %v; want 2 of background, 1 and 3 of critical", s.Held, s.Waiting)
		}
		background[0].permit.Release(admit.Ignored)
		wantState(t, "the next background call, for its share", background[2], runs)
	})
}

// A class that may have half of four permits leaves two free, even with nobody else there.
func TestABulkhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 4, queue(1, admit.Reject), admit.WithClassConfig(admit.Sheddable, admit.ClassConfig{Max: 0.5}))
		var calls []*call
		for range 4 {
			calls = append(calls, start(t.Context(), g, admit.Sheddable))
		}
		for i, want := range []string{runs, runs, waits, full} {
			wantState(t, fmt.Sprint("call ", i), calls[i], want)
		}
		wantState(t, "another class's", start(t.Context(), g, admit.Default), runs)
		calls[0].permit.Release(admit.Ignored)
		wantState(t, "the one that waited", calls[2], runs)
		update(t, g, admit.WithClassConfig(admit.Sheddable, admit.ClassConfig{}))
		wantState(t, "one without the bound", start(t.Context(), g, admit.Sheddable), runs)
	})
}

// A bound that rounds to nothing still lets one call run.
func TestABulkheadOfNearlyNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 2, admit.WithClassConfig(admit.Background, admit.ClassConfig{Max: 0.001}))
		first := startCall(t.Context(), g, admit.Call{Class: admit.Background, Cost: 2})
		wantState(t, "the first", first, runs)
		second := start(t.Context(), g, admit.Background)
		wantState(t, "the second", second, waits)
		first.permit.Release(admit.Ignored)
		wantState(t, "then", second, runs)
	})
}

// Classes of one's own, two of the same priority: who waits longer is first.
func TestClassesOfOnesOwn(t *testing.T) {
	const checkout, browse = admit.Class(4), admit.Class(5)
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(20, admit.Reject),
			admit.WithClassConfig(checkout, admit.ClassConfig{Name: "checkout", Priority: 1000}),
			admit.WithClassConfig(browse, admit.ClassConfig{Name: "browse"}))
		p, calls := take(t, g), map[string]*call{}
		for _, c := range []struct {
			name  string
			class admit.Class
		}{{"1", browse}, {"2", admit.Default}, {"3", browse}, {"4", admit.Critical}, {"5", checkout}, {"6", admit.Class(7)}, {"7", admit.Background}} {
			calls[c.name] = start(t.Context(), g, c.class)
		}
		if s := g.Stats(); s.Classes[checkout] != "checkout" || s.Waiting[admit.Background] != 2 {
			t.Errorf("got classes %v, waiting %v, want a name for 4 and an unknown class as background", s.Classes, s.Waiting)
		}
		if got, want := served(p, calls), "5412367"; got != want {
			t.Errorf("served: got %q, want %q", got, want)
		}
	})
}

func TestClassesAreChecked(t *testing.T) {
	_, err := admit.New(
		admit.WithClassConfig(8, admit.ClassConfig{Name: "too many"}),
		admit.WithClassConfig(4, admit.ClassConfig{}),
		admit.WithClassConfig(5, admit.ClassConfig{Name: "critical", Priority: -1, Share: 0.9}),
		admit.WithClassConfig(admit.Default, admit.ClassConfig{Share: 0.8, Max: 0.5}),
		admit.WithClassConfig(admit.Background, admit.ClassConfig{Share: -0.5, Priority: 1001}),
	)
	for _, want := range []string{
		"class: got 8, want less than 8",
		`class 4 (""): got no name`,
		`class 5 ("critical"): got the name of another class`,
		"got priority -1, want 1 to 1000",
		"got priority 1001, want 1 to 1000",
		"got max 0.5, want 0 (all) or from its share (0.8) to 1",
		"got share -0.5, want 0 to 1",
		"got shares of 1.2 together, want at most 1",
	} {
		wantError(t, err, admit.ErrConfig, want)
	}
}

// A call that costs four of five permits waits for them, and is not overtaken; one that costs
// more than there are takes them all.
func TestCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 5, queue(20, admit.Reject))
		p := takeN(t, g, 3)
		heavy := startCall(t.Context(), g, admit.Call{Cost: 4})
		light := startCall(t.Context(), g, admit.Call{Cost: 2})
		wantState(t, "the heavy one", heavy, waits)
		wantState(t, "the light one behind it, for which there is room", light, waits)
		p[0].Release(admit.Ignored)
		wantState(t, "the heavy one with 3 free", heavy, waits)
		p[1].Release(admit.Ignored)
		wantState(t, "the heavy one with 4 free", heavy, runs)
		p[2].Release(admit.Ignored)
		wantState(t, "the light one with 1 free", light, waits)
		heavy.permit.Release(admit.Ignored)
		wantState(t, "the light one", light, runs)
		giant := startCall(t.Context(), g, admit.Call{Cost: math.MaxInt})
		light.permit.Release(admit.Ignored)
		wantState(t, "one that costs more than there is", giant, runs)
		if s := g.Stats(); s.InFlight != 5 {
			t.Errorf("in flight: got %d, want all 5", s.InFlight)
		}
		giant.permit.Release(admit.Ignored)
		wantState(t, "one that costs less than nothing", startCall(t.Context(), g, admit.Call{Cost: -3}), runs)
		if s := g.Stats(); s.InFlight != 1 {
			t.Errorf("in flight: got %d, want 1", s.InFlight)
		}
	})
}

// When the heavy one at the head leaves, those behind it do not wait for it.
func TestTheHeavyOneLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 5)
		take(t, g)
		ctx, leave := context.WithCancel(t.Context())
		startCall(ctx, g, admit.Call{Cost: 5})
		light := startCall(t.Context(), g, admit.Call{})
		wantState(t, "the light one", light, waits)
		leave()
		wantState(t, "the light one then", light, runs)
	})
}

// What a limit learns of two calls of cost 2 is what it would of four.
func TestCostInAWindow(t *testing.T) {
	in := func(cost int) (got limit.Window) {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, 1, admit.WithLimit(&law{initial: 8, next: func(w limit.Window) int { got = w; return 8 }}))
			for range 10 {
				p, err := g.Acquire(t.Context(), admit.Call{Cost: cost})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * ms)
				p.Release(admit.Success)
			}
		})
		return got
	}
	if one, two := in(1), in(2); math.Abs(one.InFlight-1)+math.Abs(two.InFlight-2) > 1e-9 || two.MaxInFlight != 2 || two.MeanLatency.Round(time.Microsecond) != 10*ms || two.Succeeded != 10 {
		t.Errorf("windows: got %+v and %+v, want 1 and 2 in flight, and 10 calls of 10ms each", one, two)
	}
}

// Callers of a low class that come and go do not sweep calls of higher classes out of a queue.
func TestLowCallsThatLeaveDoNotDisplaceHighOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(16, admit.Reject))
		p := take(t, g)
		var critical []*call
		for range 16 {
			critical = append(critical, start(t.Context(), g, admit.Critical))
		}
		for range 100 {
			ctx, leave := context.WithCancel(t.Context())
			start(ctx, g, admit.Background)
			leave()
			synctest.Wait()
		}
		if got := g.Stats().Waiting[admit.Critical]; got != 16 {
			t.Errorf("critical calls that wait: got %d, want all 16", got)
		}
		p.Release(admit.Ignored)
		for i := range 60 { // others pass the background class
			synctest.Wait()
			critical[i].permit.Release(admit.Ignored)
			critical = append(critical, start(t.Context(), g, admit.Critical))
		}
		start(t.Context(), g, admit.Critical) // full again
		for range 100 {
			ctx, leave := context.WithCancel(t.Context())
			start(ctx, g, admit.Background)
			leave()
			synctest.Wait()
		}
		if got := g.Stats().Refused[admit.Critical][admit.Evicted]; got != 1 {
			t.Errorf("critical calls that made room: got %d, want the one", got)
		}
	})
}

// A million tenants leave nothing behind.
func TestTenantsThatAreGoneCostNothing(t *testing.T) {
	const tenants = 1_000_000 / slowdown
	g := newGate(t, 4)
	name := func(i int) string { return "tenant-with-a-rather-long-name-" + strconv.Itoa(i) }
	pass := func(from, to int) {
		for i := from; i < to; i++ {
			p, err := g.Acquire(t.Context(), admit.Call{Tenant: name(i)})
			if err != nil {
				t.Fatal(err)
			}
			p.Release(admit.Success)
		}
	}
	pass(0, 1000)
	before, _ := memory()
	pass(0, tenants)
	after, _ := memory()
	if got := after - before; got > 64<<10 {
		t.Errorf("heap after %d tenants: got %d bytes more, want none but noise", tenants, got)
	}
	if s := g.Stats(); s.Tenants != 0 {
		t.Errorf("tenants known: got %d, want none", s.Tenants)
	}
	runtime.KeepAlive(g)
}

// An attacker with a name for every call has the share of all those names, but no memory: what
// waits is the queue's capacity, and calls of a higher class are not touched.
func TestAnExplosionOfTenants(t *testing.T) {
	n := 0
	got := compete(t, 5, nil,
		flow{0.5, of(admit.Critical)},
		flow{6, func(*rand.Rand) admit.Call { n++; return admit.Call{Tenant: strconv.Itoa(n)} }})
	if got[0] < 0.99 {
		t.Errorf("critical calls: got %.3f in time, want at least 0.99", got[0])
	}
}

func TestTenantsAndClassesAllocateNothing(t *testing.T) {
	g := newGate(t, 100, admit.WithClassConfig(admit.Critical, admit.ClassConfig{Share: 0.5}))
	names := make([]string, 100)
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	i := 0
	if got := testing.AllocsPerRun(10_000, func() {
		i++
		p, err := g.Acquire(t.Context(), admit.Call{Class: admit.Class(i % 4), Tenant: names[i%len(names)]})
		if err != nil {
			t.Fatal(err)
		}
		p.Release(admit.Success)
	}); got != 0 {
		t.Errorf("allocations of a call: got %v, want none", got)
	}
}

// A class that wants less than its share gets it, however much comes of a higher one.
func TestAShareUnderAFlood(t *testing.T) {
	got := compete(t, 1, []admit.Option{admit.WithClassConfig(admit.Background, admit.ClassConfig{Share: 0.5})},
		flow{4, of(admit.Critical)}, flow{0.4, of(admit.Background)})
	if got[1] < 0.95 {
		t.Errorf("background, which asks for 0.4 of capacity and has a share of 0.5: got %.3f of it, want at least 0.95", got[1])
	}
}

// A full queue has room for calls of a class that has not its share, and keeps them.
func TestAShareOfAFullQueue(t *testing.T) {
	half := admit.WithClassConfig(admit.Background, admit.ClassConfig{Share: 0.5})
	for _, capacity := range []int{1, 8, 32} {
		t.Run(fmt.Sprint(capacity), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, 4, queue(capacity, admit.Reject), half)
				p := takeN(t, g, 4)
				for range capacity {
					start(t.Context(), g, admit.Critical)
				}
				late := start(t.Context(), g, admit.Background)
				wantState(t, "background after the critical calls", late, waits)
				release(p)
				wantState(t, "then", late, runs)
			})
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, 4, queue(capacity, admit.Reject), half)
				defer release(takeN(t, g, 4))
				early := start(t.Context(), g, admit.Background)
				for range capacity {
					start(t.Context(), g, admit.Critical)
				}
				wantState(t, "background before them", early, waits)
				update(t, g, queue(1, admit.Reject))
				wantState(t, "in a smaller queue", early, waits)
			})
		})
	}
}

// When all who wait are owed their share, priority decides.
func TestSharesThatDoNotFitTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		half := admit.ClassConfig{Share: 0.5}
		g := newGate(t, 4, queue(1, admit.Reject), admit.WithClassConfig(admit.Critical, half), admit.WithClassConfig(admit.Background, half))
		defer release(takeN(t, g, 4))
		background := start(t.Context(), g, admit.Background)
		critical := start(t.Context(), g, admit.Critical)
		wantState(t, "critical", critical, waits)
		wantState(t, "background, which came before", background, evicted)
		wantState(t, "background, after", start(t.Context(), g, admit.Background), full)
	})
}

// A hundredth of one permit is none.
func TestATinyShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(100, admit.Reject), admit.WithClassConfig(admit.Background, admit.ClassConfig{Share: 0.01}))
		p, calls := take(t, g), map[string]*call{}
		for range 3 {
			calls["b"] = start(t.Context(), g, admit.Background)
			calls["c"] = start(t.Context(), g, admit.Critical)
		}
		p.Release(admit.Ignored)
		if synctest.Wait(); g.Stats().Waiting[admit.Critical] != 2 || g.Stats().Waiting[admit.Background] != 3 {
			t.Errorf("waiting: got %v, want a critical call to have got the permit", g.Stats().Waiting)
		}
	})
}

// A call that costs more than its class's share is one of the share all the same.
func TestCostBeyondAShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 8, queue(60, admit.Reject), admit.WithClassConfig(admit.Background, admit.ClassConfig{Share: 0.5}))
		p := takeN(t, g, 8)
		heavy := startCall(t.Context(), g, admit.Call{Class: admit.Background, Cost: 5})
		for range 50 {
			start(t.Context(), g, admit.Critical)
		}
		release(p)
		wantState(t, "a call of cost 5, of a class that has 0 of 4", heavy, runs)
	})
}

// What a call weighs that costs more than there is, is what there is.
func TestWeightOfAGiant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 2, queue(4, admit.Reject))
		takeN(t, g, 2)
		giant := startCall(t.Context(), g, admit.Call{Tenant: "one", Cost: 1000})
		for range 4 {
			startCall(t.Context(), g, admit.Call{Tenant: "two"})
		}
		wantState(t, "the one call of one: it takes 2 at the most, two's take 4", giant, waits)
	})
}

// Calls that wait for their own bound leave room in the queue for others.
func TestABulkheadInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 4, queue(4, admit.Reject), admit.WithClassConfig(admit.Critical, admit.ClassConfig{Max: 0.5}))
		var critical []*call
		for range 5 {
			critical = append(critical, start(t.Context(), g, admit.Critical))
		}
		for i, want := range []string{runs, runs, waits, waits, full} {
			wantState(t, fmt.Sprint("critical call ", i), critical[i], want)
		}
		defer release(takeN(t, g, 2))
		wantState(t, "default", start(t.Context(), g, admit.Default), waits)
		update(t, g, admit.WithClassConfig(admit.Critical, admit.ClassConfig{Max: 0.25}))
		wantState(t, "critical call 2, with a smaller bound", critical[2], evicted)
		wantState(t, "critical call 3", critical[3], waits)
	})
}

// Nobody's call is urgent to others that waits for its own class.
func TestUrgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 4, admit.WithClassConfig(admit.Critical, admit.ClassConfig{Max: 0.25}))
		want := func(what string, class admit.Class, urgent bool) {
			t.Helper()
			if c, ok := gateFuncs.Urgent(g); c != class || ok != urgent {
				t.Errorf("%s: got %v, %v; want %v, %v", what, c, ok, class, urgent)
			}
		}
		want("nobody waits", 0, false)
		start(t.Context(), g, admit.Critical)
		start(t.Context(), g, admit.Critical)
		want("critical waits for its own bound", 0, false)
		defer release(takeN(t, g, 3))
		start(t.Context(), g, admit.Sheddable)
		want("sheddable waits for anybody's permit", admit.Sheddable, true)
		update(t, g, admit.WithClassConfig(admit.Critical, admit.ClassConfig{}))
		want("critical has no bound", admit.Critical, true)
	})
}

// Whoever asks for a class's zero priority gets what it is from the start.
func TestClassesAreReplaced(t *testing.T) {
	g := newGate(t, 1, admit.WithClassConfig(admit.Background, admit.ClassConfig{Name: "bg", Priority: 900}),
		admit.WithClassConfig(4, admit.ClassConfig{Name: "reports"}))
	higher := func(a, b, want admit.Class) {
		t.Helper()
		if got := gateFuncs.Higher(g, a, b); got != want {
			t.Errorf("the higher of %v and %v: got %v, want %v", a, b, got, want)
		}
	}
	higher(admit.Critical, admit.Background, admit.Background)
	higher(4, admit.Sheddable, 4)
	update(t, g, admit.WithClassConfig(admit.Background, admit.ClassConfig{}), admit.WithClassConfig(admit.Default, admit.ClassConfig{Priority: 150}))
	higher(admit.Critical, admit.Background, admit.Critical)
	higher(4, admit.Sheddable, admit.Sheddable)
	if got := g.Stats().Classes; got[admit.Background] != "background" {
		t.Errorf("names: got %v, want background as from the start", got)
	}
}

// A class whose calls cost more than its share has it on the mean, and not more: each of its
// calls takes the whole gate, and so it gets few.
func TestAShareOfDearCalls(t *testing.T) {
	for _, cost := range []int{1, 5, 10} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, 10, queue(2000, admit.Reject), admit.WithClassConfig(admit.Background, admit.ClassConfig{Share: 0.1}))
			first := takeN(t, g, 10)
			compete := func(n int, c admit.Call) {
				for range n {
					go func() {
						p, err := g.Acquire(t.Context(), c)
						if err != nil {
							return // the queue's end
						}
						time.Sleep(10 * ms)
						p.Release(admit.Ignored)
					}()
				}
			}
			compete(1500, admit.Call{Class: admit.Critical})
			compete(300/cost, admit.Call{Class: admit.Background, Cost: cost})
			synctest.Wait()
			release(first)
			held, background := 0, 0
			for s := g.Stats(); s.Waiting[admit.Critical] > 0 && s.Waiting[admit.Background] > 0; s = g.Stats() {
				held += s.InFlight
				background += s.Held[admit.Background]
				time.Sleep(ms)
			}
			if share := float64(background) / float64(held); share < 0.08 || share > 0.13 {
				t.Errorf("cost %d: got %.3f of the permits for a class with a share of 0.1, want about that", cost, share)
			}
			time.Sleep(time.Minute)
		})
	}
}

// Classes of the same priority make room, and get permits, as if they were one.
func TestClassesOfOnePriority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(4, admit.Reject), admit.WithClassConfig(4, admit.ClassConfig{Name: "reports"}))
		defer take(t, g).Release(admit.Ignored)
		oldest := start(t.Context(), g, admit.Default)
		start(t.Context(), g, admit.Default)
		younger := start(t.Context(), g, 4)
		start(t.Context(), g, 4)
		wantState(t, "one more", start(t.Context(), g, admit.Default), full)
		wantState(t, "a critical one", start(t.Context(), g, admit.Critical), waits)
		wantState(t, "the oldest", oldest, evicted)
		wantState(t, "one that is younger", younger, waits)
	})
	got := compete(t, 1, []admit.Option{admit.WithClassConfig(4, admit.ClassConfig{Name: "reports"})}, flow{2, of(admit.Default)}, flow{2, of(4)})
	if got[1] < 0.8*got[0] || got[0] < 0.8*got[1] {
		t.Errorf("two classes that ask for the same: got %.3f of it and %.3f, want about the same", got[0], got[1])
	}
}

// A class at its bound does not press the limit: permits are free.
func TestABulkheadDoesNotPressTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, admit.WithLimit(&law{initial: 8, next: func(w limit.Window) int {
			if w.Pressed > 0 || w.Arrived != w.Completed() {
				t.Errorf("window: got %+v, want none of its calls pressed, and all of them arrived", w)
			}
			return 8
		}}), queue(16, admit.Block), admit.WithClassConfig(admit.Sheddable, admit.ClassConfig{Max: 0.25}))
		for range 100 {
			go func() {
				p, err := g.Acquire(t.Context(), admit.Call{Class: admit.Sheddable})
				if err != nil {
					return // the test is over
				}
				time.Sleep(5 * ms)
				p.Release(admit.Success)
			}()
		}
		time.Sleep(time.Second)
	})
}

// An adaptive limit follows the server also where only a class with a bound is there.
func TestTheLimitBehindABulkhead(t *testing.T) {
	run := func(class admit.Class) (limit int) {
		synctest.Test(t, func(t *testing.T) {
			g, err := admit.New(admit.WithClassConfig(admit.Sheddable, admit.ClassConfig{Max: 0.5}))
			if err != nil {
				t.Fatal(err)
			}
			workers := make(chan struct{}, 2)
			ctx, stop := context.WithCancel(t.Context())
			for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(ms) { // 2.5 times what it can do
				go func() {
					p, err := g.Acquire(ctx, admit.Call{Class: class})
					if err != nil {
						return // refused
					}
					workers <- struct{}{}
					time.Sleep(5 * ms)
					<-workers
					p.Release(admit.Success)
				}()
			}
			limit = g.Stats().Limit
			stop()
			time.Sleep(5 * time.Second)
		})
		return limit
	}
	if free, bounded := run(admit.Default), run(admit.Sheddable); bounded > 4*free {
		t.Errorf("limit of a server with two workers: got %d behind a bound of a half, and %d without, want at most 4 times as many", bounded, free)
	}
}

// Tenants share permits, whatever their calls cost.
func TestTenantsWithDearCalls(t *testing.T) {
	for _, costs := range [][]int{{1, 10}, {1, 1, 1, 10}, {3, 10}, {1, 4}} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, 10, queue(200, admit.Block))
			ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
			defer stop()
			used := make([]atomic.Int64, len(costs))
			var callers sync.WaitGroup
			for i, cost := range costs {
				for range 30 { // wait for all that there is
					callers.Go(func() {
						for {
							p, err := g.Acquire(ctx, admit.Call{Tenant: strconv.Itoa(i), Cost: cost})
							if err != nil {
								return // the test is over
							}
							time.Sleep(10 * ms)
							used[i].Add(int64(cost))
							p.Release(admit.Ignored)
						}
					})
				}
			}
			callers.Wait()
			least, most := used[0].Load(), used[0].Load()
			for i := range used {
				least, most = min(least, used[i].Load()), max(most, used[i].Load())
			}
			t.Log(costs, least, most)
			if 4*least < 3*most {
				t.Errorf("tenants with calls of %v: got %d permits for one and %d for another, want about the same", costs, least, most)
			}
		})
	}
}
