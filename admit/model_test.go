package admit_test

import (
	"context"
	"slices"
	"time"

	"github.com/weir-go/weir/admit"
)

// A model is what a gate with a fixed limit promises, in slices and without a
// lock: after each step of a script it says what has become of every call.
// Deadlines, patience and steps never fall on the same moment: each call comes at a
// microsecond of its own.
type model struct {
	limit    int
	queue    admit.QueueConfig
	noQueue  bool
	dryRun   bool
	draining bool
	now      time.Duration
	since    time.Duration // since when somebody waits
	inFlight int
	classes  [4]admit.ClassConfig
	passed   [4]int
	placed   [4]int
	debt     [4]int
	granted  [4]int
	until    map[[2]string]int // by class and tenant
	waiting  []*modelCall      // in the order in which they came
	running  []*modelCall
	want     admit.Stats
	waited   time.Duration
	ran      time.Duration
	// pretended counts the refusals of dry runs, which refuse nobody.
	pretended int
}

// A modelCall is a call and what the model says of it.
type modelCall struct {
	real     *call
	class    admit.Class
	tenant   string
	cost     int
	held     int  // permits
	counted  bool // it is known whose they are
	expired  bool // before it began
	cancel   context.CancelFunc
	since    time.Duration
	late     time.Duration // when it has waited too long
	deadline time.Duration // 0 for none
	verdict  string        // as call.state
	took     time.Duration // until the verdict
}

const modelMaxWait = 240*ms + 250*time.Microsecond

func rank(c admit.Class) int { return [...]int{1, 0, 2, 3}[min(c, admit.Background)] }

func (m *model) capacity() int {
	switch {
	case m.noQueue:
		return 0
	case m.queue.Capacity > 0:
		return m.queue.Capacity
	default:
		return max(m.limit, 32)
	}
}

func (m *model) refuse(c *modelCall, why admit.Reason) {
	c.took = m.now - c.since
	c.verdict = "admit: refused: " + why.String()
	m.want.Refused[c.class][why]++
}

func (m *model) grant(c *modelCall) {
	m.run(c)
	m.want.Waited++
	m.waited += c.took
	m.want.WaitSeconds = m.waited.Seconds()
}

func (m *model) run(c *modelCall) {
	c.verdict, c.took = runs, m.now-c.since
	c.held = min(c.cost, m.limit)
	m.inFlight += c.held
	c.counted = c.tenant != "" || m.sharing() || m.named(c.class) > 0
	m.running = append(m.running, c)
}

// stop takes a call out of those that run.
func (m *model) stop(c *modelCall) {
	m.inFlight -= c.held
	m.running = slices.DeleteFunc(m.running, func(r *modelCall) bool { return r == c })
}

// sharing reports whether a class has a share or a bound.
func (m *model) sharing() bool {
	return slices.ContainsFunc(m.classes[:], func(c admit.ClassConfig) bool { return c.Share > 0 || c.Max > 0 })
}

// calls returns the calls of a class that run and are counted, and those that wait.
func (m *model) calls(class admit.Class) (calls []*modelCall) {
	for _, c := range m.running {
		if c.class == class && c.counted {
			calls = append(calls, c)
		}
	}
	for _, c := range m.waiting {
		if c.class == class {
			calls = append(calls, c)
		}
	}
	return calls
}

// tenants returns the tenants of a class that have calls.
func (m *model) tenants(class admit.Class) map[string]bool {
	tenants := map[string]bool{}
	for _, c := range m.calls(class) {
		tenants[c.tenant] = true
	}
	return tenants
}

// named counts the tenants of a class, without that of calls that have none.
func (m *model) named(class admit.Class) int {
	tenants := m.tenants(class)
	delete(tenants, "")
	return len(tenants)
}

// takes returns how many permits a tenant has, and how many more its waiting calls want.
func (m *model) takes(class admit.Class, tenant string) (held, wanted int) {
	for _, c := range m.calls(class) {
		switch {
		case c.tenant != tenant:
		case c.verdict == waits:
			wanted += c.cost
		default:
			held += c.held
		}
	}
	return held, wanted
}

// has returns how many permits a class has, as far as that is counted.
func (m *model) has(class admit.Class) (held int) {
	for tenant := range m.tenants(class) {
		h, _ := m.takes(class, tenant)
		held += h
	}
	return held
}

// mayHave reports whether a class may have so many permits more.
func (m *model) mayHave(class admit.Class, cost int) bool {
	return m.classes[class].Max == 0 || m.has(class) == 0 || m.has(class)+cost <= m.mostOf(class, m.limit)
}

func (m *model) leave(c *modelCall, err error) {
	c.verdict, c.took = err.Error(), m.now-c.since
	m.want.Left++
}

// take takes the i-th waiter out of the queue.
func (m *model) take(i int) *modelCall {
	c := m.waiting[i]
	m.waiting = append(m.waiting[:i:i], m.waiting[i+1:]...)
	return c
}

// best returns the index of the waiting call of a class that comes first in an order; of
// several tenants that are equal, the oldest call of that whose oldest call is older.
func (m *model) best(class admit.Class, better func(a, b *modelCall) bool) int {
	best := -1
	for i, c := range m.waiting {
		if c.class == class && (best < 0 || better(c, m.waiting[best])) {
			best = i
		}
	}
	return best
}

// needy is the oldest call of the tenant of a class that has the least.
func (m *model) needy(class admit.Class) int {
	return m.best(class, func(a, b *modelCall) bool {
		if x, y := m.owes(a), m.owes(b); x != y || x > 0 {
			return x < y
		}
		x, _ := m.takes(class, a.tenant)
		y, _ := m.takes(class, b.tenant)
		return x < y
	})
}

// owes is up to how many permits for its class a call's tenant is in debt, or 0.
func (m *model) owes(c *modelCall) int {
	if until := m.until[[2]string{c.class.String(), c.tenant}]; until > m.granted[c.class] {
		return until
	}
	return 0
}

// heavy is the oldest call of the tenant of a class that takes the most.
func (m *model) heavy(class admit.Class) int {
	return m.best(class, func(a, b *modelCall) bool { return m.weight(class, a.tenant) > m.weight(class, b.tenant) })
}

func (m *model) weight(class admit.Class, tenant string) int {
	held, wanted := m.takes(class, tenant)
	return held + wanted
}

// waits counts the calls of a class that wait.
func (m *model) waits(class admit.Class) (n int) {
	for _, c := range m.waiting {
		if c.class == class {
			n++
		}
	}
	return n
}

// turn is how urgent a class is: passed over too often, without its share, or neither.
func (m *model) turn(class admit.Class, cost int) int {
	has, share := m.has(class), m.shareOf(class, m.limit)
	switch {
	case m.passed[class] >= 20*cost:
		return 2
	case has+cost <= share, has < share && m.debt[class] == 0:
		return 1
	}
	return 0
}

// shareOf is the whole part of n that is guaranteed to a class.
func (m *model) shareOf(class admit.Class, n int) int {
	return int(m.classes[class].Share*float64(n) + 1e-9)
}

// mostOf is the whole part of n that a class may have, but at least one.
func (m *model) mostOf(class admit.Class, n int) int {
	if share := m.classes[class].Max; share > 0 {
		return max(1, int(share*float64(n)+1e-9))
	}
	return n
}

// wanted counts the permits that the waiting calls of a class want.
func (m *model) wanted(class admit.Class) (n int) {
	for _, c := range m.waiting {
		if c.class == class {
			n += c.cost
		}
	}
	return n
}

// owed reports whether a class, were so many permits and places less its own, would have
// less of either than its share.
func (m *model) owed(class admit.Class, permits, places int) bool {
	return m.has(class)+m.wanted(class)-permits < m.shareOf(class, m.limit) ||
		m.waits(class)-places < m.shareOf(class, m.capacity())
}

// within reports whether a class is owed the place of the call that it would lose first.
func (m *model) within(class admit.Class) bool {
	return m.owed(class, m.waiting[m.heavy(class)].cost, 1)
}

// next is who is served, or -1: the oldest call, or the newest, of the tenant whose turn it is.
func (m *model) next() int {
	next, most, waiting := -1, -1, 0
	for _, class := range byRank {
		waiting += m.waits(class)
		newest := m.queue.Order == admit.AdaptiveLIFO && 2*waiting > m.capacity()
		i := m.needy(class)
		for j := i + 1; newest && i >= 0 && j < len(m.waiting); j++ {
			if c := m.waiting[j]; c.class == class && c.tenant == m.waiting[i].tenant {
				i = j
			}
		}
		if i < 0 {
			continue
		}
		cost := min(m.waiting[i].cost, m.limit)
		if turn := m.turn(class, cost); m.mayHave(class, cost) && turn > most {
			next, most = i, turn
		}
	}
	return next
}

var byRank = []admit.Class{admit.Critical, admit.Default, admit.Sheddable, admit.Background}

// lowest is the class of the lowest priority in which calls wait and that may be taken, or -1.
func (m *model) lowest(may func(admit.Class) bool) admit.Class {
	for _, class := range slices.Backward(byRank) {
		if m.waits(class) > 0 && may(class) {
			return class
		}
	}
	return nobody
}

const nobody = admit.Class(99)

// beyondBound reports whether more calls of a class run beyond its bound than may wait.
func (m *model) beyondBound(c *modelCall) bool {
	over := m.has(c.class) - m.mostOf(c.class, m.limit)
	return m.classes[c.class].Max > 0 && over/c.cost >= m.mostOf(c.class, m.capacity())
}

func (m *model) crowded(class admit.Class) bool {
	return m.classes[class].Max > 0 && m.waits(class) >= m.mostOf(class, m.capacity())
}

// room makes room for a call in a full queue, or says why it cannot.
func (m *model) room(c *modelCall) (why admit.Reason, ok bool) {
	if m.crowded(c.class) {
		return m.roomWithin(c)
	}
	roomy := m.capacity() >= 16
	spared := func(class admit.Class) bool { return roomy && m.waits(class) == 1 && class != c.class }
	owed := m.owed(c.class, 0, 0)
	from := m.lowest(func(class admit.Class) bool {
		return class == c.class && !owed || class != c.class && !spared(class) && !m.within(class)
	})
	if owed && from == nobody {
		owed, from = false, m.lowest(func(class admit.Class) bool { return !spared(class) })
	}
	switch {
	case from == nobody:
		return admit.QueueFull, false
	case from == c.class:
		return m.roomWithin(c)
	case rank(from) < rank(c.class):
		if !owed && (!roomy || m.waits(c.class) > 0 || m.passed[c.class]-m.placed[c.class] < 20) {
			return m.blame(c, m.weight(c.class, c.tenant)+c.cost, admit.QueueFull), false
		}
		m.placed[c.class] = m.passed[c.class]
	}
	m.refuse(m.take(m.heavy(from)), admit.Displaced)
	return 0, true
}

func (m *model) roomWithin(c *modelCall) (why admit.Reason, ok bool) {
	victim, reject := m.heavy(c.class), m.queue.Policy == admit.Reject
	heaviest := m.waiting[victim].tenant
	most, mine := m.weight(c.class, heaviest), m.weight(c.class, c.tenant)+c.cost
	switch own := slices.IndexFunc(m.waiting, func(w *modelCall) bool { return w.class == c.class && w.tenant == c.tenant }); {
	case c.tenant == heaviest || mine > most:
		if reject || own < 0 {
			return m.blame(c, m.weight(c.class, c.tenant)+c.cost, admit.QueueFull), false
		}
		m.turnOut(own, m.blame(c, mine, admit.Displaced))
	case mine == most && reject:
		return admit.QueueFull, false
	case mine == most:
		m.turnOut(victim, admit.Displaced)
	default:
		m.turnOut(victim, m.blame(c, most, admit.Displaced))
	}
	return 0, true
}

// turnOut refuses the i-th waiter.
func (m *model) turnOut(i int, why admit.Reason) { m.refuse(m.take(i), why) }

// blame is OverShare if so much is more than a tenant's share when a call comes.
func (m *model) blame(c *modelCall, weight int, otherwise admit.Reason) admit.Reason {
	tenants := m.tenants(c.class)
	tenants[c.tenant] = true
	if n := len(tenants); n > 1 && weight*n > m.mostOf(c.class, m.limit)+m.mostOf(c.class, m.capacity()) {
		return admit.OverShare
	}
	return otherwise
}

func (m *model) acquire(c *modelCall) {
	c.since, c.late = m.now, m.now+modelMaxWait
	c.cost = min(c.cost, m.limit)
	if m.queue.Policy == admit.Block && m.queue.MaxWait == 0 {
		c.late = 0
	}
	if c.tenant != "" && !m.tenants(c.class)[c.tenant] { // nothing is known of it
		delete(m.until, [2]string{c.class.String(), c.tenant})
	}
	switch {
	case c.expired: // already over, whatever the gate does
		m.leave(c, context.DeadlineExceeded)
	case m.draining:
		m.refuse(c, admit.Draining)
	case m.inFlight+min(c.cost, m.limit) <= m.limit && m.mayHave(c.class, min(c.cost, m.limit)) && m.waits(c.class) == 0 && m.next() < 0:
		fast := c.cost == 1 && c.tenant == "" && len(m.waiting) == 0 && !m.dryRun && !m.sharing()
		m.run(c)
		c.counted = c.counted && !fast
	case m.dryRun && (m.capacity() == 0 || (m.inFlight-m.limit)/c.cost >= m.capacity() || m.beyondBound(c)):
		m.refuse(c, admit.QueueFull) // counted, and let in
		m.pretended++
		m.run(c)
	case m.dryRun:
		m.grant(c)
	default:
		m.enqueue(c)
	}
}

func (m *model) enqueue(c *modelCall) {
	if m.queue.Policy != admit.Block && (len(m.waiting) >= m.capacity() || m.crowded(c.class)) {
		if why, ok := m.room(c); !ok {
			m.refuse(c, why)
			return
		}
	}
	if len(m.waiting) == 0 {
		m.since = m.now
	}
	c.verdict = waits
	m.waiting = append(m.waiting, c)
	m.dispatch()
}

func (m *model) dispatch() {
	for len(m.waiting) > 0 && m.inFlight < m.limit {
		i := m.next()
		if i < 0 {
			return
		}
		c := m.waiting[i]
		cost := min(c.cost, m.limit)
		switch {
		case m.queue.Order == admit.CoDel && m.now-m.since > 100*ms && m.now-c.since > 5*ms:
			m.refuse(m.take(i), admit.WaitedTooLong)
		case m.inFlight+cost > m.limit:
			return
		default:
			m.serve(i)
		}
	}
}

// serve lets the i-th waiter run.
func (m *model) serve(i int) {
	class, cost := m.waiting[i].class, min(m.waiting[i].cost, m.limit)
	for c := range m.passed {
		m.passed[c] += cost
		if admit.Class(c) != class {
			m.debt[c] = max(0, m.debt[c]-cost)
		}
	}
	m.passed[class], m.placed[class] = 0, 0
	if has, share := m.has(class), m.shareOf(class, m.limit); has < share && has+cost > share {
		m.debt[class] = (has + cost - share) * m.limit / share
	}
	m.granted[class] += cost
	held, _ := m.takes(class, m.waiting[i].tenant)
	active := len(m.tenants(class))
	if part := max(1, m.mostOf(class, m.limit)/active); held < part && held+cost > part {
		if m.until == nil {
			m.until = map[[2]string]int{}
		}
		m.until[[2]string{class.String(), m.waiting[i].tenant}] = m.granted[class] + (held+cost-part)*active
	}
	m.grant(m.take(i))
}

func (m *model) sleep(d time.Duration) {
	end := m.now + d
	for {
		first := -1
		for i, c := range m.waiting {
			if at := c.expires(); at > 0 && at < end && (first < 0 || at < m.waiting[first].expires()) {
				first = i
			}
		}
		if first < 0 {
			m.now = end
			return
		}
		c := m.take(first)
		if m.now = c.expires(); m.now == c.deadline {
			m.leave(c, context.DeadlineExceeded)
		} else {
			m.refuse(c, admit.WaitedTooLong)
		}
		m.dispatch() // those behind it may want less
	}
}

// expires is when a call no longer waits, or 0.
func (c *modelCall) expires() time.Duration {
	if c.late == 0 || c.deadline > 0 && c.deadline < c.late {
		return c.deadline
	}
	return c.late
}

func (m *model) cancel(c *modelCall) {
	for i := range m.waiting {
		if m.waiting[i] == c {
			m.leave(m.take(i), context.Canceled)
			m.dispatch()
			return
		}
	}
}

func (m *model) drain() {
	m.draining = true
	for len(m.waiting) > 0 {
		m.refuse(m.take(0), admit.Draining)
	}
}

// updated brings the model to what it was just told to be.
func (m *model) updated() {
	for _, class := range byRank {
		for m.queue.Policy != admit.Block && m.waits(class) > m.mostOf(class, m.capacity()) {
			m.refuse(m.take(m.heavy(class)), admit.Displaced)
		}
	}
	for len(m.waiting) > m.capacity() && m.queue.Policy != admit.Block {
		from := m.lowest(func(class admit.Class) bool { return !m.within(class) })
		if from == nobody {
			from = m.lowest(func(admit.Class) bool { return true })
		}
		m.refuse(m.take(m.heavy(from)), admit.Displaced)
	}
	for m.dryRun && len(m.waiting) > 0 {
		m.serve(0)
	}
	m.dispatch()
}
