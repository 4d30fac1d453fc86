package turn_test

import (
	"testing"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
)

// The queue counts on after more permits than fit into 32 bits. On a 64-bit machine the tests in
// this file can hardly fail.
func TestCountsDoNotOverflow(t *testing.T) {
	const limit = 1 << 20
	d := &desk{q: turn.New(classes(nil)), limit: limit}
	serve := func(class int, tenant string, cost int) {
		w := &turn.Waiter{Class: class, Cost: cost}
		d.q.Join(w, tenant, d.room())
		got, holder, cost := d.next(t)
		if d.back(holder, cost); got != w {
			t.Fatalf("next: got %+v, want the call of %s", got, tenant)
		}
	}
	serve(background, "", 1)
	d.run(t, of(normal, "other", 1))
	for range 1<<31/limit - 1 {
		serve(normal, "big", limit-1)
	}
	serve(normal, "dear", limit/2+600)
	d.limit = 10
	if got := d.passes(t, d.join("dear", 1)); got < 1000 {
		t.Errorf("a debt that is paid after 2^31 permits: got it paid after %d more, want a thousand at least", got)
	}
	low := &turn.Waiter{Class: background, Cost: 1}
	d.q.Join(low, "", d.room())
	for n := 0; ; n++ {
		d.q.Join(&turn.Waiter{Class: critical, Cost: 1}, "", d.room())
		w, holder, cost := d.next(t)
		if d.back(holder, cost); w == low {
			break
		}
		if n > progress {
			t.Fatalf("a class that was passed over by 2^31 permits: got it passed over by %d more", n)
		}
	}
}

// A tenant that wants more than its part is blamed, and one that wants less is not, also where
// many calls want many permits.
func TestBlameWithLargeNumbers(t *testing.T) {
	const limit = 1 << 20
	d := &desk{q: turn.New(classes(nil)), limit: limit, used: limit}
	for range 4096 {
		d.q.Join(&turn.Waiter{Class: normal, Cost: limit}, "many", d.room())
	}
	for i := range 40 {
		d.q.Join(&turn.Waiter{Class: normal, Cost: 1}, string(rune('a'+i)), d.room())
	}
	if w, v := d.come(of(normal, "many", limit)); w != nil || v.Why != turn.OverShare {
		t.Errorf("a call more of the tenant that wants all: got %+v, want it refused because of its share", v)
	}
	if w, v := d.come(of(normal, "a", 1)); w == nil || v.Evict == nil || v.Why != turn.OverShare {
		t.Errorf("a call of another: got %+v, want it to wait in the place of the heaviest", v)
	}
}

// A queue grows by more calls than the square root of 2^31 in a period.
func TestManyCallsInAPeriod(t *testing.T) {
	cfg := classes(nil)
	cfg.Places = 1 << 20
	d := &desk{q: turn.New(cfg), limit: 8}
	for range 4 {
		for range 50_000 {
			d.come(one(normal))
		}
		d.serve(1)
		d.now += 160 * time.Millisecond
	}
	d.come(one(normal))
	if !d.q.Standing(normal) {
		t.Error("four periods in which 50,000 calls came and one was served: got it not to stand")
	}
}
