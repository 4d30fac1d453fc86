//go:build unix

package debug_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/debug"
	"github.com/weir-go/weir/internal/racetest"
	"github.com/weir-go/weir/streamcredit"
)

// busy returns a handler of a process with many calls and streams, whose page was opened before
// they came, and the gate of the calls, with a free permit.
func busy(t testing.TB, calls, streams int) (*debug.Handler, *admit.Gate) {
	t.Helper()
	gate := must(admit.New(admit.WithFixedLimit(calls+1), admit.WithQueue(admit.QueueConfig{Capacity: 1})))(t)
	meter := streamcredit.NewMeter("feed")
	h := must(debug.NewHandler(gate, meter))(t)
	look(t, h)
	permits := make([]admit.Permit, calls)
	for i := range permits {
		p, err := gate.Acquire(context.Background(), admit.Call{Tenant: fmt.Sprint("tenant", i), Method: "/shop.v1.Shop/Buy"})
		if err != nil {
			t.Fatal(err)
		}
		p.MoveTo(&permits[i])
	}
	last := must(gate.Acquire(context.Background(), admit.Call{}))(t) // or nothing would be refused
	for i := range 200 {                                              // and refusals
		ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
		_, _ = gate.Acquire(ctx, admit.Call{Tenant: fmt.Sprint("refused", i), Method: "/shop.v1.Shop/Browse", Class: admit.Sheddable})
		cancel()
	}
	last.Release(admit.Ignored)
	t.Cleanup(func() {
		for i := range permits {
			permits[i].Release(admit.Ignored)
		}
	})
	openStreams(t, meter, streams)
	return h, gate
}

// refresh is what one refresh of the page costs the server.
func refresh(t testing.TB, h *debug.Handler) {
	t.Helper()
	debug.Forget(h)
	if w := ask(h, http.MethodGet, "/?format=json"); w.Code != http.StatusOK {
		t.Fatalf("a refresh: got status %d, want 200", w.Code)
	}
}

// A refresh allocates as much for a hundred thousand tenants and a thousand streams as for a
// hundredth of them, because the page shows a bounded number of each.
func TestARefreshDoesNotGrowWithTheCrowd(t *testing.T) {
	few, _ := busy(t, 1000, 110)
	many, _ := busy(t, 100_000, 1000)
	cost := func(h *debug.Handler) float64 {
		refresh(t, h)
		return testing.AllocsPerRun(20, func() { refresh(t, h) })
	}
	if s := look(t, many).GetMeters()[0]; s.GetOpen() != 1000 || len(s.GetStreams()) != 100 {
		t.Errorf("streams: got %d of %d, want 100 of 1000", len(s.GetStreams()), s.GetOpen())
	}
	if a, b := cost(few), cost(many); b > 1.2*a {
		t.Errorf("allocations of a refresh: got %.0f with many calls and %.0f with few, want about as many", b, a)
	}
}

// used returns the time for which processors have run this process.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// spin does a number of steps, each of which waits for the one before.
func spin(steps int) uint64 {
	x := uint64(steps) | 1
	for range steps {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	return x
}

// stepsPerSecond is how many steps a slow core of a server makes in a second: six instructions
// each, at 2 GHz.
const stepsPerSecond = 330e6

// A page that is refreshed each second uses less than a hundredth of a core, with a hundred
// thousand tenants and a thousand streams. The time of a core is counted in steps of a loop that
// runs in between, so that neither a slow machine nor other programs change the result.
func TestARefreshEachSecondUsesLittleOfACore(t *testing.T) {
	if racetest.Enabled {
		t.Skip("NOT CHECKED: the race detector makes code slower, and loops without memory less so")
	}
	h, _ := busy(t, 100_000, 1000)
	refresh(t, h)
	const rounds, refreshes, steps = 9, 10, 10_000_000
	var shares []float64
	for n := range rounds {
		begun := used()
		if spin(steps+n) == 0 {
			t.Fatal("the loop ends at 0, which it cannot")
		}
		step := float64(used()-begun) / steps
		begun = used()
		for range refreshes {
			refresh(t, h)
		}
		shares = append(shares, float64(used()-begun)/refreshes/step/stepsPerSecond)
	}
	slices.Sort(shares)
	t.Logf("share of a core: %.4f, from %.4f to %.4f", shares[rounds/2], shares[0], shares[rounds-1])
	if got := shares[rounds/2]; got > 0.01 {
		t.Errorf("a refresh each second: got %.2f %% of a core, want at most 1 %%", 100*got)
	}
}
