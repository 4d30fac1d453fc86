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
