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
// time: open-loop Poisson arrivals, K workers behind the gate that slow down as
// calls wait for them, callers that give up.
//
// The gate's queue serves the oldest call first. It takes every call that can be
// served in time, until it has stood for three periods of 150 ms in each of which
// it was never empty and clearly more calls came than were served. From then on
// one call for each two permits may wait, half of what the gate allows, until the
// queue drains again.
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
	pool     int    // more calls than this at once fail quickly as overloads; 0: any number
	noQueue  bool   // the gate refuses every call that finds no permit free
	flows    []flow // several kinds of calls, instead of rate, service and deadline
	crowded  bool   // goroutines wait for a processor: windows say so

	// waits returns how long they wait, instead of crowded.
	waits func(r *rand.Rand, t float64) float64

	algorithm limit.Algorithm
	seed      uint64
	until     float64

	// State.
	r         *rand.Rand
	now       float64
	events    eventHeap
	inflight  int
	waiting   []*call // the gate's queue, oldest first
	period    period
	bad       int     // periods in a row in which the queue stood
	pace      float64 // seconds between two hand-overs, 0 if not known
	behind    []*call // waiting for a worker
	busy      int
	limit     int
	shared    []*call // processor sharing
	sharedAt  float64
	version   int
	win       limit.Window
	winStart  float64
	sum, sq   float64
	ran, low  sums
	residence float64
	lowest    float64

	// What is reported.
	trace     []tick
	good      []float64 // times at which a call ended in time
	latencies []sample
	refused   int
	arrivals  int
}

// A flow is one kind of calls.
type flow struct {
	rate     func(t float64) float64 // arrivals a second, Poisson
	callers  int                     // or so many callers, of which each calls again at once
	burst    int                     // or so many calls at once, every second
	service  func(r *rand.Rand, t float64) float64
	deadline float64                            // 0: none
	sleeps   bool                               // the call takes no worker
	heeds    bool                               // the handler ends at the deadline, wherever its call is
	patient  int                                // so many of ten callers have no deadline
	fails    func(r *rand.Rand, t float64) bool // it ends as an overload

	ends []end // of each call, in the order of their ends
}

// An end is when a call arrived, and whether it was served in time.
type end struct {
	arrived float64
	served  bool
}

// lost returns how many of the calls that arrived from a to b were refused or
// late, and how many there were.
func (f *flow) lost(a, b float64) (lost, all int) {
	for _, e := range f.ends {
		if e.arrived >= a && e.arrived < b {
			all++
			if !e.served {
				lost++
			}
		}
	}
	return lost, all
}

// A period is what the queue saw in a while.
type period struct {
	start, empty, since float64 // since: when it became empty, or -1
	asked, served       float64
}

// sums are those of some calls.
type sums struct{ n, latency, squares, among float64 }

func (s *sums) add(latency float64, among int) {
	s.n++
	s.latency += latency
	s.squares += latency * latency
	s.among += float64(among)
}

func (s *sums) latencies() (l limit.Latencies) {
	if s.n > 0 {
		mean := s.latency / s.n
		l.Calls, l.Mean, l.StartInFlight = int(s.n), seconds(mean), s.among/s.n
		l.Deviation = seconds(math.Sqrt(max(0, s.squares/s.n-mean*mean)))
	}
	return l
}

type tick struct {
	at    float64
	limit int
}

type sample struct{ at, latency float64 }

type call struct {
	arrived, admitted, remaining float64
	fails, overload, cut, low    bool
	patient                      bool
	among                        int // calls in flight when it began
	flow                         *flow
}

// late is when the call is too late; never if it has no deadline.
func (c *call) late() float64 {
	if c.flow.deadline == 0 || c.patient {
		return math.Inf(1)
	}
	return c.arrived + c.flow.deadline
}

const (
	arrival   = iota
	serviced        // a worker has finished
	nextDone        // sharing: the next call has finished
	gapOver         // the hand-over is done
	noArrival       // look at the rate again
	slept           // a call that takes no worker has ended
	givenUp         // a handler that heeds its deadline ends while its call waits or shares
	longestIn = 1.0 // seconds in the queue
)

type event struct {
	at      float64
	kind    int
	c       *call
	flow    *flow
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
	if s.flows == nil {
		s.flows = []flow{{rate: s.rate, service: s.service, deadline: s.deadline}}
	}
	for i := range s.flows {
		f := &s.flows[i]
		switch {
		case f.rate != nil:
			s.next(f)
		case f.burst > 0:
			s.push(event{at: 0.5, flow: f})
		}
		for range f.callers {
			s.arrive(f)
		}
	}
	for len(s.events) > 0 {
		e := heap.Pop(&s.events).(event)
		if e.at > s.until {
			return
		}
		s.now = e.at
		switch e.kind {
		case arrival:
			if e.flow.burst > 0 {
				s.push(event{at: s.now + 1, flow: e.flow})
				for range e.flow.burst {
					s.arrive(e.flow)
				}
				break
			}
			s.next(e.flow)
			s.arrive(e.flow)
		case noArrival:
			s.next(e.flow)
		case serviced:
			s.busy--
			s.finish(e.c)
			s.startBehind()
		case nextDone:
			if e.version == s.version {
				s.advance()
				i := s.nextShared()
				c := s.shared[i]
				s.shared = slices.Delete(s.shared, i, i+1)
				s.finish(c)
				s.scheduleShared()
			}
		case gapOver:
			s.serve(e.c)
		case slept:
			s.finish(e.c)
		case givenUp:
			s.giveUp(e.c)
		}
	}
}

func (s *sim) push(e event) { heap.Push(&s.events, e) }

// next schedules the next arrival of a flow. Poisson arrivals have no memory, so a
// rate that changes meanwhile is looked at anew after ten milliseconds.
func (s *sim) next(f *flow) {
	const look = .01
	if gap := s.r.ExpFloat64() / f.rate(s.now); gap < look {
		s.push(event{at: s.now + gap, flow: f})
	} else {
		s.push(event{at: s.now + look, kind: noArrival, flow: f})
	}
}

func (s *sim) arrive(f *flow) {
	s.arrivals++
	s.win.Arrived++
	c := &call{arrived: s.now, flow: f, patient: f.patient > 0 && s.r.IntN(10) < f.patient}
	s.turnPeriod()
	s.period.asked++
	if s.inflight < s.limit && len(s.waiting) == 0 {
		s.period.served++
		s.admit(c, 0)
		return
	}
	s.win.Pressed++
	wait := float64(len(s.waiting)+1) * s.pace
	switch {
	case s.noQueue, s.now+wait > c.late(), wait > longestIn, s.bad >= 3 && len(s.waiting) >= max(4, s.limit/2):
		s.refuse(c)
	default:
		if len(s.waiting) == 0 {
			s.period.empty += s.now - s.period.since
			s.period.since = s.now
		}
		s.waiting = append(s.waiting, c)
	}
	s.dispatch(0)
	if s.now-s.winStart >= limit.WindowPatience.Seconds() {
		s.closeWindow()
		s.dispatch(0)
	}
}

// turnPeriod ends a period of the queue, and judges it.
func (s *sim) turnPeriod() {
	p := &s.period
	if s.now-p.start < .15 {
		return
	}
	if len(s.waiting) == 0 {
		p.empty += s.now - p.since
	}
	more := p.asked - p.served
	switch {
	case more > math.Sqrt(p.served):
		if s.bad >= 3 || p.empty == 0 {
			s.bad++
		} else {
			s.bad = 0
		}
	case s.bad < 3, p.empty > (s.now-p.start)/5, -more > math.Sqrt(p.served):
		s.bad = 0
	}
	*p = period{start: s.now, since: s.now}
}

func (s *sim) refuse(c *call) {
	s.refused++
	s.ended(c, false)
}

func (s *sim) ended(c *call, served bool) {
	c.flow.ends = append(c.flow.ends, end{c.arrived, served})
}

func (s *sim) dispatch(gap float64) {
	for s.inflight < s.limit && len(s.waiting) > 0 {
		c := s.waiting[0]
		s.waiting = s.waiting[1:]
		if len(s.waiting) == 0 {
			s.period.since = s.now
		}
		waited := s.now - c.arrived
		if s.now > c.late() || waited > longestIn || (s.bad >= 3 || s.pace == 0) && waited > c.late()-s.now {
			s.refuse(c)
			continue
		}
		s.period.served++
		s.admit(c, gap)
	}
}

func (s *sim) admit(c *call, gap float64) {
	s.inflight++
	s.win.MaxInFlight = max(s.win.MaxInFlight, s.inflight)
	c.admitted, c.among = s.now, s.inflight
	if p, ok := s.algorithm.(limit.Prober); ok {
		c.low = s.inflight <= p.Mark()
	}
	c.fails = s.failing != nil && s.failing(s.r, s.now)
	c.overload = s.pool > 0 && s.inflight > s.pool || c.flow.fails != nil && c.flow.fails(s.r, s.now)
	if gap > 0 {
		s.push(event{at: s.now + gap, kind: gapOver, c: c})
		return
	}
	s.serve(c)
}

func (s *sim) serve(c *call) {
	if c.flow.sleeps {
		t := c.flow.service(s.r, s.now)
		if late := c.late() - s.now; c.flow.heeds && t > late {
			t, c.cut = max(late, 0), true
		}
		s.push(event{at: s.now + t, kind: slept, c: c})
		return
	}
	if late := c.late(); c.flow.heeds && !math.IsInf(late, 1) {
		s.push(event{at: max(late, s.now), kind: givenUp, c: c})
	}
	if s.sharing {
		s.advance()
		c.remaining = c.flow.service(s.r, s.now)
		s.shared = append(s.shared, c)
		s.scheduleShared()
		return
	}
	if c.overload {
		s.busy++
		s.push(event{at: s.now + 100e-6, kind: serviced, c: c})
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
			t = c.flow.service(s.r, s.now) * (1 + s.slowdown*float64(len(s.behind)))
		}
		if late := c.late() - s.now; c.flow.heeds && t > late {
			t, c.cut = max(late, 0), true
		}
		s.push(event{at: s.now + t, kind: serviced, c: c})
	}
}

// giveUp ends a call that waits for a worker or shares them. One that has a worker
// ends by itself.
func (s *sim) giveUp(c *call) {
	s.advance()
	for _, calls := range []*[]*call{&s.behind, &s.shared} {
		i := slices.Index(*calls, c)
		if i < 0 {
			continue
		}
		*calls = slices.Delete(*calls, i, i+1)
		c.cut = true
		s.finish(c)
		s.scheduleShared()
		return
	}
}

// speed is what each of n calls that share gets of a worker.
func (s *sim) speed(n int) float64 {
	k := float64(s.workers(s.now))
	return min(1, k/float64(n)) / (1 + s.slowdown*max(0, float64(n)-k))
}

// advance credits every shared call with its part of the time that has passed.
func (s *sim) advance() {
	if n := len(s.shared); n > 0 {
		speed := s.speed(n)
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
		speed := s.speed(n)
		left := max(0, s.shared[s.nextShared()].remaining)
		s.push(event{at: s.now + left/speed, kind: nextDone, version: s.version})
	}
}

func (s *sim) finish(c *call) {
	s.inflight--
	latency := s.now - c.admitted
	s.residence += latency
	late := c.cut || s.now > c.late()
	before := s.win.Succeeded + s.win.Overloaded
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
	if ran := s.win.Succeeded + s.win.Overloaded; ran > before {
		s.ran.add(latency, c.among)
		if c.low {
			s.low.add(latency, c.among)
		}
	}
	s.ended(c, !late && !c.overload && !c.fails)
	if s.win.Completed() >= limit.WindowCalls && s.now-s.winStart >= limit.WindowLength.Seconds() {
		s.closeWindow()
	}
	s.dispatch(s.gap)
	if f := c.flow; f.callers > 0 {
		s.arrive(f)
	}
}

func (s *sim) closeWindow() {
	length := s.now - s.winStart
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
	w.Ran, w.Low = s.ran.latencies(), s.low.latencies()
	if s.crowded {
		w.SchedulerDelay = w.MeanLatency / 2
	}
	if s.waits != nil {
		w.SchedulerDelay = seconds(s.waits(s.r, s.now))
	}
	if w.Succeeded > 0 {
		s.pace = w.MeanLatency.Seconds() / float64(s.limit)
	}
	s.limit = s.algorithm.Update(w)
	s.trace = append(s.trace, tick{s.now, s.limit})
	s.win = limit.Window{MaxInFlight: s.inflight}
	s.winStart, s.sum, s.sq, s.residence, s.lowest = s.now, 0, 0, 0, math.Inf(1)
	s.ran, s.low = sums{}, sums{}
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
