package admit_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
)

// An inspection shows the calls that wait and run, oldest first, with their ages and deadlines.
func TestInspectListsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 2)
		before := take(t, g)
		if i := g.Inspect(); len(i.Running) != 0 || i.Unlisted != 1 {
			t.Errorf("the first look: got %d running, %d unlisted, want 0, 1", len(i.Running), i.Unlisted)
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 500*ms)
		defer cancel()
		p, err := g.Acquire(ctx, admit.Call{Method: "/a/B", Class: admit.Class(99)})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * ms)
		old := startCall(t.Context(), g, admit.Call{Method: "/c/D", Class: admit.Sheddable, Tenant: "alice"})
		time.Sleep(50 * ms)
		young := startCall(t.Context(), g, admit.Call{Method: strings.Repeat("x", 1<<20), Class: admit.Critical})

		i := g.Inspect()
		if len(i.Running) != 1 || i.Unlisted != 1 {
			t.Fatalf("running: got %+v, %d unlisted, want 1, 1", i.Running, i.Unlisted)
		}
		want := admit.CallState{Method: "/a/B", Class: admit.Background, Cost: 1, Since: began, Deadline: began.Add(500 * ms)}
		if got := i.Running[0]; !got.Since.Equal(want.Since) || !got.Deadline.Equal(want.Deadline) || got.Method != want.Method || got.Class != want.Class || got.Cost != 1 {
			t.Errorf("running: got %+v, want %+v", got, want)
		}
		if len(i.Waiting) != 2 || i.Waiting[0].Method != "/c/D" || i.Waiting[0].Tenant != "alice" || !i.Waiting[0].Since.Equal(began.Add(100*ms)) {
			t.Errorf("waiting: got %+v, want /c/D of alice first, since 100 ms", i.Waiting)
		}
		if got := len(i.Waiting[1].Method); got != 256 {
			t.Errorf("a method of a megabyte: got %d bytes, want it cut off after 256", got)
		}
		if i.Oldest[admit.Sheddable] != 50*ms || i.Oldest[admit.Critical] != 0 || i.Oldest[admit.Default] != 0 {
			t.Errorf("oldest: got %v, want 50ms for sheddable and 0 for the rest", i.Oldest)
		}
		if !i.LastEnd.IsZero() {
			t.Errorf("last end: got %v, want none", i.LastEnd)
		}
		p.Release(admit.Success)
		synctest.Wait()
		wantState(t, "the critical call", young, "runs")
		if i = g.Inspect(); len(i.Running) != 1 || i.Running[0].Class != admit.Critical || len(i.Waiting) != 1 {
			t.Errorf("after a hand-over: got %+v, %+v, want the critical call running and the other waiting", i.Running, i.Waiting)
		}
		if got := time.Since(i.LastEnd); got != 0 {
			t.Errorf("last end: got %v ago, want 0", got)
		}
		before.Release(admit.Success)
		synctest.Wait()
		old.permit.Release(admit.Success)
		young.permit.Release(admit.Success)
		if i = g.Inspect(); len(i.Running)+len(i.Waiting)+i.Unlisted+len(i.Tenants) != 0 {
			t.Errorf("at rest: got %+v, want no calls and no tenants", i)
		}
		wantWhole(t, g, 2)
	})
}

// Calls take the lock while somebody looks, and no longer than a minute after that.
func TestInspectEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 4)
		listed := func() int {
			p := take(t, g)
			defer p.Release(admit.Success)
			return len(g.Inspect().Running)
		}
		if got := listed(); got != 0 {
			t.Errorf("a call before the first look: got %d listed, want 0", got)
		}
		if got := listed(); got != 1 {
			t.Errorf("a call after the first look: got %d listed, want 1", got)
		}
		late := take(t, g) // ends after the watch
		time.Sleep(61 * time.Second)
		closeWindow(t, g)
		if got := listed(); got != 1 { // late is still listed, and the new call is not
			t.Errorf("a call after a minute without a look: got %d listed, want only the old one", got)
		}
		late.Release(admit.Success)
		if got := len(g.Inspect().Running); got != 0 {
			t.Errorf("at rest: got %d listed, want 0", got)
		}
		wantWhole(t, g, 4)
	})
}

// A gate that is looked at costs no allocation for each call, and neither do its refusals.
func TestInspectedCallsDoNotAllocate(t *testing.T) {
	ctx := context.Background()
	g := newGate(t, 1, admit.WithoutQueue())
	g.Inspect()
	call := admit.Call{Method: strings.Repeat("m", 1<<16), Tenant: "alice"}
	admitted := testing.AllocsPerRun(1000, func() {
		p, err := g.Acquire(ctx, call)
		if err != nil {
			t.Error(err)
		}
		p.Release(admit.Success)
	})
	p := take(t, g)
	refused := testing.AllocsPerRun(1000, func() { _, _ = g.Acquire(ctx, call) })
	p.Release(admit.Ignored)
	if admitted != 0 || refused != 0 {
		t.Errorf("allocations: got %v admitted, %v refused, want 0 and 0", admitted, refused)
	}
}

// The sample of refusals has the numbers of the moment, and follows the rate.
func TestInspectShowsRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, admit.WithQueue(admit.QueueConfig{Capacity: 1, MaxWait: 200 * ms}))
		p := take(t, g)
		waiter := startCall(t.Context(), g, admit.Call{Method: "/waits/Too", Class: admit.Critical})
		ctx, cancel := context.WithTimeout(t.Context(), 70*ms)
		defer cancel()
		_, err := g.Acquire(ctx, admit.Call{Method: "/a/B", Tenant: strings.Repeat("t", 1<<20), Class: admit.Background})
		if err == nil {
			t.Fatal("Acquire: got a permit, want a refusal")
		}
		time.Sleep(200 * ms)
		synctest.Wait()
		wantState(t, "the waiter", waiter, "admit: refused: waited_too_long")
		got := g.Inspect().Refusals
		if len(got) != 2 {
			t.Fatalf("refusals: got %d, want 2: %+v", len(got), got)
		}
		a, b := got[0], got[1]
		if a.Method != "/a/B" || len(a.Tenant) != 96 || a.Class != admit.Background || a.TimeLeft != 70*ms || a.Wait != 0 || a.RetryAfter == 0 ||
			a.Limit != 1 || a.InFlight != 1 || a.Queue != 1 || a.Represents != 1 {
			t.Errorf("the newcomer: got %+v, want the numbers of its moment", a)
		}
		if b.Method != "/waits/Too" || b.Reason != admit.WaitedTooLong || b.Wait != 200*ms || b.At.Sub(a.At) != 200*ms {
			t.Errorf("the waiter: got %+v, want it to have waited 200 ms", b)
		}

		p.Release(admit.Ignored)
	})
}

// A flood of refusals is sampled.
func TestInspectSamplesRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, admit.WithoutQueue())
		p := take(t, g)
		const many = 100_000
		for range many {
			refused(t, g, admit.Default, admit.QueueFull)
			time.Sleep(100 * time.Microsecond) // ten seconds in all
		}
		got := g.Inspect().Refusals
		if len(got) < 15 || len(got) > 60 {
			t.Errorf("after a flood: got %d samples, want one or two a second, and some from the beginning", len(got))
		}
		sum := uint64(0)
		for _, r := range got {
			sum += r.Represents
		}
		if sum < many/2 || sum > many {
			t.Errorf("after a flood: the samples stand for %d refusals, want most of %d", sum, many)
		}
		p.Release(admit.Ignored)
	})
}

// Each change of the limit is remembered with its reason, 100 of them.
func TestInspectShowsDecisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 5
		g := newGate(t, 1, admit.WithLimit(&law{initial: 5, next: func(limit.Window) int { n++; return n }}))
		for range 120 {
			closeWindow(t, g)
		}
		update(t, g, fixed(t, 7))
		got := g.Inspect().Decisions
		if len(got) != 100 {
			t.Fatalf("decisions: got %d, want 100", len(got))
		}
		if last := got[99]; last.From != 125 || last.To != 7 || !strings.Contains(last.String(), "lowered 125 -> 7: the configuration was changed") {
			t.Errorf("the last one: got %v, want lowered 125 -> 7", last)
		}
		if first := got[0]; first.From != 26 || !strings.HasPrefix(first.String(), fmt.Sprintf("raised %d -> %d", first.From, first.To)) || first.Seen() == "" {
			t.Errorf("the first one: got %v (seen %q), want raised 25 -> 26 with measurements", first, first.Seen())
		}
	})
}

// The history has a moment for each five seconds with calls, and five minutes of them.
func TestInspectShowsHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 2, admit.WithoutQueue())
		for range 400 {
			a, b := take(t, g), take(t, g)
			refused(t, g, admit.Critical, admit.QueueFull)
			time.Sleep(time.Second)
			a.Release(admit.Success)
			b.Release(admit.Overload)
		}
		h := g.Inspect().History
		if len(h) != 60 {
			t.Fatalf("history: got %d moments, want 60", len(h))
		}
		for i, m := range h[1:] {
			if d := m.At.Sub(h[i].At); d != 5*time.Second {
				t.Fatalf("moment %d: got %v after the one before, want 5s", i, d)
			}
			if m.Limit != 2 || m.InFlight != 2 || m.Refused[admit.Critical] != 5 || m.Ended[admit.Success] != 5 || m.Ended[admit.Overload] != 5 {
				t.Fatalf("moment %d: got %+v, want 2 of 2 in flight, 5 refusals and 5 calls of each kind", i, m)
			}
		}
	})
}

// The busiest tenants are found among very many.
func TestInspectFindsTenants(t *testing.T) {
	const tenants = 100_000
	g := newGate(t, limit.Max)
	var permits []*admit.Permit
	hold := func(name string, n int) {
		for range n {
			p, err := g.Acquire(t.Context(), admit.Call{Tenant: name})
			if err != nil {
				t.Fatal(err)
			}
			moved := new(admit.Permit)
			p.MoveTo(moved)
			permits = append(permits, moved)
		}
	}
	for i := range 100 {
		hold(fmt.Sprint("few", i), 1)
	}
	hold("many", 30)
	hold("some", 7)
	i := g.Inspect()
	if len(i.Tenants) != 10 || i.Tenants[0].Name != "many" || i.Tenants[0].Held != 30 || i.Tenants[1].Name != "some" {
		t.Errorf("tenants: got %+v, want ten, many (30) and some (7) first", i.Tenants)
	}
	for i := range tenants {
		hold(fmt.Sprint("crowd", i), 1)
	}
	done := make(chan struct{})
	go func() { // tenants come and go while the gate is looked at
		defer close(done)
		for i := range 2000 {
			p, err := g.Acquire(t.Context(), admit.Call{Tenant: fmt.Sprint("guest", i)})
			if err != nil {
				t.Error(err)
			}
			p.Release(admit.Success)
		}
	}()
	for range 20 {
		if i := g.Inspect(); len(i.Tenants) != 10 || i.Stats.Tenants < tenants {
			t.Errorf("tenants: got %d of %d, want ten of more than %d", len(i.Tenants), i.Stats.Tenants, tenants)
		}
		runtime.Gosched()
	}
	<-done
	for _, p := range permits {
		p.Release(admit.Ignored)
	}
	if i := g.Inspect(); len(i.Tenants)+len(i.Running) != 0 {
		t.Errorf("at rest: got %d tenants, %d running, want none", len(i.Tenants), len(i.Running))
	}
}

// A zero gate has nothing to show.
func TestInspectOfAZeroGate(t *testing.T) {
	var g admit.Gate
	if i := g.Inspect(); len(i.History)+len(i.Running) != 0 {
		t.Errorf("Inspect: got %+v, want nothing", i)
	}
}

// BenchmarkInspected is a call while the gate is looked at once a second, and one without.
func BenchmarkInspected(b *testing.B) {
	for name, looks := range map[string]bool{"not": false, "once a second": true} {
		b.Run(name, func(b *testing.B) {
			g := newGate(b, 100)
			ctx := context.Background()
			next := time.Now()
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				if n++; looks && n%1024 == 1 && !time.Now().Before(next) {
					g.Inspect()
					next = time.Now().Add(time.Second)
				}
				p, err := g.Acquire(ctx, admit.Call{Method: "/a/B"})
				if err != nil {
					b.Fatal(err)
				}
				p.Release(admit.Success)
			}
		})
	}
}
