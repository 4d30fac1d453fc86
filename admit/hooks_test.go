package admit_test

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
)

// A record is what hooks were told, in words.
type record struct {
	mu     sync.Mutex // guards events
	events []string
}

func (r *record) add(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, fmt.Sprintf(format, args...))
}

// take returns what has been told since the last time, sorted.
func (r *record) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := r.events
	r.events = nil
	slices.Sort(events)
	return strings.Join(events, "; ")
}

func (r *record) hooks() admit.Hooks {
	return admit.Hooks{
		Waited: func(_ context.Context, c admit.Call, wait time.Duration) { r.add("%v waited %v", c.Class, wait) },
		Refused: func(_ context.Context, c admit.Call, why admit.Reason, wait time.Duration) {
			r.add("%v refused %v %v", c.Class, why, wait)
		},
		Left: func(_ context.Context, c admit.Call, wait time.Duration, err error) {
			r.add("%v left %v %v", c.Class, wait, err)
		},
		LimitChanged: func(from, to int) { r.add("limit %d to %d", from, to) },
		Panicked:     func(v any) { r.add("panicked %v", v) },
	}
}

func TestHooksAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r record
		g := newGate(t, 1, admit.WithHooks(r.hooks()),
			admit.WithQueue(admit.QueueConfig{Capacity: 2, MaxWait: 300 * ms}))
		want := func(want string) {
			t.Helper()
			synctest.Wait()
			if got := r.take(); got != want {
				t.Errorf("hooks were told: got %q, want %q", got, want)
			}
		}
		p := take(t, g)
		want("") // a call that finds a permit costs no hook
		ctx, cancel := context.WithTimeout(t.Context(), 40*ms)
		defer cancel()
		start(ctx, g, admit.Background)
		time.Sleep(40 * ms)
		want("background left 40ms context deadline exceeded")

		start(t.Context(), g, admit.Sheddable)
		time.Sleep(10 * ms)
		start(t.Context(), g, admit.Default)
		next := start(t.Context(), g, admit.Critical)
		want("sheddable refused evicted 10ms")
		refused(t, g, admit.Background, admit.QueueFull)
		want("background refused queue_full 0s")

		time.Sleep(20 * ms)
		p.Release(admit.Success)
		want("critical waited 20ms")
		time.Sleep(280 * ms)
		want("default refused waited_too_long 300ms")

		start(t.Context(), g, admit.Default)
		time.Sleep(5 * ms)
		g.Drain()
		want("default refused draining 5ms")
		refused(t, g, admit.Class(9), admit.Draining)
		want("background refused draining 0s")
		over, leave := context.WithCancel(t.Context())
		leave()
		start(over, g, admit.Default)
		want("default left 0s context canceled")
		next.permit.Release(admit.Success)
		want("")
	})
}

func TestLimitChangedByTheAlgorithm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r record
		answers := []int{7, 7, 3}
		g := newGate(t, 1, admit.WithHooks(r.hooks()), admit.WithLimit(&law{initial: 5, next: func(limit.Window) int {
			next := answers[0]
			answers = answers[1:]
			return next
		}}))
		for _, want := range []string{"limit 5 to 7", "", "limit 7 to 3"} {
			closeWindow(t, g)
			if got := r.take(); got != want {
				t.Errorf("hooks were told: got %q, want %q", got, want)
			}
		}
	})
}

func TestLimitChangedByUpdate(t *testing.T) {
	var r record
	g := newGate(t, 5, admit.WithHooks(r.hooks()))
	for _, tt := range []struct {
		limit int
		want  string
	}{{9, "limit 5 to 9"}, {9, ""}, {2, "limit 9 to 2"}} {
		update(t, g, fixed(t, tt.limit))
		if got := r.take(); got != tt.want {
			t.Errorf("hooks were told of Update to %d: got %q, want %q", tt.limit, got, tt.want)
		}
	}
}

func TestEverySetOfHooksIsCalled(t *testing.T) {
	var first, second record
	g := newGate(t, 1, admit.WithoutQueue(), admit.WithHooks(first.hooks()), admit.WithHooks(admit.Hooks{}))
	update(t, g, admit.WithHooks(second.hooks()))
	p := take(t, g)
	refused(t, g, admit.Default, admit.QueueFull)
	p.Release(admit.Ignored)
	const want = "default refused queue_full 0s"
	if got := first.take(); got != want {
		t.Errorf("the hooks of New: got %q, want %q", got, want)
	}
	if got := second.take(); got != want {
		t.Errorf("the hooks of Update: got %q, want %q", got, want)
	}
}

// scenario makes something happen for each hook: one waits and is let in, one leaves,
// one is refused, the limit changes. It leaves the gate at rest, with a limit of 2.
func scenario(t *testing.T, g *admit.Gate) {
	p := take(t, g)
	waiter := start(t.Context(), g, admit.Default)
	ctx, cancel := context.WithCancel(t.Context())
	leaver := start(ctx, g, admit.Default)
	refused(t, g, admit.Default, admit.QueueFull)
	cancel()
	synctest.Wait()
	wantState(t, "the one that left", leaver, context.Canceled.Error())
	p.Release(admit.Ignored)
	synctest.Wait()
	wantState(t, "the one that waited", waiter, runs)
	waiter.permit.Release(admit.Ignored)
	closeWindow(t, g)
	wantWhole(t, g, 2)
}

// scenarioGate has a limit of one, and of two once a window has closed.
func scenarioGate(t *testing.T, hooks ...admit.Hooks) *admit.Gate {
	opts := []admit.Option{
		queue(2, admit.Reject),
		admit.WithLimit(&law{initial: 1, next: func(limit.Window) int { return 2 }}),
	}
	for _, h := range hooks {
		opts = append(opts, admit.WithHooks(h))
	}
	return newGate(t, 1, opts...)
}

// A hook that panics is counted, told to the others, and changes nothing else: each
// in turn, and a Panicked that panics itself.
func TestHookPanics(t *testing.T) {
	const told = "critical refused queue_full 0s; default left 0s context canceled; default refused queue_full 0s; " +
		"default waited 0s; limit 1 to 2"
	for name, bad := range map[string]admit.Hooks{
		"Waited":       {Waited: func(context.Context, admit.Call, time.Duration) { panic("Waited") }},
		"Refused":      {Refused: func(context.Context, admit.Call, admit.Reason, time.Duration) { panic("Refused") }},
		"Left":         {Left: func(context.Context, admit.Call, time.Duration, error) { panic("Left") }},
		"LimitChanged": {LimitChanged: func(int, int) { panic("LimitChanged") }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var before, after record
				bad.Panicked = func(any) { panic("again") }
				g := scenarioGate(t, before.hooks(), bad, after.hooks())
				scenario(t, g)
				panics := 1
				if name == "Refused" { // once by the queue's bound, once by wantWhole
					panics = 2
				}
				want := told + strings.Repeat("; panicked "+name, panics)
				if got := before.take(); got != want {
					t.Errorf("hooks before: got %q, want %q", got, want)
				}
				if got := after.take(); got != want {
					t.Errorf("hooks after: got %q, want %q", got, want)
				}
				if got := g.Stats().Panics; got != uint64(panics) {
					t.Errorf("panics: got %d, want %d", got, panics)
				}
			})
		})
	}
}

// A hook that ends its goroutine, as a failing test in a hook does, takes no permit with
// it: not one that was just handed over, nor one of a dry run.
func TestGoexitInAHook(t *testing.T) {
	exits := admit.Hooks{
		Waited:  func(context.Context, admit.Call, time.Duration) { runtime.Goexit() },
		Refused: func(context.Context, admit.Call, admit.Reason, time.Duration) { runtime.Goexit() },
	}
	short := queue(1, admit.Reject)
	for name, opts := range map[string][]admit.Option{
		"in earnest":                {short},
		"dry run":                   {short, admit.WithDryRun(true)},
		"dry run, as if refused":    {admit.WithoutQueue(), admit.WithDryRun(true)},
		"in earnest, without queue": {admit.WithoutQueue()},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, 1, append(opts, admit.WithHooks(exits))...)
			p := take(t, g)
			for range 3 {
				start(t.Context(), g, admit.Default)
			}
			p.Release(admit.Ignored)
			synctest.Wait()
			if s := g.Stats(); s.InFlight != 0 || s.Queue != 0 {
				t.Errorf("%s: got %d in flight, %d waiting after all goroutines ended, want 0, 0", name, s.InFlight, s.Queue)
			}
		})
	}
}

// Hooks run outside the lock: each may use the gate.
func TestHooksMayUseTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g *admit.Gate
		var used sync.Map
		use := func(name string) {
			if _, again := used.LoadOrStore(name, true); again { // a refusal in the hook calls it again
				return
			}
			if got := statsNow(g).Name; got != "default" {
				t.Errorf("Stats in %s: got none, want the lock not held", name)
				return
			}
			gateFuncs.Full(g)
			if err := g.Update(admit.WithDryRun(false)); err != nil {
				t.Errorf("Update in %s: got %v, want no error", name, err)
			}
			if p, err := g.Acquire(t.Context(), admit.Call{}); err == nil {
				p.Release(admit.Ignored)
			}
		}
		g = scenarioGate(t, admit.Hooks{
			Waited:       func(context.Context, admit.Call, time.Duration) { go use("Waited") }, // its caller holds the only permit
			Refused:      func(context.Context, admit.Call, admit.Reason, time.Duration) { use("Refused"); panic("for Panicked") },
			Left:         func(context.Context, admit.Call, time.Duration, error) { go use("Left") },
			LimitChanged: func(int, int) { use("LimitChanged") },
			Panicked:     func(any) { use("Panicked") },
		})
		update(t, g, admit.WithQueue(admit.QueueConfig{Capacity: 2, Policy: admit.Reject, MaxWait: time.Hour}))
		scenario(t, g)
		synctest.Wait()
		for _, name := range []string{"Waited", "Refused", "Left", "LimitChanged", "Panicked"} {
			if _, ok := used.Load(name); !ok {
				t.Errorf("hooks that used the gate: got %s missing, want all five", name)
			}
		}
	})
}

// Panicked, too, runs outside the lock when it was the algorithm that panicked.
func TestPanickedOfTheAlgorithmMayUseTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g *admit.Gate
		told := 0
		g = newGate(t, 3, admit.WithLimit(&law{initial: 3, next: func(limit.Window) int { panic("law") }}),
			admit.WithHooks(admit.Hooks{Panicked: func(any) { told = statsNow(g).Limit }}))
		closeWindow(t, g)
		if told != 3 {
			t.Errorf("limit in Panicked: got %d, want 3, and the lock not held", told)
		}
	})
}

// statsNow returns g.Stats(), or no Stats if the gate's lock stays held.
func statsNow(g *admit.Gate) admit.Stats {
	stats := make(chan admit.Stats, 1)
	go func() { stats <- g.Stats() }()
	for range forbearance {
		select {
		case s := <-stats:
			return s
		default:
			runtime.Gosched()
		}
	}
	return admit.Stats{}
}

func TestAlgorithmPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r record
		good := false
		g := newGate(t, 1, admit.WithHooks(r.hooks()), admit.WithLimit(&law{initial: 3, next: func(limit.Window) int {
			if !good {
				panic("law")
			}
			return 4
		}}))
		for range 3 {
			closeWindow(t, g)
		}
		if got, want := r.take(), "panicked law; panicked law; panicked law"; got != want {
			t.Errorf("hooks were told: got %q, want %q", got, want)
		}
		if s := g.Stats(); s.Panics != 3 || s.Limit != 3 || s.InFlight != 0 {
			t.Errorf("got %d panics, limit %d, %d in flight, want 3, 3, 0", s.Panics, s.Limit, s.InFlight)
		}
		good = true
		closeWindow(t, g)
		wantWhole(t, g, 4)
	})
}

// What an algorithm answers is brought between 1 and limit.Max.
func TestAlgorithmAnswersNonsense(t *testing.T) {
	for answer, want := range map[int]int{
		0: 1, -1: 1, math.MinInt: 1, math.MaxInt: limit.Max, limit.Max + 1: limit.Max, limit.Max: limit.Max, 1: 1,
	} {
		synctest.Test(t, func(t *testing.T) {
			var r record
			g := newGate(t, 1, admit.WithHooks(r.hooks()), admit.WithLimit(&law{initial: 5, next: func(limit.Window) int { return answer }}))
			permits := takeN(t, g, 2)
			closeWindow(t, g)
			if got := g.Stats().Limit; got != want {
				t.Errorf("limit after the answer %d: got %d, want %d", answer, got, want)
			}
			if got, want := r.take(), fmt.Sprintf("limit 5 to %d", want); got != want {
				t.Errorf("hooks were told: got %q, want %q", got, want)
			}
			release(permits)
			if s := g.Stats(); s.InFlight != 0 {
				t.Errorf("in flight: got %d, want 0", s.InFlight)
			}
			if want == 1 {
				wantWhole(t, g, 1)
			}
		})
	}
}

// A gate may be told new options whatever its algorithm has answered since.
func TestUpdateAfterNonsense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &law{initial: 5}
		a.next = func(limit.Window) int { a.initial = 0; return 0 }
		g := newGate(t, 1, admit.WithLimit(a))
		closeWindow(t, g)
		if err := g.Update(admit.WithHooks(admit.Hooks{})); err != nil {
			t.Errorf("Update of the hooks: got %v, want no error", err)
		}
	})
}
