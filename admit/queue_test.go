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
)

// TestOrders: five calls wait in a queue of four or eight places, and are served one by
// one. AdaptiveLIFO looks at the queue anew for each: newest first while it is more
// than half full.
func TestOrders(t *testing.T) {
	for _, tt := range []struct {
		order    admit.Order
		capacity int
		want     string
	}{
		{admit.FIFO, 6, "abcde"},
		{admit.FIFO, 10, "abcde"},
		{admit.AdaptiveLIFO, 6, "edabc"},
		{admit.AdaptiveLIFO, 8, "eabcd"},
		{admit.AdaptiveLIFO, 10, "abcde"},
		{admit.AdaptiveLIFO, 5, "edcab"},
		{admit.CoDel, 6, "abcde"},
	} {
		t.Run(fmt.Sprint(tt.order, " of ", tt.capacity), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, 1, queue(tt.capacity, admit.Reject, tt.order))
				p, calls := take(t, g), map[string]*call{}
				for name := range strings.SplitSeq("abcde", "") {
					calls[name] = start(t.Context(), g, admit.Default)
				}
				if got := served(p, calls); got != tt.want {
					t.Errorf("served: got %q, want %q", got, tt.want)
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
		thenServed map[admit.Order]string
	}{
		{admit.DropOldest, displaced, waits, waits, 2, map[admit.Order]string{admit.FIFO: "bc", admit.CoDel: "bc", admit.AdaptiveLIFO: "cb"}},
		{admit.Reject, waits, waits, full, 2, map[admit.Order]string{admit.FIFO: "ab", admit.CoDel: "ab", admit.AdaptiveLIFO: "ba"}},
		{admit.Block, waits, waits, waits, 3, map[admit.Order]string{admit.FIFO: "abc", admit.CoDel: "abc", admit.AdaptiveLIFO: "cba"}},
	} {
		for order, want := range tt.thenServed {
			t.Run(fmt.Sprint("policy ", tt.policy, ", order ", order), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g := newGate(t, 1, queue(2, tt.policy, order))
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
					if got := served(p, map[string]*call{"a": a, "b": b, "c": c}); got != want {
						t.Errorf("served: got %q, want %q", got, want)
					}
					wantWhole(t, g, 1)
				})
			})
		}
	}
}

// A gate holds its limit and its queue in every class at once; newcomers take places
// from classes below theirs, whatever the policy, and never from those above.
func TestClassesDisplace(t *testing.T) {
	all := []admit.Class{admit.Critical, admit.Default, admit.Sheddable, admit.Background} // by rank
	for _, policy := range []admit.Policy{admit.DropOldest, admit.Reject} {
		for old, waiting := range all {
			for rank, class := range all {
				synctest.Test(t, func(t *testing.T) {
					g := newGate(t, 1, queue(2, policy, admit.FIFO))
					p := take(t, g)
					first := start(t.Context(), g, waiting)
					second := start(t.Context(), g, waiting)
					newcomer := start(t.Context(), g, class)
					wantFirst, wantNew := waits, full
					if rank < old || rank == old && policy == admit.DropOldest {
						wantFirst, wantNew = displaced, waits
					}
					what := fmt.Sprintf("policy %v, two of %v wait, a %v comes: ", policy, waiting, class)
					wantState(t, what+"the oldest", first, wantFirst)
					wantState(t, what+"the other", second, waits)
					wantState(t, what+"the newcomer", newcomer, wantNew)
					served(p, map[string]*call{"a": first, "b": second, "c": newcomer})
					wantWhole(t, g, 1)
				})
			}
		}
	}
}

// The one that makes room is the oldest of the last class that waits.
func TestLastClassMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(4, admit.DropOldest, admit.FIFO))
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
			wantState(t, "the next to make room", calls[leaves], displaced)
		}
		calls["4"] = start(t.Context(), g, admit.Critical)
		wantState(t, "the oldest critical one, for its own kind", calls["0"], displaced)
		refused(t, g, admit.Default, admit.QueueFull)
		if got, want := served(p, calls), "1234"; got != want {
			t.Errorf("served: got %q, want %q", got, want)
		}
		wantWhole(t, g, 1)
	})
}

func TestClassesAreServedInOrder(t *testing.T) {
	for _, order := range []admit.Order{admit.FIFO, admit.CoDel, admit.AdaptiveLIFO} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, 1, queue(100, admit.Reject, order)) // much room: oldest first in any order
			p, calls := take(t, g), map[string]*call{}
			for i, class := range []admit.Class{
				admit.Background, admit.Sheddable, admit.Critical, admit.Default,
				admit.Default, admit.Critical, admit.Sheddable, admit.Background,
			} {
				calls[fmt.Sprint(i)] = start(t.Context(), g, class)
			}
			if got, want := served(p, calls), "25341607"; got != want {
				t.Errorf("order %v: served: got %q, want %q", order, got, want)
			}
		})
	}
}

// Once somebody has waited all through 100 ms, CoDel refuses at its turn who has
// waited for more than 5 ms, until the queue has been empty.
func TestCoDelRefusesTheStale(t *testing.T) {
	for _, tt := range []struct {
		name             string
		old, fresh       time.Duration // waited at the hand-over
		wantOld, wantNew string
	}{
		{"up to 100 ms", 100 * ms, 2 * ms, runs, waits},
		{"beyond", 101 * ms, 5 * ms, tooLong, runs},
		{"both stale", 200 * ms, 6 * ms, tooLong, tooLong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, 1, queue(10, admit.Reject, admit.CoDel))
				p := take(t, g)
				old := start(t.Context(), g, admit.Default)
				time.Sleep(tt.old - tt.fresh)
				fresh := start(t.Context(), g, admit.Default)
				time.Sleep(tt.fresh)
				p.Release(admit.Ignored)
				synctest.Wait()
				wantState(t, "the old one", old, tt.wantOld)
				wantState(t, "the fresh one", fresh, tt.wantNew)
				if s := g.Stats(); s.Queue > 0 && s.InFlight < 1 {
					t.Errorf("got %d waiting and %d in flight, want nobody to wait for a free permit", s.Queue, s.InFlight)
				}
				old.permit.Release(admit.Ignored)
				synctest.Wait()
				fresh.permit.Release(admit.Ignored)
				wantWhole(t, g, 1)
			})
		})
	}
}

func TestCoDelForgetsWhenTheQueueWasEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 1, queue(10, admit.Reject, admit.CoDel))
		p := take(t, g)
		first := start(t.Context(), g, admit.Default)
		time.Sleep(90 * ms)
		p.Release(admit.Ignored) // the queue is empty now
		synctest.Wait()
		second := start(t.Context(), g, admit.Default)
		time.Sleep(90 * ms)
		first.permit.Release(admit.Ignored)
		synctest.Wait()
		wantState(t, "90 ms after the queue was empty", second, runs)
		second.permit.Release(admit.Ignored)
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

func TestAutomaticCapacityFollowsTheLimit(t *testing.T) {
	for limit, want := range map[int]int{1: 32, 31: 32, 32: 32, 33: 33, 500: 500} {
		g := newGate(t, limit)
		if got := g.Stats().QueueCapacity; got != want {
			t.Errorf("limit %d: got a queue of %d, want %d", limit, got, want)
		}
		update(t, g, fixed(t, 64))
		if got := g.Stats().QueueCapacity; got != 64 {
			t.Errorf("limit 64 after %d: got a queue of %d, want 64", limit, got)
		}
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
	for _, policy := range []admit.Policy{admit.Reject, admit.DropOldest} {
		t.Run(fmt.Sprint("policy ", policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				g := newGate(t, 1, queue(places, policy, admit.FIFO))
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
		})
	}
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
	if after > heap+1<<20 || stacksAfter > stacks+1<<20 {
		t.Errorf("after 100000 refusals: got heap %d and stacks %d, want about %d and %d as before", after, stacksAfter, heap, stacks)
	}
	p.Release(admit.Ignored)
	wantWhole(t, g, 1)
}
