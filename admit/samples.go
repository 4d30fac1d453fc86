package admit

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/weir-go/weir/limit"
)

// samples collects the outcome and the latency of the calls that ended. It is safe for
// concurrent use, without the gate's lock.
type samples struct {
	shards []shard
	// mark is the largest number of permits in use with which a call counts as low, for
	// a [limit.Prober].
	mark atomic.Int64
	// due is the time on the gate's clock at which to gather the samples again.
	due atomic.Int64
}

func (s *samples) init() {
	n := 4
	for n < 4*runtime.GOMAXPROCS(0) && n < 64 {
		n *= 2
	}
	s.shards = make([]shard, n)
}

// useMark asks a new algorithm for its mark.
func (s *samples) useMark(a limit.Algorithm) {
	mark := 0
	if p, ok := a.(limit.Prober); ok {
		mark = p.Mark()
	}
	s.mark.Store(int64(mark))
}

// A shard holds the samples of some of the calls. Calls on different cores use different
// shards as a rule, so they do not compete for a lock or a cache line.
type shard struct {
	mu sync.Mutex // guards tally
	tally
	_ [256 - 8 - unsafe.Sizeof(tally{})]byte
}

// shard chooses a shard by the address of the permit. The permit is usually on the stack
// of the goroutine that runs the call. The next call on that stack is likely to run on
// the same core and to find the shard in its cache.
func (s *samples) shard(p *Permit) *shard {
	const golden = 0x9e3779b97f4a7c15
	page := uint64(uintptr(unsafe.Pointer(p))) >> 11 //nolint:gosec // a number to hash, never a pointer again
	return &s.shards[page*golden>>32&uint64(len(s.shards)-1)]
}

// begun describes the start of a call. Among is the number of permits in use, its own
// included. Low tells whether that is at most the mark.
type begun struct {
	among int
	low   bool
}

func (s *samples) begin(among int) begun {
	return begun{among: among, low: int64(among) <= s.mark.Load()}
}

// add records the end of a call.
func (s *samples) add(p *Permit, o Outcome, latency time.Duration) {
	if o >= NumOutcomes {
		o = Ignored
	}
	to := s.shard(p)
	to.mu.Lock()
	to.count(p, o, latency)
	to.mu.Unlock()
}

func (s *samples) isDue(now time.Duration) bool { return int64(now) >= s.due.Load() }

// gather empties the shards and returns their sum.
func (s *samples) gather() (all tally) {
	for i := range s.shards {
		from := &s.shards[i]
		from.mu.Lock()
		all.add(&from.tally)
		from.tally = tally{}
		from.mu.Unlock()
	}
	return all
}

// A tally sums up calls that ended. Sums of latencies are in seconds, and each latency is
// weighted by the cost of its call.
type tally struct {
	ended     [NumOutcomes]uint64
	unpressed uint64        // calls that found a permit free
	residence float64       // sum of the latencies of all calls
	weight    float64       // cost of the successes
	sum       float64       // sum of the latencies of the successes
	squares   float64       // sum of their squares
	ran       sums          // the successes and overloads
	low       sums          // the part of ran that began at or below the mark
	running   span          // time that all calls ran, not weighted
	fastest   time.Duration // the shortest success; meaningless without one
}

func (t *tally) count(p *Permit, o Outcome, latency time.Duration) {
	f, cost := latency.Seconds(), float64(p.claim.cost)
	if o == Success {
		if t.ended[Success] == 0 || latency < t.fastest {
			t.fastest = latency
		}
		t.weight += cost
		t.sum += cost * f
		t.squares += cost * f * f
	}
	if o != Ignored {
		ran := sums{1, cost, cost * f, cost * f * f, cost * float64(p.claim.begun.among)}
		t.ran.add(ran)
		if p.claim.begun.low {
			t.low.add(ran)
		}
	}
	t.ended[o]++
	t.residence += cost * f
	t.running.add(span{rest: latency})
	if !p.pressed {
		t.unpressed++
	}
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

// sums are sums over calls, each weighted by its cost. Among is the number of permits in
// use when a call began.
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

// latencies returns the sums as an algorithm sees them.
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

// A span is a sum of durations. It does not overflow after 292 years as a Duration does.
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
