package admit

import (
	"context"
	"time"

	"github.com/weir-go/weir/limit"
)

// A recorder counts and measures the calls of a gate. The limit learns from it, refusals take their
// delays from it, and Stats, Inspect and pages show it. A call enters it when it begins to run, when
// it ends, and when it is refused.
//
// Its methods begin and end do not take the gate's lock, and neither do the fields that they use.
// The gate's lock guards everything else.
type recorder struct {
	clock   *clock
	permits *permits // samples of refusals show their state

	samples  samples       // of begin and end
	shortest shortestCalls // of end
	late     lateCalls     // of end

	window   window
	counters counters
	refusals refusals
	refused  refusalLog
	running  runningCalls
	history  history
}

// init must be called first.
func (r *recorder) init(c *clock, p *permits, cfg *config) {
	r.clock, r.permits = c, p
	r.samples.init()
	r.samples.useMark(cfg.algorithm)
	r.window.begin()
	r.refusals.init(cfg.name)
}

// begin notes that a call begins to run, among so many permits in use.
func (r *recorder) begin(among int) begun { return r.samples.begin(among) }

// enter notes that a call that took the lock begins to run. It may list the call, and then the
// deadline is shown.
func (r *recorder) enter(got *claim, c Call, now, deadline time.Duration) {
	got.begun = r.begin(r.permits.among(got.class))
	got.listed = r.running.enter(c, got.cost, now, deadline)
}

// end notes that a call has ended, and how.
func (r *recorder) end(p *Permit, o Outcome, now time.Duration) {
	took := now - p.start
	if p.deadline > 0 {
		r.late.see(p.claim.class, now >= p.deadline)
	}
	if o == Success {
		r.shortest.see(p.claim.class, took)
	}
	if o == Overload && p.wait > took {
		o = Ignored
	}
	r.samples.add(p, o, took)
}

// gather moves the samples of calls that have ended into the window and the counters.
func (r *recorder) gather() {
	all := r.samples.gather()
	if all.calls() > 0 {
		r.refusals.quiet.end()
	}
	r.window.add(&all)
	r.counters.add(&all)
}

// forget forgets the calls that have ended, for another algorithm.
func (r *recorder) forget(now time.Duration, a limit.Algorithm) {
	r.samples.useMark(a)
	r.gather()
	r.window.clear(now)
}

// look looks at the state of the gate, for the history and the samples of refusals. It reports
// whether the list of running calls ends.
func (r *recorder) look(now time.Duration) (unlisted bool) {
	r.gather()
	r.history.see(r, now)
	r.refused.relax(now)
	return r.running.over(now)
}

// refuse counts the refusal of a newcomer and returns it. It reads the clock only now and then,
// because a refusal must be cheap.
func (r *recorder) refuse(ctx context.Context, c Call, why Reason) *Refusal {
	if r.refusals.quiet.due() {
		r.seeSilence(r.clock.now())
	}
	refusal := r.refusals.get(why)
	r.countRefused(ctx, c, why, refusal.RetryAfter)
	return refusal
}

// countRefused counts a newcomer that is refused elsewhere, or would be if this were no dry run.
// The delay is 0 if it is not known here.
func (r *recorder) countRefused(ctx context.Context, c Call, why Reason, delay time.Duration) {
	r.counters.refused[c.Class][why]++
	if r.refused.due(why) {
		now := r.clock.now()
		r.sample(c, why, now, 0, r.clock.deadlineOf(ctx), delay)
	}
}

// refuseWaiter counts the refusal of a waiter and returns it.
func (r *recorder) refuseWaiter(w *waiter, why Reason, now time.Duration) *Refusal {
	if r.refusals.quiet.due() {
		r.seeSilence(now)
	}
	refusal := r.refusals.get(why)
	r.counters.refused[w.call.Class][why]++
	if r.refused.due(why) {
		r.sample(w.call, why, now, now-w.Since, w.Deadline, refusal.RetryAfter)
	}
	return refusal
}

// seeSilence notes the time of a refusal. Permits that came back before end the silence.
func (r *recorder) seeSilence(now time.Duration) {
	r.gather()
	r.refusals.quiet.see(now)
}

// sample takes a sample of a refusal, with the state of the gate.
func (r *recorder) sample(c Call, why Reason, now, wait, deadline, delay time.Duration) {
	of, class := r.permits, int(c.Class)
	to, s, q := r.refused.add(why, now), of.inUse.load(), of.queue
	to.method.set(c.Method)
	to.tenant.set(c.Tenant)
	to.Class, to.Wait, to.RetryAfter = c.Class, wait, delay
	if deadline > 0 {
		to.TimeLeft = deadline - now
	}
	to.Limit, to.InFlight, to.Queue = s.limit(), s.inFlight(), q.Len()
	if to.Most = q.Bound(class, s.limit()); to.Most > 0 {
		to.Held = q.Held(class)
	}
	to.Waiting, to.Standing = q.Waiting(class), q.Standing(class)
	to.Pace = max(of.pace.least, r.refusals.quiet.lasts)
}
