package admit_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/inside"
	"github.com/weir-go/weir/internal/racetest"
	"github.com/weir-go/weir/limit"
)

const ms = time.Millisecond

// gateFuncs are the functions of gates that are for other packages of weir.
var gateFuncs = inside.Admit.(inside.Gates[*admit.Gate, admit.Call, admit.Class, admit.Reason, admit.Option])

// slowdown divides the rounds of long tests.
const slowdown = racetest.Slowdown

// fixed returns a limit that stays where it is.
func fixed(t testing.TB, n int) admit.Option {
	t.Helper()
	a, err := limit.NewFixed(n)
	if err != nil {
		t.Fatal(err)
	}
	return admit.WithLimit(a)
}

// newGate returns a gate with a fixed limit of n; options may replace it.
func newGate(t testing.TB, n int, opts ...admit.Option) *admit.Gate {
	t.Helper()
	g, err := admit.New(append([]admit.Option{fixed(t, n)}, opts...)...)
	if err != nil {
		t.Fatalf("New: got %v, want a gate", err)
	}
	return g
}

func queue(capacity int, p admit.Policy) admit.Option {
	return admit.WithQueue(admit.QueueConfig{Capacity: capacity, Policy: p})
}

func update(t testing.TB, g *admit.Gate, opts ...admit.Option) {
	t.Helper()
	if err := g.Update(opts...); err != nil {
		t.Fatalf("Update: got %v, want no error", err)
	}
}

// take takes a permit that must be free.
func take(t testing.TB, g *admit.Gate) *admit.Permit {
	t.Helper()
	p, err := g.Acquire(context.Background(), admit.Call{})
	if err != nil {
		t.Fatalf("Acquire: got %v, want a permit", err)
	}
	return &p
}

func takeN(t testing.TB, g *admit.Gate, n int) []*admit.Permit {
	t.Helper()
	permits := make([]*admit.Permit, n)
	for i := range permits {
		permits[i] = take(t, g)
	}
	return permits
}

func release(permits []*admit.Permit) {
	for _, p := range permits {
		p.Release(admit.Ignored)
	}
}

// refused makes a call that must be refused at once.
func refused(t testing.TB, g *admit.Gate, c admit.Class, why admit.Reason) *admit.Refusal {
	t.Helper()
	_, err := g.Acquire(context.Background(), admit.Call{Class: c})
	return isRefusal(t, err, why)
}

func isRefusal(t testing.TB, err error, why admit.Reason) *admit.Refusal {
	t.Helper()
	var r *admit.Refusal
	if !errors.As(err, &r) || r.Reason != why {
		t.Fatalf("error: got %v, want a refusal because of %v", err, why)
	}
	return r
}

// classNames are those of a gate that was not told of others.
var classNames = [admit.MaxClasses]string{"default", "critical", "sheddable", "background"}

// wantError fails unless err is of a kind and says what it should.
func wantError(t testing.TB, err, kind error, says string) {
	t.Helper()
	if err == nil || !errors.Is(err, kind) || !strings.Contains(err.Error(), says) {
		t.Errorf("error: got %v, want %v that says %q", err, kind, says)
	}
}

// A call is an Acquire in a goroutine of its own, in a bubble.
type call struct {
	permit admit.Permit
	err    error
	took   time.Duration
	over   atomic.Bool // the other fields are set
}

// start makes a call, and returns when it has got a permit, was refused, or waits.
func start(ctx context.Context, g *admit.Gate, c admit.Class) *call {
	return startCall(ctx, g, admit.Call{Class: c})
}

func startCall(ctx context.Context, g *admit.Gate, c admit.Call) *call {
	a := &call{}
	begin := time.Now()
	go func() {
		a.permit, a.err = g.Acquire(ctx, c)
		a.took = time.Since(begin)
		a.over.Store(true)
	}()
	synctest.Wait()
	return a
}

// state says what has become of a call. The bubble must be at rest.
func (a *call) state() string {
	switch {
	case !a.over.Load():
		return "waits"
	case a.err != nil:
		return a.err.Error()
	default:
		return "runs"
	}
}

// wantState waits until the bubble is at rest.
func wantState(t testing.TB, what string, a *call, want string) {
	t.Helper()
	synctest.Wait()
	if got := a.state(); got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

const (
	waits    = "waits"
	runs     = "runs"
	evicted  = "admit: refused: evicted"
	full     = "admit: refused: queue_full"
	tooLong  = "admit: refused: waited_too_long"
	tooClose = "admit: refused: deadline_too_close"
	draining = "admit: refused: draining"
)

// served returns, for permits handed on one by one, which calls got them: the
// names of calls in the order in which they ran. first holds the only permit.
func served(first *admit.Permit, calls map[string]*call) string {
	order, ran := "", map[string]bool{}
	for p := first; p != nil; {
		p.Release(admit.Ignored)
		synctest.Wait()
		p = nil
		for name, a := range calls {
			if !ran[name] && a.state() == runs {
				ran[name], p = true, &a.permit
				order += name
			}
		}
	}
	return order
}

// wantWhole fails unless the gate is at rest with every permit at hand: all n can
// be taken, and not one more.
func wantWhole(t testing.TB, g *admit.Gate, n int) {
	t.Helper()
	if s := g.Stats(); s.InFlight != 0 || s.Queue != 0 || s.Limit != n {
		t.Fatalf("at rest: got limit %d, in flight %d, queue %d, want %d, 0, 0", s.Limit, s.InFlight, s.Queue, n)
	}
	update(t, g, admit.WithoutQueue())
	permits := takeN(t, g, n)
	refused(t, g, admit.Critical, admit.QueueFull)
	release(permits)
	if s := g.Stats(); s.InFlight != 0 {
		t.Fatalf("in flight after all were released: got %d, want 0", s.InFlight)
	}
}

// teach lets so many calls succeed, each after latency, that the gate knows it.
func teach(t testing.TB, g *admit.Gate, latency time.Duration) {
	t.Helper()
	teachClass(t, g, admit.Default, latency)
}

func teachClass(t testing.TB, g *admit.Gate, c admit.Class, latency time.Duration) {
	t.Helper()
	for begin, n := time.Now(), 0; n < 2*limit.WindowCalls || time.Since(begin) < 3*limit.WindowLength; n++ {
		p, err := g.Acquire(t.Context(), admit.Call{Class: c})
		if err != nil {
			t.Fatalf("Acquire: got %v, want a permit", err)
		}
		time.Sleep(latency)
		p.Release(admit.Success)
	}
}

// A law is an algorithm made of its answers.
type law struct {
	initial int
	next    func(limit.Window) int
}

func (l *law) Limit() int { return l.initial }

func (l *law) Update(w limit.Window) int { return l.next(w) }

// closeWindow makes calls in a bubble until the algorithm has been asked once.
func closeWindow(t testing.TB, g *admit.Gate) {
	t.Helper()
	for range limit.WindowCalls {
		take(t, g).Release(admit.Ignored)
	}
	time.Sleep(2 * limit.WindowLength)
	take(t, g).Release(admit.Ignored)
}
