package turn_test

import (
	"testing"
	"time"

	"github.com/weir-go/weir/admit/internal/turn"
)

// classes are those of a gate: Default, Critical, Sheddable, Background.
func classes(change func(*[turn.MaxClasses]turn.Class)) turn.Config {
	cfg := turn.Config{Places: 4096, MaxWait: time.Second}
	for class, priority := range []int{300, 400, 200, 100} {
		cfg.Classes[class].Priority = priority
	}
	if change != nil {
		change(&cfg.Classes)
	}
	return cfg
}

const (
	normal = iota
	critical
	sheddable
	background
)

// A desk is a queue with a limit, at which calls come and go.
type desk struct {
	q     *turn.Queue
	limit int
	used  int
	now   time.Duration
	held  bool
}

func (d *desk) room() turn.Room {
	return turn.Room{Limit: d.limit, InFlight: d.used, Now: d.now, Probing: d.held}
}

// run lets a call in that must be.
func (d *desk) run(t *testing.T, c turn.Call) *turn.Tenant {
	t.Helper()
	cost, ok := d.q.MayRun(c, d.room())
	if !ok {
		t.Fatalf("%+v with %d of %d in use: got no permit, want one", c, d.used, d.limit)
	}
	d.used += cost
	return d.q.Hold(c, cost, d.room())
}

func (d *desk) back(holder *turn.Tenant, permits int) {
	d.used -= permits
	if holder != nil {
		d.q.Return(holder, permits, d.room())
	}
}

// come asks for a call that finds no permit, and lets it wait if it may.
func (d *desk) come(c turn.Call) (w *turn.Waiter, v turn.Verdict) {
	if why, shut := d.q.Shut(c, d.limit); shut {
		return nil, turn.Verdict{Why: why}
	}
	v = d.q.Ask(c, d.room(), 0, 0)
	if v.Evict != nil {
		d.q.Remove(v.Evict, d.room())
	}
	if v.Wait {
		w = &turn.Waiter{Class: c.Class, Cost: c.Cost, Since: d.now}
		d.q.Join(w, c.Tenant, d.room())
	}
	return w, v
}

// serve serves so many calls, each of which ends at once.
func (d *desk) serve(n int) {
	for range n {
		w, cost := d.q.Next(turn.Room{Limit: d.limit, Now: d.now})
		if w == nil {
			return
		}
		if holder := d.q.Serve(w, cost, d.room()); holder != nil {
			d.q.Return(holder, cost, d.room())
		}
	}
}

// leave removes all waiters, as if they gave up.
func (d *desk) leave() {
	for d.q.Len() > 0 {
		w, _ := d.q.Next(turn.Room{Limit: d.limit, Now: d.now})
		d.q.Remove(w, d.room())
	}
}

func one(class int) turn.Call { return turn.Call{Class: class, Cost: 1} }

// stands plays a load, in calls that come and are served each millisecond, and returns when
// the queue was first said to stand.
func (d *desk) stands(class int, lasts time.Duration, come, served func(at time.Duration) int) time.Duration {
	for begun := d.now; d.now-begun < lasts; d.now += ms {
		for range come(d.now - begun) {
			d.come(one(class))
		}
		d.serve(served(d.now - begun))
		if d.q.Standing(class) {
			return d.now - begun
		}
	}
	return 0
}

func TestWhenTheQueueStands(t *testing.T) {
	each := func(n int) func(time.Duration) int { return func(time.Duration) int { return n } }
	burst := func(n, besides int) func(time.Duration) int {
		return func(at time.Duration) int {
			if at == 0 {
				return n
			}
			return besides
		}
	}
	for _, tt := range []struct {
		name         string
		come, served func(time.Duration) int
		from, to     time.Duration // when it must be said to stand; 0 for never
	}{
		{"twice the capacity", each(4), each(2), 450 * ms, 700 * ms},
		{"a tenth more than the capacity", each(11), each(10), 450 * ms, 700 * ms},
		{"nothing comes back", each(1), each(0), time.Second, 1200 * ms},
		{"nothing comes back for 900 ms, then all", each(1), func(at time.Duration) int {
			if at < 900*ms {
				return 0
			}
			return 3
		}, 0, 0},
		{"nothing comes back for 900 ms, then less than comes", each(4), func(at time.Duration) int {
			if at < 900*ms {
				return 0
			}
			return 2
		}, 1350 * ms, 1600 * ms},
		{"the capacity", each(2), each(2), 0, 0},
		{"a burst", burst(3000, 0), each(2), 0, 0},
		{"a burst beside half of the capacity", burst(3000, 1), each(2), 0, 0},
		{"twice the capacity for 300 ms, then half", func(at time.Duration) int {
			if at < 300*ms {
				return 4
			}
			return 1
		}, each(2), 0, 0},
		{"a third of the capacity for 300 ms, then all", each(2), func(at time.Duration) int {
			if at < 300*ms {
				return 1
			}
			return 3
		}, 0, 0},
	} {
		d := &desk{q: turn.New(classes(nil)), limit: 8}
		if got := d.stands(normal, 3*time.Second, tt.come, tt.served); got < tt.from || got > tt.to {
			t.Errorf("%s: got it to stand after %v, want %v to %v (0 is never)", tt.name, got, tt.from, tt.to)
		}
	}
}

// A limit that is low for a moment makes callers wait, and says nothing about the server. The
// queue stands later then, unless processors are scarce.
func TestALimitThatIsHeldIsNoEvidence(t *testing.T) {
	d := &desk{q: turn.New(classes(nil)), limit: 8, held: true}
	each := func(n int) func(time.Duration) int { return func(time.Duration) int { return n } }
	if got := d.stands(normal, 3*time.Second, each(4), each(2)); got < 700*ms || got > 950*ms {
		t.Errorf("with a limit that is held low: got it to stand after %v, want 0.7s to 0.95s", got)
	}
	d = &desk{q: turn.New(classes(nil)), limit: 8, held: true}
	d.q.Crowd(d.room(), true)
	if got := d.stands(normal, 3*time.Second, each(4), each(2)); got < 450*ms || got > 600*ms {
		t.Errorf("where processors are scarce, too: got it to stand after %v, want 0.45s to 0.6s", got)
	}
}

// A queue that stood and was empty for a while takes a burst again.
func TestNoQueueStandsAfterAnIdleTime(t *testing.T) {
	each := func(n int) func(time.Duration) int { return func(time.Duration) int { return n } }
	for _, idle := range []time.Duration{200 * ms, time.Second, time.Hour} {
		d := &desk{q: turn.New(classes(nil)), limit: 8}
		d.stands(normal, time.Second, each(4), each(2))
		for range 2050 { // until about eight wait, and then into the next period
			for range 4 {
				d.come(one(normal))
			}
			d.serve(2)
			d.now += ms
		}
		d.serve(1000)
		d.now += idle
		for i := range 300 {
			if w, v := d.come(one(normal)); w == nil {
				t.Errorf("call %d of a burst after %v without calls: got it refused (%v), want it to wait", i, idle, v.Why)
				break
			}
		}
	}
}

// While the queue stands, newcomers beyond one for each permit are refused at once. It stands
// no longer when it drains.
func TestWhileTheQueueStands(t *testing.T) {
	d := &desk{q: turn.New(classes(nil)), limit: 8}
	each := func(n int) func(time.Duration) int { return func(time.Duration) int { return n } }
	d.stands(normal, time.Second, each(4), each(2))
	if !d.q.Standing(normal) || !d.q.Standing(background) || d.q.Standing(critical) {
		t.Fatal("got it to stand for other classes than those of the flood and below")
	}
	if w, v := d.come(one(normal)); w != nil || v.Why != turn.QueueFull {
		t.Errorf("one more: got it to wait (%+v), want it refused", v)
	}
	if w, _ := d.come(one(critical)); w == nil {
		t.Error("a critical call, for which it does not stand: got it refused, want it to wait")
	}
	if w, _ := d.come(turn.Call{Class: normal, Tenant: "new", Cost: 1}); w == nil {
		t.Error("a tenant without calls: got it refused, want it to wait")
	}
	for range 2000 { // the flood goes on
		for range 4 {
			d.come(one(normal))
		}
		d.serve(2)
		d.now += ms
	}
	if !d.q.Standing(normal) || d.q.Len() < 6 || d.q.Len() > 10 {
		t.Errorf("two seconds later: got %d waiting, standing %v, want about eight for eight permits", d.q.Len(), d.q.Standing(normal))
	}
	for d.q.Len() < 8 {
		d.come(one(normal))
	}
	if w, _ := d.come(one(normal)); w != nil {
		t.Error("with eight waiting for eight permits: got it to wait, want it refused")
	}
	d.serve(1)
	if w, _ := d.come(one(normal)); w == nil {
		t.Error("with seven waiting for eight permits: got it refused, want it to wait")
	}
	for range 400 { // it is empty most of the time
		d.come(one(normal))
		d.serve(8)
		d.now += ms
	}
	if d.q.Standing(normal) {
		t.Error("after 0.4 s in which it was empty: got it to stand")
	}
}

// Calls that wait for the bound of their class leave the other permits to lower classes. So the
// queue does not stand for these, however many wait.
func TestAClassAtItsBoundDoesNotMakeTheQueueStand(t *testing.T) {
	each := func(n int) func(time.Duration) int { return func(time.Duration) int { return n } }
	for _, tt := range []struct {
		max  float64
		want bool
	}{{0, true}, {1, true}, {0.75, false}, {0.5, false}} {
		d := &desk{q: turn.New(classes(func(c *[turn.MaxClasses]turn.Class) { c[critical].Max = tt.max })), limit: 8}
		d.stands(critical, time.Second, each(4), each(2))
		if !d.q.Standing(critical) || d.q.Standing(normal) != tt.want {
			t.Errorf("a flood of critical calls with a Max of %v: got standing %v for them and %v below, want true and %v",
				tt.max, d.q.Standing(critical), d.q.Standing(normal), tt.want)
		}
		d.come(one(normal)) // the class starves
		if w, v := d.come(one(normal)); (w == nil) != tt.want {
			t.Errorf("one more call below, with a Max of %v: got %+v, want it to wait %v", tt.max, v, !tt.want)
		}
	}
}

// Where processors are scarce, a queue that stands has no waiters of the classes for which it
// stands, but for moments in which it looks whether it still does.
func TestAQueueThatStandsInACrowd(t *testing.T) {
	d := &desk{q: turn.New(classes(nil)), limit: 8}
	each := func(n int) func(time.Duration) int { return func(time.Duration) int { return n } }
	d.q.Crowd(d.room(), true)
	if w, _ := d.come(one(normal)); w == nil {
		t.Fatal("before it stands: got a call refused, want it to wait")
	}
	d.stands(normal, time.Second, each(4), each(2))
	d.q.Crowd(d.room(), true)
	d.serve(d.q.Len())
	if w, v := d.come(one(normal)); w != nil || v.Why != turn.QueueFull {
		t.Errorf("a crowd: got a call to wait (%+v), want it refused", v)
	}
	if w, _ := d.come(one(critical)); w == nil {
		t.Error("a critical call, for which it does not stand: got it refused, want it to wait")
	}
	d.q.Crowd(d.room(), false)
	if w, _ := d.come(one(normal)); w == nil {
		t.Error("no crowd any more: got a call refused, want it to wait")
	}
	bare := func(lasts time.Duration, come, served int) (refused int) { // in ms without a place
		for until := d.now + lasts; d.now < until; d.now += ms {
			d.q.Crowd(d.room(), true)
			for range come {
				d.come(one(normal))
			}
			d.serve(served)
			d.q.Crowd(d.room(), true)
			if d.q.Full(d.limit) && d.q.Len() == 0 {
				refused++
			}
		}
		return refused
	}
	bare(time.Second, 4, 2)
	if got := bare(6500*ms, 4, 2); got < 4000 || got > 5000 {
		t.Errorf("6.5 s with twice the capacity: got %d ms without waiters, want about 450 of each 650", got)
	}
	bare(700*ms, 1, 2)
	if got := bare(time.Second, 1, 2); got > 0 || d.q.Standing(normal) {
		t.Errorf("half of the capacity, 0.7 s later: got %d ms without waiters and standing %v, want none", got, d.q.Standing(normal))
	}
}

// A queue that is empty for a moment because its waiters gave up has not drained.
func TestAQueueThatLosesItsWaitersStands(t *testing.T) {
	for _, tt := range []struct {
		name  string
		pause int // ms without calls after the waiters have left
		want  bool
	}{
		{"at once full again", 0, true},
		{"empty for half of the time", 20, false},
	} {
		d := &desk{q: turn.New(classes(nil)), limit: 8}
		for at := 0; at < 1500 && !d.q.Standing(normal); at++ {
			if at%(20+tt.pause) < 20 {
				for range 4 {
					d.come(one(normal))
				}
				d.serve(2)
			}
			if d.now += ms; at%(20+tt.pause) == 19 {
				d.leave()
			}
		}
		if got := d.q.Standing(normal); got != tt.want {
			t.Errorf("%s: got standing %v after %v, want %v", tt.name, got, d.now, tt.want)
		}
	}
}

// The class of the lowest priority makes room, its oldest call first; within a class the
// tenant that takes the most does; and nobody for a call of the same priority.
func TestWhichCallIsEvicted(t *testing.T) {
	type arrival struct {
		name string
		call turn.Call
	}
	of := func(class int, tenant string) turn.Call { return turn.Call{Class: class, Tenant: tenant, Cost: 1} }
	for _, tt := range []struct {
		name    string
		waiting []arrival
		comes   turn.Call
		evicted string
		why     turn.Reason // of the newcomer if nobody is evicted
	}{
		{"the lowest class", []arrival{{"a", of(normal, "")}, {"b", of(background, "")}, {"c", of(sheddable, "")}}, of(critical, ""), "b", 0},
		{"its oldest call", []arrival{{"a", of(background, "")}, {"b", of(background, "")}, {"c", of(normal, "")}}, of(normal, ""), "a", 0},
		{"nobody of the same priority", []arrival{{"a", of(normal, "")}, {"b", of(normal, "")}, {"c", of(normal, "")}}, of(normal, ""), "", turn.QueueFull},
		{"nobody above", []arrival{{"a", of(critical, "")}, {"b", of(critical, "")}, {"c", of(critical, "")}}, of(normal, ""), "", turn.QueueFull},
		{"the tenant with the most", []arrival{{"a", of(normal, "x")}, {"b", of(normal, "y")}, {"c", of(normal, "y")}}, of(normal, "z"), "b", 0},
		{"not for that tenant", []arrival{{"a", of(normal, "x")}, {"b", of(normal, "y")}, {"c", of(normal, "y")}}, of(normal, "y"), "", turn.OverShare},
	} {
		cfg := classes(nil)
		cfg.Places = 3
		d, names := &desk{q: turn.New(cfg), limit: 1, used: 1}, map[*turn.Waiter]string{}
		for _, a := range tt.waiting {
			w, _ := d.come(a.call)
			names[w] = a.name
		}
		w, v := d.come(tt.comes)
		if names[v.Evict] != tt.evicted || (w != nil) != (tt.evicted != "") || tt.evicted == "" && v.Why != tt.why {
			t.Errorf("%s: got %q evicted (%+v), want %q", tt.name, names[v.Evict], v, tt.evicted)
		}
	}
}

// A share is lent to calls that have been seen to be short, and to those of which nothing is
// known; to long ones not, even if they have not ended yet.
func TestWhatIsLent(t *testing.T) {
	guaranteed := func(c *[turn.MaxClasses]turn.Class) { c[critical].Share = 0.5 }
	for _, tt := range []struct {
		name  string
		lasts time.Duration // of background calls
		want  int           // that they may hold of 8
	}{{"short", 50 * ms, 8}, {"long", 500 * ms, 4}} {
		d := &desk{q: turn.New(classes(guaranteed)), limit: 8}
		for range 10 {
			holder := d.run(t, one(background))
			d.now += tt.lasts
			d.back(holder, 1)
		}
		got := 0
		for ; d.used < d.limit; got++ {
			if _, ok := d.q.MayRun(one(background), d.room()); !ok {
				break
			}
			d.run(t, one(background))
		}
		if got != tt.want {
			t.Errorf("%s calls: got %d of 8 permits, want %d", tt.name, got, tt.want)
		}
	}
	d := &desk{q: turn.New(classes(guaranteed)), limit: 8}
	for range 4 {
		d.run(t, one(background))
	}
	d.now += time.Second
	if _, ok := d.q.MayRun(one(background), d.room()); ok {
		t.Error("a fifth call while four have run for a second: got it let in, want the share kept")
	}
	d.run(t, one(critical))
	d.now += 2 * time.Minute
	d.run(t, one(background)) // the share has not been wanted for so long
}

// Calls that last take of a share what its class did not want at once lately. The whole share
// is kept until ten seconds have shown what that is.
func TestTheReserveOfAShare(t *testing.T) {
	for _, tt := range []struct {
		name  string
		asks  int // permits that critical calls hold
		lasts time.Duration
		want  int // permits that long calls may hold of 32, with a share of 16
	}{
		{"it makes no call", 0, 12 * time.Second, 32},
		{"one permit", 1, 12 * time.Second, 31},
		{"four permits", 4, 12 * time.Second, 28},
		{"more than the share", 18, 12 * time.Second, 16},
		{"too soon to tell", 1, 8 * time.Second, 16},
	} {
		d := &desk{q: turn.New(classes(func(c *[turn.MaxClasses]turn.Class) { c[critical].Share = 0.5 })), limit: 32}
		for range 20 {
			holder := d.run(t, one(background))
			d.now += 10 * time.Second
			d.back(holder, 1)
		}
		for until := d.now + tt.lasts; d.now < until; {
			var holders []*turn.Tenant
			for range tt.asks {
				holders = append(holders, d.run(t, one(critical)))
			}
			d.now += 10 * ms
			for _, h := range holders {
				d.back(h, 1)
			}
		}
		got := 0
		for ; got < 32; got++ {
			if _, ok := d.q.MayRun(one(background), d.room()); !ok {
				break
			}
			d.run(t, one(background))
		}
		if got != tt.want {
			t.Errorf("%s: got %d permits for long calls, want %d", tt.name, got, tt.want)
		}
	}
}

// A share that is configured while calls run is kept as the share of a new queue is, whether it is
// the first one or not.
func TestTheReserveOfAShareThatIsConfigured(t *testing.T) {
	share := func(classes ...int) turn.Config {
		cfg := turn.Config{Places: 4096}
		for class, priority := range []int{300, 400, 200, 100} {
			cfg.Classes[class].Priority = priority
		}
		for _, c := range classes {
			cfg.Classes[c].Share = 0.25
		}
		return cfg
	}
	for _, before := range [][]int{nil, {sheddable}} {
		d := &desk{q: turn.New(share(before...)), limit: 8, now: 10 * time.Minute}
		for range 10 {
			holder := d.run(t, one(background))
			d.now += 10 * time.Second
			d.back(holder, 1)
		}
		d.q.Configure(share(append(before, critical)...), d.now)
		for ; d.used < d.limit; d.now += 10 * time.Second {
			if _, ok := d.q.MayRun(one(background), d.room()); !ok {
				break
			}
			d.run(t, one(background))
		}
		if d.used != 6 {
			t.Errorf("after shares for %v: got %d of 8 permits for long calls, want the share of a quarter kept", before, d.used)
		}
	}
}

// A guess about a deadline is tested once in eight times.
func TestGuessesAreTested(t *testing.T) {
	d := &desk{q: turn.New(classes(nil)), limit: 1, used: 1}
	tried := 0
	for range 80 {
		v := d.q.Ask(one(normal), d.room(), d.now+100*ms, 200*ms)
		switch {
		case v.Trial && v.Wait:
			tried++
		case v.Wait || v.Why != turn.DeadlineTooClose:
			t.Fatalf("a call with 100 ms for what takes 200: got %+v, want it refused or tried", v)
		}
	}
	if tried != 10 {
		t.Errorf("tried: got %d of 80, want 10", tried)
	}
}

// The test of a guess counts until the call is served, however often the head is looked at.
func TestATestOfAGuessStays(t *testing.T) {
	d := &desk{q: turn.New(classes(nil)), limit: 1}
	tried := 0
	for range 80 {
		w := &turn.Waiter{Class: normal, Deadline: d.now + 100*ms}
		if d.q.TooLate(w, 200*ms, false, d.room()) {
			continue
		}
		tried++
		for range 20 { // it waits at the head for permits
			if d.now += ms; d.q.TooLate(w, 200*ms, false, d.room()) {
				t.Fatal("a call that tests a guess: got it refused, want it to stay the head")
			}
		}
	}
	if tried != 10 {
		t.Errorf("tried: got %d of 80, want 10", tried)
	}
}

// While no call of a class has succeeded, nobody knows what its calls take, and while those
// that waited end late, they take too long. A call that has waited for longer than it has
// left is too late then, although the queue does not stand.
func TestTooLateWhileNoneSucceeds(t *testing.T) {
	d := &desk{q: turn.New(classes(nil)), limit: 1}
	w := &turn.Waiter{Since: 0, Deadline: 100 * time.Millisecond}
	tests := []struct {
		now, least time.Duration
		late, want bool
	}{
		{50 * time.Millisecond, 0, false, false},
		{51 * time.Millisecond, 0, false, true},
		{99 * time.Millisecond, time.Microsecond, false, false},
		{51 * time.Millisecond, time.Microsecond, false, false},
		{50 * time.Millisecond, time.Microsecond, true, false},
		{51 * time.Millisecond, time.Microsecond, true, true},
	}
	for _, tt := range tests {
		d.now = tt.now
		if got := d.q.TooLate(w, tt.least, tt.late, d.room()); got != tt.want {
			t.Errorf("after %v of 100 ms, shortest success %v, late %v: got %v, want %v", tt.now, tt.least, tt.late, got, tt.want)
		}
	}
}

// A class that waits gets a permit for 20 that others get, at the least.
func TestALowClassMakesProgress(t *testing.T) {
	d := &desk{q: turn.New(classes(nil)), limit: 1, used: 1}
	low, _ := d.come(one(background))
	served := 0
	for ; low.Queued() && served < 100; served++ {
		d.come(one(critical))
		d.come(one(critical))
		d.serve(1)
	}
	if served != 21 {
		t.Errorf("permits until the background call had one: got %d, want 21", served)
	}
}

// The head of the queue blocks the calls behind it until its full cost is free.
func TestDearCallsAreNotOvertaken(t *testing.T) {
	d := &desk{q: turn.New(classes(nil)), limit: 5}
	holder := d.run(t, turn.Call{Class: normal, Cost: 3})
	dear, _ := d.come(turn.Call{Class: normal, Cost: 4})
	d.come(one(normal))
	if w, cost := d.q.Next(d.room()); w != dear || cost != 4 {
		t.Errorf("next: got %v at %d, want the dear call at 4", w, cost)
	}
	if _, ok := d.q.MayRun(one(normal), d.room()); ok {
		t.Error("a newcomer for which permits are free: got it let in before the dear call")
	}
	d.back(holder, 3)
	if w, _ := d.q.Next(d.room()); w != dear {
		t.Errorf("next with all free: got %v, want the dear call", w)
	}
}

// Permits count as idle for a dear call only until other calls take them.
func TestPermitsThatAreTakenAreNotIdle(t *testing.T) {
	d := &desk{q: turn.New(classes(nil)), limit: 10}
	call := func(class int, tenant string, cost int) turn.Call {
		return turn.Call{Class: class, Tenant: tenant, Cost: cost}
	}
	for range 40 { // a permit is held for 50 ms on the mean
		holder := d.run(t, call(normal, "small", 1))
		d.now += 50 * ms
		d.back(holder, 1)
	}
	var holders []*turn.Tenant
	for _, tenant := range []string{"small", "other", "third", "fourth"} {
		holders = append(holders, d.run(t, call(normal, tenant, 1)))
	}
	dear, _ := d.come(call(normal, "dear", 7))
	if w, _ := d.q.Next(d.room()); dear == nil || w != dear {
		t.Fatalf("next: got %v, want the dear call %v", w, dear)
	}
	d.now += 10 * ms
	var urgent []*turn.Tenant
	for d.used < d.limit {
		d.used++
		urgent = append(urgent, d.q.Hold(call(critical, "", 1), 1, d.room()))
	}
	d.now += 2 * time.Second
	for _, h := range append(urgent, holders[0]) {
		d.back(h, 1)
	}
	w, cost := d.q.Next(d.room())
	if w != dear {
		t.Fatalf("next: got %v, want the dear call", w)
	}
	holder := d.q.Serve(w, cost, d.room())
	again, _ := d.come(call(normal, "dear", 1))
	d.q.Return(holder, cost, d.room())
	for range 60 {
		d.come(call(normal, "small", 1))
	}
	for n := 0; ; n++ {
		w, cost := d.q.Next(turn.Room{Limit: d.limit, Now: d.now})
		if w == again {
			break
		}
		if w == nil || n == 40 {
			t.Fatalf("the tenant with a dear call is still passed after %d others, want about twenty", n)
		}
		if h := d.q.Serve(w, cost, d.room()); h != nil {
			d.q.Return(h, cost, d.room())
		}
	}
}
