package turn_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
)

// A viewer of the queue sees each waiter that stays once, whichever waiters leave or come back
// between two steps.
func TestOldestWhileWaitersLeave(t *testing.T) {
	for name, c := range map[string]struct {
		at    int // the step after which waiters leave
		leave []int
		join  bool // the first of them comes back
		want  []int
	}{
		"none":                  {0, nil, false, []int{0, 1, 2, 3, 4}},
		"the one that was seen": {1, []int{1}, false, []int{0, 1, 2, 3, 4}},
		"it, and the next":      {1, []int{1, 2}, false, []int{0, 1, 3, 4}},
		"all that were seen":    {2, []int{0, 1, 2}, false, []int{0, 1, 2, 3, 4}},
		"it, and it comes back": {1, []int{1}, true, []int{0, 1, 2, 3, 4, 1}},
		"the last":              {4, []int{4}, false, []int{0, 1, 2, 3, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			q := turn.New(turn.Config{Classes: [turn.MaxClasses]turn.Class{{Priority: 1}}, Places: 10})
			room := turn.Room{Limit: 1, InFlight: 1, Now: time.Second}
			waiters := make([]turn.Waiter, 5)
			join := func(w *turn.Waiter) {
				w.Cost = 1
				q.Join(w, "", room)
			}
			for i := range waiters {
				waiters[i].Owner = i
				join(&waiters[i])
			}
			var got []int
			for w := range q.Oldest(0) {
				if got = append(got, w.Owner.(int)); len(got) == c.at+1 {
					for _, n := range c.leave {
						q.Remove(&waiters[n], room)
					}
					if c.join {
						join(&waiters[c.leave[0]])
					}
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("seen: got %v, want %v", got, c.want)
			}
		})
	}
}

// The tenants of an iteration are found as quickly after a crowd of them as before it, and each
// iteration goes on where the last one has ended, also if that tenant has left.
func TestLoadsGoOn(t *testing.T) {
	q := turn.New(turn.Config{Classes: [turn.MaxClasses]turn.Class{{Priority: 1}}, Places: 1})
	room := turn.Room{Limit: 1 << 20, Now: time.Second}
	claims := map[string]*turn.Tenant{}
	enter := func(name string) { claims[name] = q.Hold(turn.Call{Tenant: name}, 1, room) }
	leave := func(name string) {
		q.Return(claims[name], 1, room)
		delete(claims, name)
	}
	shown := func(most int) (names string) {
		for l := range q.Loads() {
			if names += l.Tenant; len(names) == most {
				break
			}
		}
		return names
	}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		enter(name)
	}
	if got := shown(2) + " " + shown(2) + " " + shown(9); got != "ab cd eabcd" {
		t.Errorf("tenants: got %q, want ab cd eabcd", got)
	}
	leave("e")
	leave("a")
	enter("f")
	if got := shown(9); got != "bcdf" {
		t.Errorf("tenants after two left and one came: got %q, want bcdf", got)
	}
	least := func() time.Duration {
		least := time.Hour
		for range 50 {
			at := time.Now()
			shown(9)
			least = min(least, time.Since(at))
		}
		return least
	}
	before := least()
	for i := range 100_000 {
		enter(fmt.Sprint("crowd", i))
	}
	for i := range 100_000 {
		leave(fmt.Sprint("crowd", i))
	}
	if after := least(); after > 20*before+time.Microsecond {
		t.Errorf("an iteration over four tenants: got %v after a crowd and %v before, want about as long", after, before)
	}
	for name := range claims {
		leave(name)
	}
	if got := shown(9); got != "" {
		t.Errorf("tenants at rest: got %q, want none", got)
	}
}

// The heaviest tenants are the ones that hold and want most, in that order.
func TestHeaviest(t *testing.T) {
	q := turn.New(classes(nil))
	room := turn.Room{Limit: 1, InFlight: 1}
	for i := range 100 {
		for range (i*37)%100 + 1 { // 1 to 100, in another order
			q.Join(&turn.Waiter{Cost: 1}, fmt.Sprint("tenant ", (i*37)%100+1), room)
		}
	}
	for range 200 {
		q.Join(&turn.Waiter{Cost: 1}, "", room)
	}
	for _, n := range []int{0, 1, 10, 100, 200} {
		want := 100
		for l := range q.Heaviest(normal, n) {
			if l.Waiting != want {
				t.Errorf("the heaviest %d: got %s with %d, want the one with %d", n, l.Tenant, l.Waiting, want)
			}
			want--
		}
		if got := 100 - want; got != min(n, 100) {
			t.Errorf("the heaviest %d of 100: got %d", n, got)
		}
	}
}
