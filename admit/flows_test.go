package admit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
)

// A stream of calls is alike but for chance: it comes at random or in bursts, and each
// call holds its permits for a time and then succeeds.
type stream struct {
	call     admit.Call
	rate     float64                        // calls a second
	burst    int                            // calls that come together; 0 means one
	lasts    func(*rand.Rand) time.Duration // how long a call runs
	deadline time.Duration                  // after which its caller has no use for it; 0: none
	from, to time.Duration                  // when it is there; to is 0 for the end
	each     func(*rand.Rand) admit.Call    // instead of call
	loop     int                            // so many callers, each of which makes one call after another
}

// A tally says what became of a stream's calls.
type tally struct {
	calls, good int
	waited      []time.Duration // until the permit, of those that got one
	refusedIn   []time.Duration // until the refusal
	refused     map[admit.Reason]int
	left        int
	first       time.Duration // the first refusal
}

// spare skips all rows of a long table but the first under the race detector.
func spare(t *testing.T, row int) {
	t.Helper()
	if slowdown > 1 && row > 0 {
		t.Skip("one row is enough for the race detector")
	}
}

// measured reports for docs/measurements.md which share of the calls was served, of those
// that a test is about and of those beside them.
func measured(t *testing.T, tallies ...*tally) {
	t.Helper()
	for i, c := range tallies {
		t.Attr([]string{"served", "beside"}[i], fmt.Sprintf("%.4f", c.share()))
	}
}

func (c *tally) share() float64 { return float64(c.good) / float64(max(1, c.calls)) }

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = slices.Clone(d)
	slices.Sort(d)
	return d[int(q*float64(len(d)-1))]
}

func always(d time.Duration) func(*rand.Rand) time.Duration {
	return func(*rand.Rand) time.Duration { return d }
}

func exponential(mean time.Duration) func(*rand.Rand) time.Duration {
	return func(r *rand.Rand) time.Duration { return time.Duration(r.ExpFloat64() * float64(mean)) }
}

// A world is a gate, what comes to it, and for how long.
type world struct {
	gate    func(t *testing.T) *admit.Gate
	streams []stream
	lasts   time.Duration
	workers int                 // if not 0, calls beyond so many wait inside
	during  func(g *admit.Gate) // runs beside
	stops   []stop
	seed    uint64
}

// A stop is a time in which the process does not run. Calls that come or end then do so
// afterwards, all at once.
type stop struct{ at, lasts time.Duration }

// runs returns when the process runs again, if it stands still at a time, or else that time.
func (w world) runs(at time.Duration) time.Duration {
	for _, s := range w.stops {
		if at >= s.at && at < s.at+s.lasts {
			return s.at + s.lasts
		}
	}
	return at
}

// run plays a world in virtual time. Calls that come in the last MaxWait count too.
func (w world) run(t *testing.T) (tallies []*tally, s admit.Stats) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := w.gate(t)
		var inside chan struct{}
		if w.workers > 0 {
			inside = make(chan struct{}, w.workers)
		}
		begin := time.Now()
		ctx, stop := context.WithCancel(t.Context())
		var all, callers sync.WaitGroup
		var mu sync.Mutex
		for i, st := range w.streams {
			got := &tally{refused: map[admit.Reason]int{}}
			tallies = append(tallies, got)
			random := rand.New(rand.NewPCG(w.seed, uint64(i)))
			one := func() {
				mu.Lock()
				got.calls++
				c, lasts := st.call, st.lasts(random)
				if st.each != nil {
					c = st.each(random)
				}
				mu.Unlock()
				within, cancel := ctx, context.CancelFunc(func() {})
				if st.deadline > 0 {
					within, cancel = context.WithTimeout(ctx, st.deadline)
				}
				defer cancel()
				came := time.Now()
				p, err := g.Acquire(within, c)
				took := time.Since(came)
				var refusal *admit.Refusal
				switch {
				case errors.As(err, &refusal):
					mu.Lock()
					got.refused[refusal.Reason]++
					got.refusedIn = append(got.refusedIn, took)
					if got.first == 0 {
						got.first = time.Since(begin)
					}
					mu.Unlock()
					return
				case err != nil:
					mu.Lock()
					got.left++
					mu.Unlock()
					return
				}
				outcome := admit.Overload
				defer func() { p.Release(outcome) }()
				if inside != nil {
					inside <- struct{}{}
					defer func() { <-inside }()
				}
				select {
				case <-time.After(lasts):
				case <-ctx.Done():
				}
				now := time.Since(begin)
				time.Sleep(w.runs(now) - now)
				mu.Lock()
				defer mu.Unlock()
				got.waited = append(got.waited, took)
				if within.Err() == nil || ctx.Err() != nil { // running at the end is good enough
					outcome = admit.Success
					got.good++
				}
			}
			end := st.to
			if end == 0 {
				end = w.lasts
			}
			for range st.loop {
				callers.Go(func() {
					time.Sleep(st.from)
					for time.Since(begin) < end && ctx.Err() == nil {
						before := time.Now()
						one()
						if time.Since(before) == 0 {
							time.Sleep(100 * ms)
						}
					}
				})
			}
			if st.loop > 0 {
				continue
			}
			callers.Go(func() {
				time.Sleep(st.from)
				due := st.from
				for {
					mu.Lock() // calls draw from random as well
					wait := time.Duration(random.ExpFloat64() / st.rate * float64(max(1, st.burst)) * float64(time.Second))
					mu.Unlock()
					if st.burst > 0 {
						wait = time.Duration(float64(st.burst) / st.rate * float64(time.Second))
					}
					due += wait
					time.Sleep(w.runs(due) - time.Since(begin))
					if due >= end {
						return
					}
					for range max(1, st.burst) {
						all.Go(one)
					}
				}
			})
		}
		if w.during != nil {
			callers.Go(func() { w.during(g) })
		}
		time.Sleep(w.lasts)
		s = g.Stats()
		time.Sleep(2 * time.Second)
		stop()
		callers.Wait()
		all.Wait()
		if rest := g.Stats(); rest.InFlight != 0 || rest.Queue != 0 || rest.Tenants != 0 {
			t.Errorf("at rest: got %+v, want nothing held and no call waiting", rest)
		}
	})
	return tallies, s
}
