package admit_test

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/racetest"
)

// An incident is a while in which all goes differently for a server.
type incident struct {
	lasts time.Duration
	load  float64 // as a multiple of what the server can do
	worse float64 // share of the calls afterwards that it may cost
	// call replaces the work of a call that has a permit. The server's own work follows
	// if the call goes on.
	call func(ctx context.Context) (o admit.Outcome, goesOn bool)
}

// pause is a dependency that takes its time, with nothing scarce about it.
func pause(d time.Duration) func(context.Context) (admit.Outcome, bool) {
	return func(ctx context.Context) (admit.Outcome, bool) {
		select {
		case <-time.After(d):
			return admit.Success, true
		case <-ctx.Done():
			return admit.Overload, false
		}
	}
}

// A server that is busy again after an incident, at nine tenths of what it can do, serves
// as many calls as without the incident, from the first moment. Where calls were slow the
// limit was right for other calls, and it takes a second to find the new one.
func TestBusyAgainAfterAnIncident(t *testing.T) {
	t.Cleanup(admit.IgnoreScheduler())
	incidents := map[string]incident{
		"slow dependency":  {4 * time.Second, 0.9, 0.1, pause(50 * ms)},
		"dead dependency":  {4 * time.Second, 0.9, 0.07, pause(time.Hour)},
		"errors":           {4 * time.Second, 0.9, 0.01, func(context.Context) (admit.Outcome, bool) { return admit.Ignored, false }},
		"twelve-fold load": {3 * time.Second, 12, 0.01, nil},
		"idle hour":        {time.Hour, 0, 0.01, nil},
	}
	runs := func(i incident) (n uint64, mean, least float64) {
		switch {
		case racetest.Enabled:
			n = 1 // too few for the bounds
		case i.worse > 0.01:
			n = 40 // which differ widely
		default:
			n = 10
		}
		least = 1
		for seed := range n {
			served := busyAgain(t, seed, i)
			mean, least = mean+served/float64(n), min(least, served)
		}
		return n, mean, least
	}
	_, without, _ := runs(incident{})
	for name, i := range incidents {
		n, mean, least := runs(i)
		t.Logf("%s: served %.4f of the calls of the first 5 s, %.4f in the worst of %d runs, %.4f without it", name, mean, least, n, without)
		if mean < without-i.worse && !racetest.Enabled {
			t.Errorf("served in the first 5 s after %s: got %.4f of the calls, want at least %.4f, as without it", name, mean, without-i.worse)
		}
	}
}

// busyAgain returns which share of the calls of the first five seconds after an incident
// ended in time.
func busyAgain(t *testing.T, seed uint64, i incident) float64 {
	t.Helper()
	const (
		workers, service = 8, 5 * ms
		capacity         = workers * float64(time.Second/service)
		before, measured = 2 * time.Second, 5 * time.Second
		load             = 0.9
	)
	var asked, good atomic.Int64
	synctest.Test(t, func(t *testing.T) {
		g, err := admit.New()
		if err != nil {
			t.Fatal(err)
		}
		server := &pool{workers: make(chan struct{}, workers)}
		random := rand.New(rand.NewPCG(seed, 11))
		offer := func(load float64, d time.Duration, call func(time.Duration)) {
			end := time.Now().Add(d)
			if load == 0 {
				time.Sleep(d)
			}
			for time.Now().Before(end) {
				time.Sleep(time.Duration(random.ExpFloat64() / (load * capacity) * float64(time.Second)))
				go call(time.Duration(random.ExpFloat64() * float64(service)))
			}
		}
		healthy := func(work time.Duration) { server.call(t.Context(), g, admit.Call{}, work) }
		offer(load, before, healthy)
		offer(i.load, i.lasts, func(work time.Duration) {
			server.callAfter(t.Context(), g, admit.Call{}, work, i.call)
		})
		offer(load, measured, func(work time.Duration) {
			asked.Add(1)
			if server.call(t.Context(), g, admit.Call{}, work) {
				good.Add(1)
			}
		})
		time.Sleep(time.Second)
		synctest.Wait()
		s := g.Stats()
		if s.InFlight != 0 || s.Queue != 0 {
			t.Errorf("at rest: got %d in flight and %d waiting, want none", s.InFlight, s.Queue)
		}
	})
	return float64(good.Load()) / float64(asked.Load())
}
