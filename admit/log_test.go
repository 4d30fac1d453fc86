package admit_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/logtest"
	"github.com/weir-go/weir/limit"
)

// Refusals are logged once a second for each reason, and name neither the tenant nor more of
// the method than fits.
func TestLogSamplesRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b logtest.Book
		g := newGate(t, 1, admit.WithName("api"), admit.WithoutQueue(), admit.WithLogger(b.Logger()))
		p := take(t, g)
		for range 30 { // three seconds
			for range 10 {
				_, _ = g.Acquire(t.Context(), admit.Call{Method: "/a/B", Class: admit.Critical, Tenant: "secret"})
			}
			time.Sleep(100 * ms)
		}
		lines := strings.Split(b.Take(), "\n")
		if len(lines) != 3 {
			t.Fatalf("three seconds of refusals: got %d lines, want 3: %q", len(lines), lines)
		}
		const want = `level=WARN msg="weir: calls are refused" gate=api method=/a/B class=critical reason=queue_full waited=0s refused=100`
		if lines[1] != want {
			t.Errorf("line: got %s, want %s", lines[1], want)
		}
		_, _ = g.Acquire(t.Context(), admit.Call{Method: strings.Repeat("x", 1<<20)})
		if got := b.Take(); len(got) > 500 {
			t.Errorf("a method of a megabyte: got a line of %d bytes, want it cut off", len(got))
		}
		g.Drain()
		g.Drain()
		if got, want := b.Take(), `level=INFO msg="weir: the gate drains" gate=api refused_waiters=0`; got != want {
			t.Errorf("two Drains: got %q, want %q", got, want)
		}
		update(t, g, admit.WithClassConfig(7, admit.ClassConfig{Name: "reports"}))
		time.Sleep(time.Second)
		_, _ = g.Acquire(t.Context(), admit.Call{Class: 7})
		if got := b.Take(); !strings.Contains(got, " class=reports reason=draining ") {
			t.Errorf("a class of the program: got %q, want its name", got)
		}
		update(t, g, admit.WithLogger(nil))
		_, _ = g.Acquire(t.Context(), admit.Call{})
		if got := b.Take(); got != "" {
			t.Errorf("without a logger: got %q, want nothing", got)
		}
		p.Release(admit.Ignored)
	})
}

// The limit is logged when it reaches the minimum of its algorithm, and when it leaves it.
func TestLogOfTheMinimum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b logtest.Book
		aimd, err := limit.NewAIMD(limit.AIMDConfig{Initial: 4, Min: 3, Backoff: 0.5})
		if err != nil {
			t.Fatal(err)
		}
		g := newGate(t, 1, admit.WithName("api"), admit.WithLimit(aimd), admit.WithLogger(b.Logger()))
		window := func(o admit.Outcome) {
			for range limit.WindowCalls / 2 {
				for _, p := range takeN(t, g, g.Limit()) {
					p.Release(o)
				}
			}
			time.Sleep(2 * limit.WindowLength)
			take(t, g).Release(o)
		}
		window(admit.Overload)
		if got, want := b.Take(), `level=WARN msg="weir: the limit is at its minimum" gate=api limit=3 was=4`; got != want {
			t.Errorf("after overloads: got %q, want %q", got, want)
		}
		window(admit.Overload)
		if got := b.Take(); got != "" {
			t.Errorf("at the minimum: got %q, want no second line", got)
		}
		window(admit.Success)
		if got, want := b.Take(), `level=INFO msg="weir: the limit has left its minimum" gate=api limit=4`; got != want {
			t.Errorf("after successes: got %q, want %q", got, want)
		}
	})
}

type traceKey struct{}

// Hooks get the context of the call, its method and its tenant.
func TestHooksGetTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		see := func(what string, ctx context.Context, c admit.Call) {
			trace, _ := ctx.Value(traceKey{}).(string)
			told = append(told, what+" "+trace+" "+c.Method+" "+c.Tenant+" "+c.Class.String())
		}
		g := newGate(t, 1, admit.WithQueue(admit.QueueConfig{Capacity: 1, MaxWait: time.Second}), admit.WithHooks(admit.Hooks{
			Waited:  func(ctx context.Context, c admit.Call, _ time.Duration) { see("waited", ctx, c) },
			Refused: func(ctx context.Context, c admit.Call, _ admit.Reason, _ time.Duration) { see("refused", ctx, c) },
			Left:    func(ctx context.Context, c admit.Call, _ time.Duration, _ error) { see("left", ctx, c) },
		}))
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), traceKey{}, "trace"))
		call := admit.Call{Method: "/a/B", Tenant: "alice", Class: admit.Class(77)}
		p := take(t, g)
		waiter := startCall(ctx, g, call)
		_, _ = g.Acquire(ctx, call)
		p.Release(admit.Ignored)
		synctest.Wait()
		leaver := startCall(ctx, g, call)
		cancel()
		synctest.Wait()
		wantState(t, "the one that left", leaver, context.Canceled.Error())
		waiter.permit.Release(admit.Ignored)
		want := "refused trace /a/B alice background; waited trace /a/B alice background; left trace /a/B alice background"
		if got := strings.Join(told, "; "); got != want {
			t.Errorf("hooks were told: got %q, want %q", got, want)
		}
	})
}
