package admit_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-go/weir/admit"
)

func each(perSecond float64, burst int) admit.Option {
	return admit.WithQuotas(admit.QuotaConfig{Tenant: admit.Rate{PerSecond: perSecond, Burst: burst}})
}

func ofClass(c admit.Class, perSecond float64, burst int) admit.Option {
	return admit.WithQuotas(admit.QuotaConfig{Classes: map[admit.Class]admit.Rate{c: {PerSecond: perSecond, Burst: burst}}})
}

// places is a queue for so many.
func places(n int) admit.Option {
	return admit.WithQueue(admit.QueueConfig{Capacity: n, Policy: admit.Reject})
}

// passes makes a call that must get a permit, and ends it.
func passes(t *testing.T, g *admit.Gate, c admit.Call) {
	t.Helper()
	p, err := g.Acquire(t.Context(), c)
	if err != nil {
		t.Fatalf("%+v: got %v, want a permit", c, err)
	}
	p.Release(admit.Success)
}

// overQuota makes a call that must be refused, for so long.
func overQuota(t *testing.T, g *admit.Gate, c admit.Call, want time.Duration) {
	t.Helper()
	_, err := g.Acquire(t.Context(), c)
	if r := isRefusal(t, err, admit.OverQuota); r.RetryAfter != want {
		t.Fatalf("%+v: got a delay of %v, want %v", c, r.RetryAfter, want)
	} else if r.Gate != g.Name() {
		t.Fatalf("%+v: got a refusal of gate %q, want %q", c, r.Gate, g.Name())
	}
}

// The delay of a quota is exact: the longest delay of the gate's other refusals does not
// shorten it.
func TestQuotaDelaysAreNotShortened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 100, each(0.1, 1), admit.WithName("slow"), admit.WithMaxRetryAfter(10*ms))
		c := admit.Call{Tenant: "a"}
		passes(t, g, c)
		overQuota(t, g, c, 10*time.Second)
	})
}

// A document sets the longest delay, and leaves it alone if it does not name it.
func TestFromJSONMaxRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateThatIsFull(t, fromJSON(t, `{"max_retry_after": "25ms"}`))
		longest := func() time.Duration {
			ds, _ := delays(t, func() *admit.Refusal { return refused(t, g, admit.Default, admit.QueueFull) })
			return ds[len(ds)-1]
		}
		if got := longest(); got > 25*ms || got < 20*ms {
			t.Errorf("got a longest delay of %v, want nearly 25ms", got)
		}
		update(t, g, fromJSON(t, `{"dry_run": false}`))
		if got := longest(); got > 25*ms {
			t.Errorf("after a document without it: got a longest delay of %v, want 25ms still", got)
		}
		update(t, g, fromJSON(t, `{"max_retry_after": "40ms"}`))
		if got := longest(); got > 40*ms || got <= 25*ms {
			t.Errorf("after a change: got a longest delay of %v, want nearly 40ms", got)
		}
	})
}

func TestQuotaOfATenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 100, each(10, 3))
		a, b := admit.Call{Tenant: "a"}, admit.Call{Tenant: "b", Class: admit.Critical}
		for range 3 {
			passes(t, g, a)
		}
		overQuota(t, g, a, 100*ms)
		passes(t, g, b)
		for range 9 {
			passes(t, g, admit.Call{}) // nobody's
		}
		time.Sleep(40 * ms)
		overQuota(t, g, a, 60*ms)
		time.Sleep(60*ms - time.Microsecond)
		overQuota(t, g, a, ms) // a millisecond is the least that a client can be told
		time.Sleep(time.Microsecond)
		passes(t, g, a)
		overQuota(t, g, a, 100*ms)
		if s := g.Stats(); s.Refused[admit.Default][admit.OverQuota] != 4 || s.InFlight != 0 || s.QuotaTenants != 2 {
			t.Errorf("got %+v, want 4 refused over their quota, none in flight, two tenants", s)
		}
	})
}

// Whoever comes back after the delay is let in, and not a millisecond earlier.
func TestQuotaDelayIsExact(t *testing.T) {
	for _, perSecond := range []float64{1e6, 1000, 7, 3, 1, 0.3, 1.0 / 3600} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, 1, ofClass(admit.Default, perSecond, 1))
			for range 50 {
				passes(t, g, admit.Call{})
				_, err := g.Acquire(t.Context(), admit.Call{})
				delay := isRefusal(t, err, admit.OverQuota).RetryAfter
				exact := time.Duration(float64(time.Second) / perSecond)
				if delay < exact || delay > exact+time.Millisecond+1 {
					t.Fatalf("%v a second: got %v, want %v, rounded up to a millisecond", perSecond, delay, exact)
				}
				if delay > time.Millisecond {
					time.Sleep(delay - time.Millisecond)
					_, err = g.Acquire(t.Context(), admit.Call{})
					isRefusal(t, err, admit.OverQuota)
					time.Sleep(time.Millisecond)
				} else {
					time.Sleep(delay)
				}
			}
		})
	}
}

func TestQuotaOfAClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 100, ofClass(admit.Background, 2, 0))
		background := admit.Call{Class: admit.Background}
		passes(t, g, background)
		passes(t, g, admit.Call{Class: 7, Tenant: "x"}) // no such class: it counts as Background
		overQuota(t, g, background, 500*ms)
		for range 9 {
			passes(t, g, admit.Call{})
		}
		// A call has to fit into both quotas, and takes from neither if it does not.
		update(t, g, admit.WithQuotas(admit.QuotaConfig{
			Classes: map[admit.Class]admit.Rate{admit.Background: {PerSecond: 2}},
			Tenant:  admit.Rate{PerSecond: 1},
		}))
		overQuota(t, g, admit.Call{Class: admit.Background, Tenant: "a"}, 500*ms)
		passes(t, g, admit.Call{Tenant: "a"})
		overQuota(t, g, admit.Call{Class: admit.Background, Tenant: "a"}, time.Second)
		time.Sleep(500 * ms)
		overQuota(t, g, admit.Call{Class: admit.Background, Tenant: "a"}, 500*ms)
		passes(t, g, background)
	})
}

func TestQuotaCountsCosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 5, each(10, 10))
		call := func(cost int) admit.Call { return admit.Call{Tenant: "a", Cost: cost} }
		passes(t, g, call(7)) // more than the limit, where it takes all
		overQuota(t, g, call(4), 100*ms)
		passes(t, g, call(3))
		overQuota(t, g, call(-5), 100*ms)
		overQuota(t, g, call(math.MaxInt), time.Second) // all of the burst
		time.Sleep(time.Second)
		passes(t, g, call(math.MaxInt))
		overQuota(t, g, call(1), 100*ms)
	})
}

// A call that the gate does not let in costs nothing, and one over its quota takes no
// place in the queue and makes nobody leave it.
func TestQuotaAndQueue(t *testing.T) {
	for name, end := range map[string]func(*admit.Gate, context.CancelFunc){
		"canceled": func(_ *admit.Gate, cancel context.CancelFunc) { cancel() },
		"evicted":  func(g *admit.Gate, _ context.CancelFunc) { _ = g.Update(admit.WithoutQueue()) },
		"too long": func(*admit.Gate, context.CancelFunc) { time.Sleep(time.Second) },
		"draining": func(g *admit.Gate, _ context.CancelFunc) { g.Drain() },
	} {
		synctest.Test(t, func(t *testing.T) {
			var r record
			g := newGate(t, 1, each(0.001, 2), places(1), admit.WithHooks(r.hooks()))
			holder := take(t, g)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			waiting := startCall(ctx, g, admit.Call{Tenant: "a", Cost: 2})
			wantState(t, name, waiting, waits)
			_, err := g.Acquire(t.Context(), admit.Call{Tenant: "a"})
			isRefusal(t, err, admit.OverQuota)
			wantState(t, name+", when another was over its quota", waiting, waits)
			end(g, cancel)
			synctest.Wait()
			if s := g.Stats(); s.Queue != 0 || waiting.err == nil {
				t.Fatalf("%s: got %+v, want the waiting call gone with an error", name, s)
			}
			holder.Release(admit.Ignored)
			if name == "draining" {
				refused(t, g, admit.Default, admit.Draining)
				return
			}
			passes(t, g, admit.Call{Tenant: "a", Cost: 2})
			_, err = g.Acquire(t.Context(), admit.Call{Tenant: "a"})
			isRefusal(t, err, admit.OverQuota)
		})
	}
}

// A call that is refused at once, or whose context has ended, costs nothing either.
func TestQuotaOfWhatIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, each(0.001, 1), admit.WithoutQueue())
		holder := take(t, g)
		for range 5 {
			_, err := g.Acquire(t.Context(), admit.Call{Tenant: "a"})
			isRefusal(t, err, admit.QueueFull)
		}
		done, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := g.Acquire(done, admit.Call{Tenant: "a"}); err != context.Canceled {
			t.Errorf("got %v, want context.Canceled", err)
		}
		holder.Release(admit.Ignored)
		passes(t, g, admit.Call{Tenant: "a"})
		_, err := g.Acquire(t.Context(), admit.Call{Tenant: "a"})
		isRefusal(t, err, admit.OverQuota)
		g.Drain()
		_, err = g.Acquire(t.Context(), admit.Call{Tenant: "a"}) // another server may take it
		isRefusal(t, err, admit.Draining)
	})
}

// A hook that ends the goroutine frees the permit, and gives the tokens back.
func TestQuotaAndGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := true
		g := newGate(t, 1, each(0.001, 1), admit.WithHooks(admit.Hooks{Waited: func(context.Context, admit.Call, time.Duration) {
			if ends {
				runtime.Goexit()
			}
		}}))
		holder := take(t, g)
		startCall(t.Context(), g, admit.Call{Tenant: "a"})
		holder.Release(admit.Ignored)
		synctest.Wait()
		ends = false
		passes(t, g, admit.Call{Tenant: "a"})
	})
}

// Calls that wait and leave are no way to more than the quota.
func TestQuotaIsNotDoubledByLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, each(10, 10), places(100), admit.WithLimit(&law{initial: 1}))
		holder := take(t, g)
		ctx, cancel := context.WithCancel(t.Context())
		for range 10 {
			startCall(ctx, g, admit.Call{Tenant: "a"})
		}
		time.Sleep(900 * ms)
		cancel()
		synctest.Wait()
		holder.Release(admit.Ignored)
		n := 0
		for ; n < 100; n++ {
			p, err := g.Acquire(t.Context(), admit.Call{Tenant: "a"})
			if err != nil {
				break
			}
			p.Release(admit.Ignored)
		}
		if n != 10 {
			t.Errorf("after ten calls that left: got %d at once, want 10, the burst", n)
		}
	})
}

// A dry run lets calls over their quota run, and counts each once.
func TestQuotaInADryRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r record
		g := newGate(t, 1, each(1, 1), admit.WithDryRun(true), admit.WithoutQueue(), admit.WithHooks(r.hooks()))
		held := take(t, g)
		for range 3 {
			passes(t, g, admit.Call{Tenant: "a"})
		}
		if got, want := r.take(), "default refused over_quota 0s; default refused over_quota 0s; default refused queue_full 0s"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		held.Release(admit.Ignored)
		if s := g.Stats(); s.InFlight != 0 {
			t.Errorf("got %d in flight, want 0", s.InFlight)
		}
	})
}

// Update keeps what was used up: changing a number is no new burst.
func TestQuotaUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := admit.Call{Tenant: "a"}
		g := newGate(t, 9, each(1, 5))
		for range 5 {
			passes(t, g, a)
		}
		update(t, g, each(1, 50))
		overQuota(t, g, a, time.Second)
		update(t, g, each(10, 50))
		overQuota(t, g, a, 100*ms)
		update(t, g, admit.WithName("default"), admit.WithoutQueue())
		overQuota(t, g, a, 100*ms)
		// Its own rate, and back, and no more than it had.
		update(t, g, admit.WithQuotas(admit.QuotaConfig{
			Tenant: admit.Rate{PerSecond: 10, Burst: 50}, Tenants: map[string]admit.Rate{"a": {PerSecond: 2}},
		}))
		overQuota(t, g, a, 500*ms)
		update(t, g, each(1, 3))
		overQuota(t, g, a, time.Second)
		update(t, g, admit.WithQuotas(admit.QuotaConfig{}))
		for range 99 {
			passes(t, g, a)
		}
		if s := g.Stats(); s.QuotaTenants != 0 {
			t.Errorf("without quotas: got %d tenants, want 0", s.QuotaTenants)
		}
	})
}

// However many tenants come, each spent quota is remembered as long as it is spent, and
// the memory is bounded.
func TestQuotaIsNotResetByCrowds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 9, admit.WithQuotas(admit.QuotaConfig{Tenant: admit.Rate{PerSecond: 0.01, Burst: 1}, MaxTenants: 1000}))
		passes(t, g, admit.Call{Tenant: "hostile"})
		admitted := 0
		for i := range 20_000 {
			if p, err := g.Acquire(t.Context(), admit.Call{Tenant: "crowd" + strconv.Itoa(i)}); err == nil {
				p.Release(admit.Ignored)
				admitted++
			}
			if i%500 == 0 {
				_, err := g.Acquire(t.Context(), admit.Call{Tenant: "hostile"})
				isRefusal(t, err, admit.OverQuota)
			}
		}
		if s := g.Stats(); s.QuotaTenants != 1000 || admitted < 999+3900 || admitted > 999+4096 {
			t.Errorf("got %d tenants and %d calls, want 1000, and 999 calls and one for most of the shared 4096", s.QuotaTenants, admitted)
		}
		// One of those that shared comes to a seat of its own, and gets nothing twice.
		time.Sleep(50 * time.Second)
		for i := range 20_000 {
			if p, err := g.Acquire(t.Context(), admit.Call{Tenant: "crowd" + strconv.Itoa(i)}); err == nil {
				p.Release(admit.Ignored)
				t.Fatalf("after half of the time: tenant %d got a permit, want none", i)
			}
		}
		time.Sleep(51 * time.Second)
		passes(t, g, admit.Call{Tenant: "hostile"})
		for i := range 10 {
			passes(t, g, admit.Call{Tenant: "new" + strconv.Itoa(i)})
		}
		if s := g.Stats(); s.QuotaTenants > 1000 {
			t.Errorf("got %d tenants, want at most 1000", s.QuotaTenants)
		}
	})
}

// At the default bound: a hundred thousand tenants are told apart.
func TestQuotaOfManyTenants(t *testing.T) {
	if slowdown > 1 {
		t.Skip("nothing here is concurrent, and a race detector makes it slow")
	}
	const n = 300_000
	keys := make([]string, n)
	for i := range keys {
		keys[i] = "tenant" + strconv.Itoa(i)
	}
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 9, each(0.001, 2))
		before := heap()
		for i := range 100_000 {
			passes(t, g, admit.Call{Tenant: keys[i]})
			passes(t, g, admit.Call{Tenant: keys[i]})
		}
		for i := range 100_000 {
			_, err := g.Acquire(t.Context(), admit.Call{Tenant: keys[i]})
			isRefusal(t, err, admit.OverQuota)
		}
		for i := range n {
			if p, err := g.Acquire(t.Context(), admit.Call{Tenant: keys[i]}); err == nil {
				p.Release(admit.Ignored)
			}
		}
		if s, used := g.Stats(), heap()-before; s.QuotaTenants > 1<<17 || used > 80<<20 {
			t.Errorf("got %d tenants in %d MiB, want at most 131072 in 80", s.QuotaTenants, used>>20)
		}
		time.Sleep(24 * time.Hour)
		for i := range 50_000 { // those who have all of their quota again are forgotten
			passes(t, g, admit.Call{Tenant: "later" + keys[i]})
			time.Sleep(time.Hour)
		}
		if s := g.Stats(); s.QuotaTenants > 10 {
			t.Errorf("a quiet time later: got %d tenants, want only the last ones", s.QuotaTenants)
		}
	})
	runtime.KeepAlive(keys)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Whatever calls come, wait, leave and run, as many run as the quota says, and not
// one fewer is let in than if those that did not run had never come.
func TestQuotaIsItsModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		perSecond, burst := rapid.SampledFrom([]float64{0.5, 3, 10}).Draw(rt, "rate"), rapid.IntRange(1, 5).Draw(rt, "burst")
		steps := rapid.SliceOfN(rapid.IntRange(0, 99), 1, 60).Draw(rt, "steps")
		synctest.Test(t, func(*testing.T) {
			g, err := admit.New(admit.WithLimit(&law{initial: 1}), each(perSecond, burst), places(100))
			if err != nil {
				rt.Fatal(err)
			}
			model, last := float64(burst), time.Now()
			advance := func() {
				model, last = min(float64(burst), model+perSecond*time.Since(last).Seconds()), time.Now()
			}
			for _, step := range steps {
				time.Sleep(time.Duration(step/4) * 20 * ms)
				advance()
				cost := 1 + step%2
				enough := model >= float64(min(cost, burst))-1e-6
				c := admit.Call{Tenant: "a", Cost: cost}
				if step%4 < 2 { // it runs
					p, err := g.Acquire(context.Background(), c)
					if (err == nil) != enough {
						rt.Fatalf("a call of %d: got %v, want it let in: %v (%v tokens)", cost, err, enough, model)
					}
					if err == nil {
						model -= float64(min(cost, burst))
						p.Release(admit.Ignored)
					}
					continue
				}
				holder, err := g.Acquire(context.Background(), admit.Call{})
				if err != nil {
					rt.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(step)*10*ms)
				_, err = g.Acquire(ctx, c) // it waits, and leaves
				cancel()
				holder.Release(admit.Ignored)
				if err == nil {
					rt.Fatal("a call without a permit for it: got one")
				}
			}
		})
	})
}

// A crowd of goroutines gets what the quota says, exactly.
func TestQuotaConcurrently(t *testing.T) {
	g := newGate(t, 4, ofClass(admit.Default, 1e-6, 1000), admit.WithQueue(admit.QueueConfig{Capacity: 2}))
	var mu sync.Mutex
	ran := 0
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 2000 {
				ctx, cancel := context.WithCancel(context.Background())
				if rand.IntN(4) == 0 {
					cancel()
				}
				p, err := g.Acquire(ctx, admit.Call{})
				if err == nil {
					mu.Lock()
					ran++
					mu.Unlock()
				}
				p.Release(admit.Ignored)
				cancel()
			}
		})
	}
	all.Wait()
	for ; ; ran++ { // what is left, if refusals of the queue were many
		p, err := g.Acquire(t.Context(), admit.Call{})
		if err != nil {
			isRefusal(t, err, admit.OverQuota)
			break
		}
		p.Release(admit.Ignored)
	}
	if ran != 1000 {
		t.Errorf("got %d calls, want 1000", ran)
	}
}

func TestWrongQuotas(t *testing.T) {
	class := func(c admit.Class, r admit.Rate) admit.QuotaConfig {
		return admit.QuotaConfig{Classes: map[admit.Class]admit.Rate{c: r}}
	}
	for says, q := range map[string]admit.QuotaConfig{
		"quota of each tenant: got a rate of -1 a second, want more than 0":      {Tenant: admit.Rate{PerSecond: -1}},
		"quota of each tenant: got a rate of NaN":                                {Tenant: admit.Rate{PerSecond: math.NaN()}},
		"quota of each tenant: got a rate of +Inf":                               {Tenant: admit.Rate{PerSecond: math.Inf(1)}},
		"quota of each tenant: got a rate of 0 ":                                 {Tenant: admit.Rate{Burst: 3}},
		"quota of each tenant: got a burst of -3, want 0":                        {Tenant: admit.Rate{PerSecond: 1, Burst: -3}},
		"quota of class 0: got a rate of 0 a second":                             class(admit.Default, admit.Rate{}),
		"quota of class 5: got a class that the gate does not have, want one of": class(5, admit.Rate{PerSecond: 1}),
		"quota of class 200: got a class that the gate does not have":            class(200, admit.Rate{PerSecond: 1}),
		`quota of tenant "a": got a rate of 0`:                                   {Tenants: map[string]admit.Rate{"a": {}}},
		`quota of tenant "": got an empty name`:                                  {Tenants: map[string]admit.Rate{"": {PerSecond: 1}}},
		"quotas: got MaxTenants -1":                                              {MaxTenants: -1},
		"got a burst of " + fmt.Sprint(math.MaxInt):                              {Tenant: admit.Rate{PerSecond: 1, Burst: math.MaxInt}},
	} {
		_, err := admit.New(admit.WithQuotas(q))
		wantError(t, err, admit.ErrConfig, says)
	}
	for _, q := range []admit.QuotaConfig{
		{}, {MaxTenants: 1}, {Tenant: admit.Rate{PerSecond: 1e9}}, {Tenant: admit.Rate{PerSecond: 1e-300, Burst: 1 << 30}},
	} {
		g := newGate(t, 1, admit.WithQuotas(q))
		passes(t, g, admit.Call{Tenant: "a"})
	}
}

// TurnAway says that a call is over its quota, and spends nothing of it.
func TestTurnAwayOverQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, each(1, 2), admit.WithoutQueue())
		passes(t, g, admit.Call{Tenant: "a", Cost: 2})
		holder := take(t, g)
		for tenant, want := range map[string]admit.Reason{"a": admit.OverQuota, "b": admit.QueueFull} {
			if why, away := gateFuncs.TurnAway(context.Background(), g, admit.Call{Tenant: tenant}); !away || why != want {
				t.Errorf("tenant %s: got %v, %v, want %v", tenant, why, away, want)
			}
		}
		holder.Release(admit.Ignored)
		passes(t, g, admit.Call{Tenant: "b", Cost: 2})
	})
}
