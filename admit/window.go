package admit

import (
	"math"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"github.com/weir-go/weir/limit"
)

// A tally is what is known of calls that ended.
type tally struct {
	ended     [NumOutcomes]uint64
	unpressed uint64  // found a permit free
	residence float64 // of all calls, in seconds, each times its cost
	weight    float64 // of the successes: what they cost together
	sum       float64 // of the latencies of successes, in seconds, each times its cost
	squares   float64
	ran, low  sums          // of the successes and overloads, and of those of them that began among few
	running   span          // of all calls
	fastest   time.Duration // of the successes; meaningless if there are none
}

func (t *tally) add(o *tally) {
	if o.ended[Success] > 0 && (t.ended[Success] == 0 || o.fastest < t.fastest) {
		t.fastest = o.fastest
	}
	for i := range t.ended {
		t.ended[i] += o.ended[i]
	}
	t.unpressed += o.unpressed
	t.ran.add(o.ran)
	t.low.add(o.low)
	t.residence += o.residence
	t.running.add(o.running)
	t.weight += o.weight
	t.sum += o.sum
	t.squares += o.squares
}

func (t *tally) calls() int {
	return int(t.ended[Ignored] + t.ended[Success] + t.ended[Overload])
}

// begun is how a call began: how many permits were in use, its own included, and
// whether that was at most the algorithm's mark.
type begun struct {
	among int
	low   bool
}

func (g *Gate) begin(among int) begun {
	return begun{among: among, low: int64(among) <= g.mark.Load()}
}

// sums are those of some calls, each times its cost.
type sums struct {
	calls                           uint64
	weight, latency, squares, among float64
}

func (s *sums) add(o sums) {
	s.calls += o.calls
	s.weight += o.weight
	s.latency += o.latency
	s.squares += o.squares
	s.among += o.among
}

// latencies is what an algorithm sees of them.
func (s *sums) latencies() limit.Latencies {
	if s.weight == 0 {
		return limit.Latencies{}
	}
	mean := s.latency / s.weight
	return limit.Latencies{
		Calls:         int(s.calls),
		Mean:          seconds(mean),
		Deviation:     seconds(math.Sqrt(max(0, s.squares/s.weight-mean*mean))),
		StartInFlight: s.among / s.weight,
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// A span is a sum of durations that may be more than the 292 years that a Duration
// can be.
type span struct {
	seconds int64
	rest    time.Duration
}

func (s *span) add(o span) {
	s.seconds += o.seconds
	s.rest += o.rest
	if s.rest >= math.MaxInt64/4 {
		s.seconds += int64(s.rest / time.Second)
		s.rest %= time.Second
	}
}

func (s *span) inSeconds() float64 { return float64(s.seconds) + s.rest.Seconds() }

// A shard is where some of the calls leave their samples, so that they need
// neither the gate's lock nor one another's cache line.
type shard struct {
	mu sync.Mutex // guards tally
	tally
	_ [256 - 8 - unsafe.Sizeof(tally{})]byte
}

func newShards() []shard {
	n := 4
	for n < 4*runtime.GOMAXPROCS(0) && n < 64 {
		n *= 2
	}
	return make([]shard, n)
}

// shard chooses a shard by where the permit lies, which is as a rule the stack
// of the goroutine that runs the call: the next call on that stack is likely to
// run on the same core, and finds the shard in its cache.
func (g *Gate) shard(p *Permit) *shard {
	const golden = 0x9e3779b97f4a7c15
	page := uint64(uintptr(unsafe.Pointer(p))) >> 11 //nolint:gosec // a number to hash, never a pointer again
	return &g.shards[page*golden>>32&uint64(len(g.shards)-1)]
}

// record leaves a sample in a shard.
func (g *Gate) record(p *Permit, o Outcome, latency time.Duration) {
	if o >= NumOutcomes {
		o = Ignored
	}
	s := g.shard(p)
	s.mu.Lock()
	f, cost := latency.Seconds(), float64(p.claim.cost)
	if o == Success {
		if s.ended[Success] == 0 || latency < s.fastest {
			s.fastest = latency
		}
		s.weight += cost
		s.sum += cost * f
		s.squares += cost * f * f
	}
	if o != Ignored {
		ran := sums{1, cost, cost * f, cost * f * f, cost * float64(p.claim.begun.among)}
		s.ran.add(ran)
		if p.claim.begun.low {
			s.low.add(ran)
		}
	}
	s.ended[o]++
	s.residence += cost * f
	s.running.add(span{rest: latency})
	if !p.pressed {
		s.unpressed++
	}
	s.mu.Unlock()
}

// A window is what has been collected for the algorithm since the last one, and
// what the last one taught. The gate's lock guards it.
type window struct {
	tally
	start   time.Duration
	limit   int
	pressed int
	bounded int
	waits   schedulerWaits
}

func (w *window) clear(now time.Duration) {
	w.tally, w.start, w.pressed, w.bounded = tally{}, now, 0, 0
}

// fold moves the shards' samples into the window, and closes it when it is
// full. If another goroutine holds the lock, the next call will do.
func (g *Gate) fold(now time.Duration) {
	if !g.mu.TryLock() {
		return
	}
	from, to, hooks := g.window.limit, 0, g.cfg.hooks
	var failure any
	func() {
		defer g.mu.Unlock() // also after Goexit in an algorithm
		failure = g.foldLocked(now)
		to = g.window.limit
	}()
	if failure != nil {
		g.panicked(hooks, failure)
	}
	g.limitChanged(hooks, from, to)
}

func (g *Gate) limitChanged(hooks []Hooks, from, to int) {
	if from == to {
		return
	}
	g.each(hooks, func(h *Hooks) {
		if h.LimitChanged != nil {
			h.LimitChanged(from, to)
		}
	})
}

// foldLocked returns what the algorithm panicked with, if it did.
func (g *Gate) foldLocked(now time.Duration) (failure any) {
	g.gatherLocked()
	g.foldAt.Store(int64(now + limit.WindowLength))
	w := &g.window
	full := now-w.start >= limit.WindowLength && w.calls() >= limit.WindowCalls
	prober, probes := g.cfg.algorithm.(limit.Prober)
	late := probes && w.pressed > 0 && now-w.start >= limit.WindowPatience
	if !full && !late {
		return nil
	}
	closed := g.closeLocked(now, probes)
	defer func() { failure = recover() }() // the limit stays what it was
	if probes {
		defer func() { g.mark.Store(int64(prober.Mark())) }()
	}
	if n := min(max(g.cfg.algorithm.Update(closed), 1), limit.Max); n != w.limit {
		g.setLimitLocked(n)
	}
	return nil
}

// markLocked asks a new algorithm for its mark.
func (g *Gate) markLocked(a limit.Algorithm) {
	mark := 0
	if p, ok := a.(limit.Prober); ok {
		mark = p.Mark()
	}
	g.mark.Store(int64(mark))
}

// gatherLocked empties the shards into the window and the totals.
func (g *Gate) gatherLocked() {
	var all tally
	for i := range g.shards {
		s := &g.shards[i]
		s.mu.Lock()
		all.add(&s.tally)
		s.tally = tally{}
		s.mu.Unlock()
	}
	g.window.add(&all)
	g.totals.add(&all)
}

// worthYielding is the latency from which on a yield, some hundred nanoseconds,
// is nothing.
const worthYielding = 100 * time.Microsecond

// closeLocked ends the window and returns it as the algorithm sees it.
func (g *Gate) closeLocked(now time.Duration, probes bool) limit.Window {
	w := &g.window
	length := now - w.start
	out := limit.Window{
		Duration:    length,
		Limit:       w.limit,
		MaxInFlight: int(g.peak.Swap(int64(g.load().inFlight()))),
		Arrived:     int(w.unpressed) + w.pressed,
		Pressed:     w.pressed,
		Bounded:     w.bounded,
		Succeeded:   int(w.ended[Success]),
		Overloaded:  int(w.ended[Overload]),
		Ignored:     int(w.ended[Ignored]),
		InFlight:    w.residence / length.Seconds(),
		Ran:         w.ran.latencies(),
		Low:         w.low.latencies(),
	}
	if probes {
		out.SchedulerDelay = w.waits.mean()
	}
	if n := w.weight; n > 0 {
		mean := w.sum / n
		out.MeanLatency = seconds(mean)
		out.MinLatency = w.fastest
		out.LatencyDeviation = seconds(math.Sqrt(max(0, w.squares/n-mean*mean)))
		g.pace = out.MeanLatency / time.Duration(w.limit)
		g.yields.Store(out.MeanLatency >= worthYielding)
	}
	g.refusals.learn(min(g.cfg.places(), max(2, w.limit))+1, g.pace, g.cfg.maxWait(), out.Arrived, out.Completed())
	w.clear(now)
	return out
}
