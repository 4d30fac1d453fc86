package admit

import (
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
	"github.com/weir-go/weir/limit"
)

// permits are the permits of a gate, and the queue for them. Each method that takes permits asks
// package turn, and tells it the state of the gate. The gate's lock guards it. Only inUse is atomic,
// and a call may take a permit from it without the lock.
type permits struct {
	inUse   *inFlight
	queue   *turn.Queue // nil if New did not make the gate
	pace    pacer       // the time between two permits that come back
	lasts   pacer       // how long calls take, whether permits are free or not
	crowd   crowd
	probing bool // the algorithm holds newcomers back, see limit.Prober
}

// A claim is the permits that a call holds, with the notes of the recorder about its begin.
type claim struct {
	cost   int
	class  Class
	holder *turn.Tenant // nil unless the queue counts permits by tenant
	begun  begun
	listed *runningCall // nil unless the gate lists its running calls
}

// room returns the state of the gate as package turn knows it.
func (p *permits) room(s word, now time.Duration) turn.Room {
	return turn.Room{
		Limit: s.limit(), InFlight: s.inFlight(), Now: now, Pace: p.pace.least, Lasts: p.lasts.least, Probing: p.probing,
	}
}

// roomNow is room with the permits that are in use now.
func (p *permits) roomNow(now time.Duration) turn.Room { return p.room(p.inUse.load(), now) }

// claim takes permits for a newcomer that may run at once.
func (p *permits) claim(c turn.Call, now time.Duration) (claim, bool) {
	for {
		s := p.inUse.load()
		cost, ok := p.queue.MayRun(c, p.room(s, now))
		if !ok {
			return claim{}, false
		}
		if p.inUse.take(s, cost) {
			return p.hold(c, cost, now), true
		}
	}
}

// claimBeyond takes permits for a newcomer regardless of the limit, in a dry run.
func (p *permits) claimBeyond(c turn.Call, now time.Duration) claim {
	cost := p.inUse.chargeBeyond(c.Cost)
	p.inUse.add(cost)
	return p.hold(c, cost, now)
}

// hold makes a claim of permits that a newcomer took.
func (p *permits) hold(c turn.Call, cost int, now time.Duration) claim {
	return claim{cost: cost, class: Class(c.Class), holder: p.queue.Hold(c, cost, p.roomNow(now))}
}

// serve takes permits for a waiter, regardless of the limit, and takes it out of the queue.
func (p *permits) serve(w *turn.Waiter, cost int, now time.Duration) claim {
	class := Class(w.Class)
	p.inUse.add(cost)
	return claim{cost: cost, class: class, holder: p.queue.Serve(w, cost, p.roomNow(now))}
}

// giveBack returns the permits of a call.
func (p *permits) giveBack(c claim, now time.Duration) {
	p.inUse.add(-c.cost)
	if c.holder != nil {
		p.queue.Return(c.holder, c.cost, p.roomNow(now))
	}
}

// short reports whether too few permits are free for a newcomer. Otherwise only the narrow bound of
// its class or tenant keeps it waiting. Such a call is no reason to raise the limit.
func (p *permits) short(c turn.Call) bool {
	s := p.inUse.load()
	return p.queue.Among(c.Class, s.inFlight(), s.limit())+c.Cost > s.limit()
}

// among returns the number of permits in use, as the limit is to see it when a call of a class
// begins.
func (p *permits) among(class Class) int {
	s := p.inUse.load()
	n := p.queue.Among(int(class), s.inFlight(), s.limit())
	p.inUse.sawInUse(int64(n))
	return n
}

// see notes a window of the limit.
func (p *permits) see(w limit.Window, now time.Duration) {
	if w.Succeeded > 0 {
		p.lasts.see(now, w.Succeeded, w.MeanLatency)
		compete := w.Succeeded
		if w.Pressed == 0 && w.MaxInFlight < w.Limit {
			compete = 0 // calls that will compete for the permits may be of another kind
		}
		p.pace.see(now, compete, w.MeanLatency/time.Duration(w.Limit))
	}
	p.queue.Crowd(p.roomNow(now), p.crowd.see(w))
}

// forget forgets how long calls take, for another algorithm.
func (p *permits) forget() {
	p.pace, p.lasts, p.probing = pacer{}, pacer{}, false
	p.inUse.resetPeak()
}
