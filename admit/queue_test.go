package admit_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/weir-go/weir/admit"
)

// TestOldestFirst: five calls wait and are served one by one.
func TestOldestFirst(t *testing.T) {
	for _, capacity := range []int{5, 6, 100} {
		t.Run(fmt.Sprint(capacity), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, 1, queue(capacity, admit.Reject))
				p, calls := take(t, g), map[string]*call{}
				for name := range strings.SplitSeq("abcde", "") {
					calls[name] = start(t.Context(), g, admit.Default)
				}
				if got := served(p, calls); got != "abcde" {
					t.Errorf("served: got %q, want %q", got, "abcde")
				}
				wantWhole(t, g, 1)
			})
		})
	}
}

// TestFullQueue: a permit is taken, two calls (a, b) wait in a queue of two, c comes.
func TestFullQueue(t *testing.T) {
	for _, tt := range []struct {
		policy     admit.Policy
		a, b, c    string
		length     int
		thenServed string
	}{
		{admit.Reject, waits, waits, full, 2, "ab"},
		{admit.Block, waits, waits, waits, 3, "abc"},
	} {
		t.Run(fmt.Sprint("policy ", tt.policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, 1, queue(2, tt.policy))
				p := take(t, g)
				a := start(t.Context(), g, admit.Default)
				b := start(t.Context(), g, admit.Default)
				c := start(t.Context(), g, admit.Default)
				wantState(t, "a", a, tt.a)
				wantState(t, "b", b, tt.b)
				wantState(t, "c", c, tt.c)
				if s := g.Stats(); s.Queue != tt.length || s.QueueCapacity != 2 {
					t.Errorf("queue: got %d of %d, want %d of 2", s.Queue, s.QueueCapacity, tt.length)
				}
				if got := served(p, map[string]*call{"a": a, "b": b, "c": c}); got != tt.thenServed {
					t.Errorf("served: got %q, want %q", got, tt.thenServed)
				}
				wantWhole(t, g, 1)
			})
		})
	}
}

// Newcomers take places from classes below theirs, and never from those above.
func TestClassesDisplace(t *testing.T) {
	all := []admit.Class{admit.Critical, admit.Default, admit.Sheddable, admit.Background} // by rank
	for old, waiting := range all {
		for rank, class := range all {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, 1, queue(2, admit.Reject))
				p := take(t, g)
				first := start(t.Context(), g, waiting)
				second := start(t.Context(), g, waiting)
				newcomer := start(t.Context(), g, class)
				wantFirst, wantNew := waits, full
				if rank < old {
					wantFirst, wantNew = evicted, waits
				}
				what := fmt.Sprintf("two of %v wait, a %v comes: ", waiting, class)
				wantState(t, what+"the oldest", first, wantFirst)
				wantState(t, what+"the other", second, waits)
				wantState(t, what+"the newcomer", newcomer, wantNew)
				served(p, map[string]*call{"a": first, "b": second, "c": newcomer})
				wantWhole(t, g, 1)
			})
		}
	}
}

// The one that makes room is the oldest of the last class that waits.
func TestLastClassMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(4, admit.Reject))
		p := take(t, g)
		calls := map[string]*call{}
		for _, c := range []struct {
			name  string
			class admit.Class
		}{{"d", admit.Default}, {"s", admit.Sheddable}, {"b", admit.Background}, {"B", admit.Background}} {
			calls[c.name] = start(t.Context(), g, c.class)
		}
		for i, leaves := range []string{"b", "B", "s", "d"} {
			calls[fmt.Sprint(i)] = start(t.Context(), g, admit.Critical)
			wantState(t, "the next to make room", calls[leaves], evicted)
		}
		calls["4"] = start(t.Context(), g, admit.Critical)
		wantState(t, "one more, which takes no place of its own kind", calls["4"], full)
		refused(t, g, admit.Default, admit.QueueFull)
		if got, want := served(p, calls), "0123"; got != want {
			t.Errorf("served: got %q, want %q", got, want)
		}
		wantWhole(t, g, 1)
	})
}

func TestClassesAreServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(100, admit.Reject))
		p, calls := take(t, g), map[string]*call{}
		for i, class := range []admit.Class{
			admit.Background, admit.Sheddable, admit.Critical, admit.Default,
			admit.Default, admit.Critical, admit.Sheddable, admit.Background,
		} {
			calls[fmt.Sprint(i)] = start(t.Context(), g, class)
		}
		if got, want := served(p, calls), "25341607"; got != want {
			t.Errorf("served: got %q, want %q", got, want)
		}
	})
}

func TestQueueOfNoPlaces(t *testing.T) {
	for _, c := range []admit.Class{admit.Critical, admit.Background} {
		g := newGate(t, 1, admit.WithoutQueue())
		p := take(t, g)
		refused(t, g, c, admit.QueueFull)
		if got := g.Stats().QueueCapacity; got != 0 {
			t.Errorf("capacity without a queue: got %d, want 0", got)
		}
		p.Release(admit.Ignored)
	}
}

// memory returns what the heap and the stacks hold, after a collection.
func memory() (heap, stacks int) {
	runtime.GC()
	runtime.GC() // the first one empties pools into their victims, the second one those
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc), int(m.StackInuse)
}

// forbearance is how often to let others run before something that should happen is
// missed: some seconds, since a busy machine may not run a thread for long. In a bubble
// there is no other clock for what is not durably blocked.
const forbearance = 10_000_000

// settled returns how many goroutines there are, once those that have just ended are gone.
func settled() int {
	spin(100_000)
	return runtime.NumGoroutine()
}

// goroutines returns how many there are, once they are as few as wanted, or never will be.
func goroutines(want int) int {
	for range forbearance {
		if runtime.NumGoroutine() <= want {
			break
		}
		runtime.Gosched()
	}
	return runtime.NumGoroutine()
}

// 100,000 callers come to a gate that lets 1,000 wait: the rest are sent away, and what
// is held is 1,000 goroutines and not more memory than they need.
func TestManyWaiters(t *testing.T) {
	const callers, places, perWaiter, wave = 100_000 / slowdown, 1000, 2 << 10, 100
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		g := newGate(t, 1, queue(places, admit.Reject))
		p := take(t, g)
		come := func(callers int) {
			for i := range callers {
				if i%wave == 0 {
					synctest.Wait()
				}
				go func() {
					if p, err := g.Acquire(ctx, admit.Call{}); err == nil {
						p.Release(admit.Ignored)
					}
				}()
			}
			synctest.Wait()
		}
		before := settled()
		heap, _ := memory()
		come(places)
		filled, _ := memory()
		if got := filled - heap; got > places*perWaiter {
			t.Errorf("heap: got %d bytes more, want at most %d for each of %d places", got, perWaiter, places)
		}
		come(callers)
		if got := g.Stats().Queue; got != places {
			t.Errorf("queue: got %d, want %d", got, places)
		}
		if got := goroutines(before+places) - before; got != places {
			t.Errorf("goroutines that wait: got %d, want %d", got, places)
		}
		after, _ := memory()
		if got := after - filled; got > 1<<20 {
			t.Errorf("heap after %d more callers: got %d bytes more, want none but noise", callers, got)
		}
		cancel()
		synctest.Wait()
		p.Release(admit.Ignored)
		if got := goroutines(before); got > before {
			t.Errorf("goroutines at the end: got %d, want %d as before", got, before)
		}
		wantWhole(t, g, 1)
	})
}

// Refusing happens in the caller's goroutine and leaves nothing behind.
func TestRefusingCostsNothingThatStays(t *testing.T) {
	g := newGate(t, 1, admit.WithoutQueue())
	p := take(t, g)
	refused(t, g, admit.Default, admit.QueueFull)
	before := settled()
	heap, stacks := memory()
	for range 100_000 {
		refused(t, g, admit.Default, admit.QueueFull)
	}
	after, stacksAfter := memory()
	if got := goroutines(before); got > before {
		t.Errorf("goroutines: got %d, want at most %d as before", got, before)
	}
	if after > heap+1<<20 || stacksAfter > stacks+2<<20 {
		t.Errorf("after 100000 refusals: got heap %d and stacks %d, want about %d and %d as before", after, stacksAfter, heap, stacks)
	}
	p.Release(admit.Ignored)
	wantWhole(t, g, 1)
}
