package turn_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
)

func of(class int, tenant string, cost int) turn.Call {
	return turn.Call{Class: class, Tenant: tenant, Cost: cost}
}

// next serves the call that is next, which must be there, and returns the tenant that holds the
// permits.
func (d *desk) next(t *testing.T) (w *turn.Waiter, holder *turn.Tenant, cost int) {
	t.Helper()
	w, cost = d.q.Next(d.room())
	if w == nil || d.used+cost > d.limit {
		t.Fatalf("next with %d of %d in use: got %v at a cost of %d, want a call that is served", d.used, d.limit, w, cost)
	}
	d.used += cost
	return w, d.q.Serve(w, cost, d.room()), cost
}

// brief lets two tenants with brief calls come, one of which wants so many permits at once and
// keeps one.
func (d *desk) brief(t *testing.T, wants int) {
	t.Helper()
	var holders []*turn.Tenant
	for range 2 {
		holders = append(holders, d.run(t, of(normal, "brief", 1)), d.run(t, of(normal, "brief 2", 1)))
		d.now += ms
		d.back(holders[0], 1)
		d.back(holders[1], 1)
		holders = nil
	}
	for range wants {
		holders = append(holders, d.run(t, of(normal, "brief", 1)))
		d.now += ms
	}
	d.back(holders[0], 1)
	d.run(t, of(normal, "brief", 1))
	for _, h := range holders[1:] {
		d.back(h, 1)
	}
}

// long lets tenants hold permits for so long that the queue knows them.
func (d *desk) long(t *testing.T, calls ...int) {
	t.Helper()
	name := func(i int) string { return fmt.Sprint("long ", i) }
	for i, n := range calls {
		for range n {
			d.run(t, of(normal, name(i), 1))
		}
	}
	d.now += time.Duration(d.limit)*50*ms + time.Second
	for i := range calls {
		d.q.MayRun(of(normal, name(i), 1), d.room()) // the queue looks at a tenant when a call of it comes
	}
}

// A tenant that holds one of the permits of many long tenants waits for those of the others, and is
// not blamed. A tenant that holds most of them waits for its own.
func TestTheBoundOfLongTenants(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limit  int
		calls  []int         // of each long tenant
		age    time.Duration // for which they have run
		wait   bool          // a call more of the first
		why    turn.Reason   // if it is refused
		blamed bool          // if it waits in vain
	}{
		{"one of 50, a permit each 120 ms", 100, slices.Repeat([]int{1}, 50), 6 * time.Second, true, 0, false},
		{"one of 20, a permit each 300 ms", 40, slices.Repeat([]int{1}, 20), 6 * time.Second, true, 0, false},
		{"half of 20, a permit each 1.5 s", 40, []int{10, 10}, 30 * time.Second, false, turn.QueueFull, false},
		{"one beside 19, a permit each 500 ms", 40, []int{1, 19}, 10 * time.Second, true, 0, false},
		{"19 of 20, a permit each 1.5 s", 40, []int{19, 1}, 30 * time.Second, false, turn.OverShare, true},
		{"all of 20, a permit each 1.5 s", 40, []int{20}, 30 * time.Second, false, turn.OverShare, true},
		{"all of 20, a permit each 500 ms", 40, []int{20}, 10 * time.Second, true, 0, true},
	} {
		d := &desk{q: turn.New(classes(nil)), limit: tt.limit}
		d.brief(t, tt.limit/4)
		d.long(t, tt.calls...)
		d.now += tt.age / 2
		d.brief(t, tt.limit/4)
		d.now += tt.age / 2
		d.q.MayRun(of(normal, "brief", tt.limit/4), d.room()) // what it wants is not forgotten
		c := of(normal, "long 0", 1)
		if _, ok := d.q.MayRun(c, d.room()); ok {
			t.Fatalf("%s: got it let in, want the tenants to be at their bound", tt.name)
		}
		w, v := d.come(c)
		if v.Wait != tt.wait || !tt.wait && v.Why != tt.why {
			t.Errorf("%s: got %+v, want it to wait %v, or refused because of %v", tt.name, v, tt.wait, tt.why)
		}
		if w == nil {
			w = &turn.Waiter{Class: normal, Cost: 1, Since: d.now}
			d.q.Join(w, c.Tenant, d.room())
		}
		if got := d.q.AtBound(w, d.room()); got != tt.blamed {
			t.Errorf("%s, after a wait in vain: got its tenant blamed %v, want %v", tt.name, got, tt.blamed)
		}
	}
}

// Of many long tenants at their bound, few calls wait, since few can be served in time.
func TestFewWaitForTheBoundOfLongTenants(t *testing.T) {
	d := &desk{q: turn.New(classes(nil)), limit: 40}
	d.brief(t, 10)
	d.long(t, slices.Repeat([]int{1}, 20)...)
	d.now += 6 * time.Second // a permit each 300 ms
	d.q.MayRun(of(normal, "brief", 10), d.room())
	waiting := 0
	for range 5 {
		for i := range 20 {
			c := of(normal, fmt.Sprint("long ", i), 1)
			d.q.MayRun(c, d.room())
			if w, _ := d.come(c); w != nil {
				waiting++
			}
		}
	}
	if waiting < 3 || waiting > 6 {
		t.Errorf("calls that may wait a second: got %d of 100, want about the three that are served then", waiting)
	}
}

// A waiter that may hold a free permit gets it, however many tenants at their bound wait.
func TestAWaiterBehindTenantsAtTheirBound(t *testing.T) {
	for _, tenants := range []int{10, 100, 1000} {
		d := &desk{q: turn.New(classes(nil)), limit: 2 * tenants}
		d.brief(t, tenants/2)
		d.long(t, slices.Repeat([]int{1}, tenants)...)
		d.q.MayRun(of(normal, "brief", d.limit/2), d.room())
		for i := range tenants {
			d.q.Join(&turn.Waiter{Class: normal, Cost: 1}, fmt.Sprint("long ", i), d.room())
		}
		for range 3 { // it holds more than each of the others then
			d.q.Hold(of(normal, "brief", 1), 1, d.room())
			d.used++
		}
		w := &turn.Waiter{Class: normal, Cost: 1}
		d.q.Join(w, "brief", d.room())
		if got, _ := d.q.Next(d.room()); got != w {
			t.Errorf("next, with %d of %d permits in use and %d long tenants at their bound: got %v, want the brief call", d.used, d.limit, tenants, got)
		}
		if class, ok := d.q.Urgent(d.room()); !ok || class != normal {
			t.Errorf("urgent: got class %d, %v, want that of the brief call", class, ok)
		}
	}
}
