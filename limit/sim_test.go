package limit_test

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/weir-go/weir/limit"
)

// sim is a discrete-event simulation of one server behind a gate, in virtual
// time: open-loop Poisson arrivals, a bounded queue (oldest first while it is
// less than half full, newest first beyond; the oldest makes room), K workers
// behind the gate that slow down as calls wait for them, callers that give up.
type sim struct {
	// The world.
	rate     func(t float64) float64 // arrivals a second
	workers  func(t float64) int     // calls served at once
	service  func(r *rand.Rand, t float64) float64
	slowdown float64 // relative cost of each call waiting behind the gate
	sharing  bool    // the workers share: processor sharing instead of a queue
	gap      float64 // from the end of one call to the start of the next
	deadline float64 // callers give up this long after their arrival; 0: never
	failing  func(r *rand.Rand, t float64) bool
	failTime float64
	queue    int // capacity of the gate's queue
	pool     int // more calls than this at once fail quickly as overloads; 0: any number
	// timeouts: a call that ends after its deadline is an overload.

	algorithm limit.Algorithm
	seed      uint64
	until     float64

	// State.
	r         *rand.Rand
	now       float64
	events    eventHeap
	inflight  int
	waiting   []*call // the gate's queue, oldest first
	behind    []*call // waiting for a worker
	busy      int
	limit     int
	shared    []*call // processor sharing
	sharedAt  float64
	version   int
	win       limit.Window
	winStart  float64
	sum, sq   float64
	residence float64
	lowest    float64

	// What is reported.
	trace     []tick
	good      []float64 // times at which a call ended in time
	latencies []sample
	refused   int
	arrivals  int
}

type tick struct {
	at    float64
	limit int
}

type sample struct{ at, latency float64 }

type call struct {
	arrived, admitted, remaining float64
	fails, overload              bool
}

type event struct {
	at      float64
	kind    int // 0 arrival, 1 a worker has finished, 2 sharing: next to finish, 3 gap over
	c       *call
	version int
}

type eventHeap []event

func (h eventHeap) Len() int           { return len(h) }
func (h eventHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h eventHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)        { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

func (s *sim) run() {
	s.r = rand.New(rand.NewPCG(s.seed, 17))
	s.limit = s.algorithm.Limit()
	s.lowest = math.Inf(1)
	s.trace = []tick{{0, s.limit}}
	s.push(event{at: s.r.ExpFloat64() / s.rate(0)})
	for len(s.events) > 0 {
		e := heap.Pop(&s.events).(event)
		if e.at > s.until {
			return
		}
		s.now = e.at
		switch e.kind {
		case 0:
			s.push(event{at: s.now + s.r.ExpFloat64()/s.rate(s.now)})
			s.arrive()
		case 1:
			s.busy--
			s.finish(e.c)
			s.startBehind()
		case 2:
			if e.version == s.version {
				s.advance()
				i := s.nextShared()
				c := s.shared[i]
				s.shared = slices.Delete(s.shared, i, i+1)
				s.finish(c)
				s.scheduleShared()
			}
		case 3:
			s.serve(e.c)
		}
	}
}

func (s *sim) push(e event) { heap.Push(&s.events, e) }

func (s *sim) arrive() {
	s.arrivals++
	s.win.Arrived++
	c := &call{arrived: s.now}
	if s.inflight < s.limit && len(s.waiting) == 0 {
		s.admit(c, 0)
		return
	}
	s.win.Pressed++
	if len(s.waiting) >= s.queue {
		s.refused++
		if s.queue == 0 {
			return
		}
		s.waiting = s.waiting[1:]
	}
	s.waiting = append(s.waiting, c)
	s.dispatch(0)
}

func (s *sim) dispatch(gap float64) {
	for s.inflight < s.limit && len(s.waiting) > 0 {
		var c *call
		if len(s.waiting)*2 > s.queue {
			c = s.waiting[len(s.waiting)-1]
			s.waiting = s.waiting[:len(s.waiting)-1]
		} else {
			c = s.waiting[0]
			s.waiting = s.waiting[1:]
		}
		if s.deadline > 0 && s.now > c.arrived+s.deadline {
			s.refused++
			continue
		}
		s.admit(c, gap)
	}
}

func (s *sim) admit(c *call, gap float64) {
	s.inflight++
	s.win.MaxInFlight = max(s.win.MaxInFlight, s.inflight)
	c.admitted = s.now
	c.fails = s.failing != nil && s.failing(s.r, s.now)
	c.overload = s.pool > 0 && s.inflight > s.pool
	if gap > 0 {
		s.push(event{at: s.now + gap, kind: 3, c: c})
		return
	}
	s.serve(c)
}

func (s *sim) serve(c *call) {
	if s.sharing {
		s.advance()
		c.remaining = s.service(s.r, s.now)
		s.shared = append(s.shared, c)
		s.scheduleShared()
		return
	}
	if c.overload {
		s.busy++
		s.push(event{at: s.now + 100e-6, kind: 1, c: c})
		return
	}
	s.behind = append(s.behind, c)
	s.startBehind()
}

func (s *sim) startBehind() {
	for s.busy < s.workers(s.now) && len(s.behind) > 0 {
		c := s.behind[0]
		s.behind = s.behind[1:]
		s.busy++
		t := s.failTime
		if !c.fails && !c.overload {
			t = s.service(s.r, s.now) * (1 + s.slowdown*float64(len(s.behind)))
		}
		s.push(event{at: s.now + t, kind: 1, c: c})
	}
}

// advance credits every shared call with its part of the time that has passed.
func (s *sim) advance() {
	if n := len(s.shared); n > 0 {
		speed := min(1, float64(s.workers(s.now))/float64(n))
		for _, c := range s.shared {
			c.remaining -= (s.now - s.sharedAt) * speed
		}
	}
	s.sharedAt = s.now
}

func (s *sim) nextShared() int {
	best := 0
	for i, c := range s.shared {
		if c.remaining < s.shared[best].remaining {
			best = i
		}
	}
	return best
}

func (s *sim) scheduleShared() {
	s.version++
	if n := len(s.shared); n > 0 {
		speed := min(1, float64(s.workers(s.now))/float64(n))
		left := max(0, s.shared[s.nextShared()].remaining)
		s.push(event{at: s.now + left/speed, kind: 2, version: s.version})
	}
}

func (s *sim) finish(c *call) {
	s.inflight--
	latency := s.now - c.admitted
	s.residence += latency
	late := s.deadline > 0 && s.now > c.arrived+s.deadline
	switch {
	case c.fails:
		s.win.Ignored++
	case c.overload:
		s.win.Overloaded++
	case late && c.admitted-c.arrived > latency:
		s.win.Ignored++ // as a gate does: it was late before it began
	case late:
		s.win.Overloaded++
	default:
		s.win.Succeeded++
		s.sum += latency
		s.sq += latency * latency
		s.lowest = min(s.lowest, latency)
		s.good = append(s.good, s.now)
		s.latencies = append(s.latencies, sample{s.now, s.now - c.arrived})
	}
	s.closeWindow()
	s.dispatch(s.gap)
}

func (s *sim) closeWindow() {
	length := s.now - s.winStart
	if s.win.Completed() < limit.WindowCalls || length < limit.WindowLength.Seconds() {
		return
	}
	w := s.win
	w.Duration = seconds(length)
	w.Limit = s.limit
	w.InFlight = s.residence / length
	if n := float64(w.Succeeded); n > 0 {
		mean := s.sum / n
		w.MeanLatency = seconds(mean)
		w.MinLatency = seconds(s.lowest)
		w.LatencyDeviation = seconds(math.Sqrt(max(0, s.sq/n-mean*mean)))
	}
	s.limit = s.algorithm.Update(w)
	s.trace = append(s.trace, tick{s.now, s.limit})
	s.win = limit.Window{MaxInFlight: s.inflight}
	s.winStart, s.sum, s.sq, s.residence, s.lowest = s.now, 0, 0, 0, math.Inf(1)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// goodput is the number of calls a second that ended in time, from a to b.
func (s *sim) goodput(a, b float64) float64 {
	lo, _ := slices.BinarySearch(s.good, a)
	hi, _ := slices.BinarySearch(s.good, b)
	return float64(hi-lo) / (b - a)
}

// latency is a quantile, in seconds, of what succeeded from a to b.
func (s *sim) latency(q, a, b float64) float64 {
	var l []float64
	for _, x := range s.latencies {
		if x.at >= a && x.at < b {
			l = append(l, x.latency)
		}
	}
	if len(l) == 0 {
		return math.NaN()
	}
	slices.Sort(l)
	return l[int(q*float64(len(l)-1))]
}

// limits are the smallest, mean (by time) and largest limit from a to b.
func (s *sim) limits(a, b float64) (lo int, mean float64, hi int) {
	lo = math.MaxInt
	for i, x := range s.trace {
		end := s.until
		if i+1 < len(s.trace) {
			end = s.trace[i+1].at
		}
		from, to := max(x.at, a), min(end, b)
		if to <= from {
			continue
		}
		lo, hi = min(lo, x.limit), max(hi, x.limit)
		mean += float64(x.limit) * (to - from) / (b - a)
	}
	return lo, mean, hi
}

func steady[T any](v T) func(float64) T { return func(float64) T { return v } }

func exponential(mean float64) func(*rand.Rand, float64) float64 {
	return func(r *rand.Rand, _ float64) float64 { return r.ExpFloat64() * mean }
}

func constant(mean float64) func(*rand.Rand, float64) float64 {
	return func(*rand.Rand, float64) float64 { return mean }
}

// bimodal is one call in ten, ten times as long as the others.
func bimodal(mean float64) func(*rand.Rand, float64) float64 {
	return func(r *rand.Rand, _ float64) float64 {
		if r.IntN(10) == 0 {
			return mean * 10 / 1.9
		}
		return mean / 1.9
	}
}
