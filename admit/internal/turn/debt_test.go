package turn_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
)

// debtor returns a queue of a tenant with calls of 10 ms.
func debtor(t *testing.T) *desk {
	t.Helper()
	d := &desk{q: turn.New(classes(nil)), limit: 20}
	for range 40 {
		holder := d.run(t, of(normal, "small", 1))
		d.now += 10 * ms
		d.back(holder, 1)
	}
	return d
}

func (d *desk) join(tenant string, cost int) *turn.Waiter {
	w := &turn.Waiter{Class: normal, Cost: cost, Since: d.now}
	d.q.Join(w, tenant, d.room())
	return w
}

// passes returns how many permits calls of other tenants get before a waiter.
func (d *desk) passes(t *testing.T, waits *turn.Waiter) int {
	t.Helper()
	for n := range 10_000 {
		d.join("small", 1)
		w, holder, cost := d.next(t)
		if d.back(holder, cost); w == waits {
			return n
		}
	}
	t.Fatal("got a waiter that is passed for ever")
	return 0
}

// A debt lasts until the others got as much. A later call does not make it smaller, and it stays
// when the tenant has no calls for a moment.
func TestADebtIsPaid(t *testing.T) {
	var d *desk
	serve := func(t *testing.T, cost int) {
		w := d.join("dear", cost)
		got, holder, cost := d.next(t)
		if d.back(holder, cost); got != w {
			t.Fatalf("next: got %+v, want the dear call", got)
		}
	}
	idle := func(t *testing.T, cost int, lasts time.Duration, served bool) {
		var small []*turn.Tenant
		for range 3 {
			small = append(small, d.run(t, of(normal, "small", 1)))
		}
		w := d.join("dear", cost)
		d.q.Next(d.room())
		if d.now += lasts; !served {
			d.q.Remove(w, d.room())
		}
		for _, h := range small {
			d.back(h, 1)
		}
		if served {
			_, holder, cost := d.next(t)
			d.back(holder, cost)
		}
	}
	for _, tt := range []struct {
		name     string
		calls    func(t *testing.T)
		from, to int // permits that the others get before the next dear call
	}{
		{"a dear call", func(t *testing.T) { serve(t, 16) }, 30, 60},
		{"permits idle for 100 ms", func(t *testing.T) { idle(t, 16, 100*ms, false) }, 25, 40},
		{"and then a call that costs a little more than a part", func(t *testing.T) { idle(t, 16, 100*ms, false); serve(t, 8) }, 20, 40},
		{"twice for 100 ms", func(t *testing.T) { idle(t, 16, 100*ms, false); idle(t, 16, 100*ms, false) }, 35, 80},
		{"for 100 ms, then served", func(t *testing.T) { idle(t, 16, 100*ms, true) }, 30, 80},
		{"the same for a tenant with more than a part", func(t *testing.T) {
			var holders []*turn.Tenant
			for range 6 {
				holders = append(holders, d.run(t, of(normal, "dear", 1)))
			}
			idle(t, 10, 500*ms, true)
			for _, h := range holders {
				d.back(h, 1)
			}
		}, 5, 60},
		{"a hundred times for 1 s", func(t *testing.T) {
			for range 100 {
				idle(t, 16, time.Second, false)
			}
		}, 100, 600},
	} {
		for _, stays := range []bool{false, true} { // the tenant has a call all the time
			t.Run(fmt.Sprintf("%s, stays %v", tt.name, stays), func(t *testing.T) {
				d = debtor(t)
				d.run(t, of(normal, "other", 1))
				d.run(t, of(normal, "other 2", 1))
				var holder *turn.Tenant
				if stays {
					holder = d.run(t, of(normal, "dear", 1))
				}
				tt.calls(t)
				w := d.join("dear", 1)
				if stays {
					d.back(holder, 1)
				}
				if got := d.passes(t, w); got < tt.from || got > tt.to {
					t.Errorf("permits that others get before it: got %d, want %d to %d", got, tt.from, tt.to)
				}
			})
		}
	}
}

// However many tenants have debts and go, the queue keeps only few of them.
func TestFewDebtsAreKept(t *testing.T) {
	d := debtor(t)
	d.run(t, of(normal, "other", 1))
	for i := range 1000 {
		d.join(fmt.Sprint(i), 16)
		_, holder, cost := d.next(t)
		d.back(holder, cost)
	}
	if got := d.q.Tenants(); got != 1 {
		t.Errorf("tenants: got %d, want the one with a call", got)
	}
	if got := d.passes(t, d.join("999", 1)); got < 8 {
		t.Errorf("the last of a thousand tenants with debts: got passed by %d, want its debt kept", got)
	}
}
