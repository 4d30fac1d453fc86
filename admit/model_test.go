package admit_test

import (
	"context"
	"maps"
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
	inFlight int
	classes  [4]admit.ClassConfig
	passed   [4]int
	placed   [4]int
	debt     [4]int
	granted  [4]int
	until    map[[2]string]int // by class and tenant
	usage    [4]modelUsage
	tenant   map[[2]string]*modelTenant
	came     [4]time.Duration
	asked    [4]int
	served   [4]int
	state    [4]modelState
	long     [4]modelLong
	demand   [4]modelDemand
	idle     [4]modelIdle
	blocked  [4]*modelCall // the head of a class, once it found too few permits free
	waiting  []*modelCall  // in the order in which they came
	// dispatched reports whether free permits were offered since the last long sleep.
	dispatched bool
	running    []*modelCall
	want       admit.Stats
	waited     time.Duration
	ran        time.Duration
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
		return 4096
	}
}

// A modelUsage is for how long permits are held: by those that came back, and so far.
type modelUsage struct {
	area          time.Duration
	ended, period int
}

func (u *modelUsage) mean(held int) time.Duration {
	return u.area / time.Duration(max(1, u.ended, held))
}

func (u *modelUsage) end(n, held int) {
	u.ended += n
	if u.period += n; u.period >= max(32, held) {
		u.area, u.ended, u.period = u.area/2, (u.ended+1)/2, 0
	}
}

type modelTenant struct {
	usage modelUsage
	kind  string // long, brief or not known
}

// A modelLong is what a class knows of tenants with long calls, and of the others.
type modelLong struct {
	seen   bool
	at     time.Duration
	wanted []sample
	briefs []sample // tenants that returned a permit soon
	usage  modelUsage
}

type sample struct {
	at time.Duration
	n  int
	// tenant is the one that it is about.
	tenant string
}

// A modelIdle is for how long permits beyond an equal part were free for the head of a class.
type modelIdle struct {
	area, at time.Duration
	free     int
}

// A modelDemand is how many permits the calls of a class held and wanted, and for how long.
type modelDemand struct {
	begun bool
	since time.Duration
	spans []modelSpan
}

type modelSpan struct {
	from, to time.Duration
	permits  int
}

// reserve is how many permits are kept for a class.
func (m *model) reserve(class admit.Class) int {
	share, d := m.shareOf(class, m.limit), &m.demand[class]
	if share == 0 || m.now-m.came[class] > time.Minute {
		return 0
	}
	if !d.begun || m.now-d.since < 10*time.Second {
		return share
	}
	from, most := m.now.Truncate(time.Minute)-time.Minute, 0
	for _, s := range d.spans {
		if s.to >= max(from, d.since) && s.to > d.since {
			most = max(most, s.permits)
		}
	}
	return min(share, most)
}

// A modelState is a period in which a class looks whether the queue stands.
type modelState struct {
	begun, seen, idle  time.Duration
	asked, served, bad int
	lost               int
	stands             bool
	excused            time.Duration
}

func key(class admit.Class, tenant string) [2]string { return [2]string{class.String(), tenant} }

// pass lets time pass.
func (m *model) pass(until time.Duration) {
	d := until - m.now
	for class := range admit.Class(4) {
		m.usage[class].area += d * time.Duration(m.has(class))
		m.long[class].usage.area += d * time.Duration(m.longHeld(class))
		m.demand[class].spans = append(m.demand[class].spans, modelSpan{m.now, until, m.has(class) + m.wanted(class)})
	}
	for _, c := range m.running {
		if c.counted && c.tenant != "" {
			m.tenantOf(c).usage.area += d * time.Duration(c.held)
		}
	}
	m.now = until
}

func (m *model) tenantOf(c *modelCall) *modelTenant {
	if m.tenant == nil {
		m.tenant = map[[2]string]*modelTenant{}
	}
	t := m.tenant[key(c.class, c.tenant)]
	if t == nil {
		t = &modelTenant{}
		m.tenant[key(c.class, c.tenant)] = t
	}
	return t
}

// forget forgets tenants without calls.
func (m *model) forget() {
	for k := range m.tenant {
		known := false
		for class := range admit.Class(4) {
			known = known || k[0] == class.String() && m.tenants(class)[k[1]]
		}
		if !known {
			delete(m.tenant, k)
		}
	}
}

// see looks whether the queue stands, before the number of calls that wait changes.
func (m *model) see() {
	for _, class := range byRank {
		n, asked, served := 0, 0, 0
		for _, other := range m.rivals(class) {
			n, asked, served = n+m.waits(other), asked+m.asked[other], served+m.served[other]
		}
		s := &m.state[class]
		if n == 0 {
			s.idle += m.now - s.seen
		}
		lost := asked - served - n
		if s.seen = m.now; n == 0 && !s.stands && lost == s.lost {
			*s = modelState{begun: m.now, seen: m.now, asked: asked, served: served, lost: lost}
			continue
		}
		length := m.now - s.begun
		if length < 150*ms { // no pace is known: nothing succeeds
			continue
		}
		grown, done := asked-s.asked-(served-s.served), served-s.served
		more := grown > 0 && grown*grown > done
		switch {
		case s.idle >= 150*ms:
			s.stands, s.bad, s.excused = false, 0, 0
		case more && s.stands:
		case 5*s.idle >= length, grown < 0 && grown*grown > done:
			s.stands, s.bad, s.excused = false, 0, 0
		case done == 0 && s.excused < time.Second:
			s.excused += length
		case done == 0 && more:
			s.stands = true
		case s.idle > 0 && (lost-s.lost)*(lost-s.lost) <= done || !more:
			s.bad, s.excused = 0, 0
		default:
			s.bad++
			s.stands = s.stands || s.bad >= 3
		}
		s.begun, s.idle, s.asked, s.served, s.lost = m.now, 0, asked, served, lost
	}
}

// left is how many permits the reserves of the other classes leave to a class.
func (m *model) left(class admit.Class) int {
	most := m.limit
	for other := range admit.Class(4) {
		reserve := m.reserve(other)
		if other == class || reserve == 0 {
			continue
		}
		gap := max(1, m.usage[class].mean(m.has(class))/time.Duration(m.limit))
		soon := max(25*ms, m.usage[other].mean(m.has(other))/4)
		most -= max(0, reserve-int(soon/gap))
	}
	return most
}

// loan is how many permits other classes hold beyond their shares, if they leave reserves.
func (m *model) loan(class admit.Class) (n int) {
	for other := range admit.Class(4) {
		if other != class && m.left(other) < m.limit {
			n += max(0, m.has(other)-m.shareOf(other, m.limit))
		}
	}
	return n
}

// classify says for how long the tenant of a call that comes holds permits.
func (m *model) classify(c *modelCall) {
	if c.tenant == "" {
		return
	}
	t := m.tenantOf(c)
	l := &m.long[c.class]
	t.kind = "brief"
	held, wants := m.takes(c.class, c.tenant)
	if t.usage.mean(held) > time.Duration(m.limit)*50*ms {
		t.kind, l.seen, l.at = "long", true, m.now
	} else if t.usage.ended == 0 {
		t.kind = ""
	}
	if t.kind == "brief" {
		l.wanted = append(l.wanted, sample{at: m.now, n: m.has(c.class) - m.longHeld(c.class) + wants + c.cost})
	}
}

// longHeld is how many permits tenants of a class with long calls hold.
func (m *model) longHeld(class admit.Class) (n int) {
	for _, c := range m.running {
		if c.class == class && c.counted && m.isLong(c) {
			n += c.held
		}
	}
	return n
}

func (m *model) isLong(c *modelCall) bool { return c.tenant != "" && m.tenantOf(c).kind == "long" }

// boundOf is how many permits count against the bound of a call's tenant, how many more are wanted,
// and how long one is held.
func (m *model) boundOf(c *modelCall) (held, wants int, mean time.Duration) {
	if !m.isLong(c) {
		held, wants = m.takes(c.class, c.tenant)
		return held, wants, m.tenantOf(c).usage.mean(held)
	}
	held = m.longHeld(c.class)
	for _, w := range m.waiting {
		if w.class == c.class && m.isLong(w) {
			wants += w.cost
		}
	}
	return held, wants, m.long[c.class].usage.mean(held)
}

// tenantMost is how many permits tenants as that of a call may hold.
func (m *model) tenantMost(c *modelCall) int {
	if c.tenant == "" {
		return m.limit
	}
	l, last := &m.long[c.class], m.limit/8
	gap := m.usage[c.class].mean(m.has(c.class)) / time.Duration(m.limit)
	besides := func(b sample) bool { return b.tenant != c.tenant && m.now-b.at <= 10*time.Minute }
	if !slices.ContainsFunc(l.briefs, besides) && m.usage[c.class].ended > 0 && gap <= 500*ms {
		return m.limit
	}
	suspects := l.seen && m.now-l.at <= 10*time.Minute
	if m.limit >= 4 || m.limit > 1 && suspects {
		last = max(last, 1)
	}
	switch kind := m.tenantOf(c).kind; {
	case kind == "brief":
		return m.limit
	case kind == "" && !suspects:
		return m.limit - last
	}
	return max(1, m.limit-max(1, last, min(2*m.wantedOfLate(c.class), m.limit/2)))
}

// wantedOfLate is the peak of what tenants without long calls held and wanted. Scripts
// last for less than the ten seconds for which it is remembered.
func (m *model) wantedOfLate(class admit.Class) (n int) {
	for _, s := range m.long[class].wanted {
		n = max(n, s.n)
	}
	return n
}

// charge is what a call takes.
func (m *model) charge(c *modelCall) int {
	if c.cost == 1 {
		return 1
	}
	most := m.limit
	if m.sharing() {
		most = m.left(c.class)
	}
	return max(1, min(c.cost, most, m.tenantMost(c)))
}

func (m *model) refuse(c *modelCall, why admit.Reason) {
	c.took = m.now - c.since
	c.verdict = "admit: refused: " + why.String()
	m.want.Refused[c.class][why]++
}

func (m *model) grant(c *modelCall, cost int) {
	m.run(c, cost)
	m.want.Waited++
	m.waited += c.took
	m.want.WaitSeconds = m.waited.Seconds()
}

func (m *model) run(c *modelCall, cost int) {
	c.held = cost
	c.verdict, c.took = runs, m.now-c.since
	m.inFlight += c.held
	for class := range m.idle {
		i := &m.idle[class]
		i.area, i.at = i.area+(m.now-i.at)*time.Duration(i.free), m.now
		i.free = max(0, i.free-cost)
	}
	c.counted = c.tenant != "" || m.sharing() || m.named(c.class) > 0
	m.running = append(m.running, c)
}

// stop takes a call out of those that run.
func (m *model) stop(c *modelCall) {
	if c.counted && c.tenant != "" {
		held, _ := m.takes(c.class, c.tenant)
		if l := &m.long[c.class]; m.tenantOf(c).usage.mean(held) <= time.Duration(m.limit)*50*ms {
			l.briefs = append(l.briefs, sample{at: m.now, tenant: c.tenant})
		} else {
			l.seen, l.at = true, m.now
		}
	}
	if c.counted {
		m.usage[c.class].end(c.held, m.has(c.class))
		if c.tenant != "" {
			held, _ := m.takes(c.class, c.tenant)
			m.tenantOf(c).usage.end(c.held, held)
			if m.isLong(c) {
				m.long[c.class].usage.end(c.held, m.longHeld(c.class))
			}
		}
	}
	m.inFlight -= c.held
	m.running = slices.DeleteFunc(m.running, func(r *modelCall) bool { return r == c })
	m.forget()
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

// classMay reports whether a class may have so many permits more.
func (m *model) classMay(class admit.Class, cost int) bool {
	has := m.has(class)
	if has == 0 || !m.sharing() {
		return true
	}
	most := m.mostOf(class, m.limit)
	if left := m.left(class); left < m.limit {
		most = min(most, max(left-m.loan(class), m.shareOf(class, m.limit)))
	}
	return most >= m.limit || has+cost <= most
}

// tenantMay reports whether the tenant of a call may have so many permits.
func (m *model) tenantMay(c *modelCall, cost int) bool {
	held, most := 0, m.limit
	if c.tenant != "" {
		held, _, _ = m.boundOf(c)
		most = m.tenantMost(c)
	}
	return held == 0 || most == m.limit || held+cost <= most
}

func (m *model) leave(c *modelCall, err error) {
	c.verdict, c.took = err.Error(), m.now-c.since
	m.want.Left++
}

// take takes the i-th waiter out of the queue.
func (m *model) take(i int) *modelCall {
	m.see()
	defer m.forget()
	c := m.waiting[i]
	m.bill(c, m.wasted(c))
	m.waiting = append(m.waiting[:i:i], m.waiting[i+1:]...)
	m.unblock(c)
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

// needy is the head of a class: the oldest call of the tenant that has the least, of the tenants
// that may have more. A call that has found too few permits free stays the head while no tenant
// has less.
func (m *model) needy(class admit.Class) int {
	has := func(c *modelCall) int {
		n, _ := m.takes(class, c.tenant)
		return n
	}
	least := m.neediest(class, func(*modelCall) bool { return true })
	if c := m.blocked[class]; c != nil && has(c) <= has(m.waiting[least]) && m.tenantMay(c, m.charge(c)) {
		return slices.Index(m.waiting, c)
	}
	first := m.neediest(class, m.isLong) // the long tenants behind it wait
	return m.neediest(class, func(c *modelCall) bool {
		return m.tenantMay(c, m.charge(c)) && (!m.isLong(c) || c == m.waiting[first])
	})
}

// neediest is the oldest call of the tenant that has the least, of those that may be taken, or -1.
func (m *model) neediest(class admit.Class, may func(*modelCall) bool) int {
	better := func(a, b *modelCall) bool {
		if x, y := m.owes(a), m.owes(b); x != y || x > 0 {
			return x < y
		}
		x, _ := m.takes(class, a.tenant)
		y, _ := m.takes(class, b.tenant)
		return x < y
	}
	best := -1
	for i, c := range m.waiting {
		oldest := m.best(class, func(a, b *modelCall) bool { return a.tenant == c.tenant && b.tenant != c.tenant }) == i
		if c.class == class && oldest && may(c) && (best < 0 || better(c, m.waiting[best])) {
			best = i
		}
	}
	return best
}

// block notes that the head of a class does not find its permits free, and how many are.
func (m *model) block(c *modelCall, free int) {
	if m.charge(c) == 1 {
		return
	}
	i := &m.idle[c.class]
	if m.blocked[c.class] == c {
		i.area += (m.now - i.at) * time.Duration(i.free)
	} else {
		m.blocked[c.class], i.area = c, 0
	}
	i.at, i.free = m.now, max(0, free)
}

// part is an equal part of the permits of a class.
func (m *model) part(class admit.Class) int {
	return max(1, m.mostOf(class, m.limit)/len(m.tenants(class)))
}

// wasted is how many permits a class could have had while they waited for a call.
func (m *model) wasted(c *modelCall) int {
	i := &m.idle[c.class]
	if m.blocked[c.class] != c {
		return 0
	}
	area := i.area + (m.now-i.at)*time.Duration(i.free)
	return int(area / max(1, m.usage[c.class].mean(m.has(c.class))))
}

// unblock notes that a call does not wait any more.
func (m *model) unblock(c *modelCall) {
	if m.blocked[c.class] == c {
		m.blocked[c.class] = nil
	}
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

// turn is how urgent a class is: passed over too often while it has next to nothing, without its
// share, passed over too often, or neither.
func (m *model) turn(class admit.Class, cost int) int {
	has, share := m.has(class), m.shareOf(class, m.limit)
	switch {
	case m.passed[class] >= 20*cost && has*20 < m.limit:
		return 3
	case has+cost <= share, has < share && m.debt[class] == 0:
		return 2
	case m.passed[class] >= 20*cost:
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
	next, most := -1, -1
	for _, class := range byRank {
		i := m.needy(class)
		if i < 0 {
			continue
		}
		if c := m.waiting[i]; !m.classMay(class, m.charge(c)) {
			m.block(c, 0)
			continue
		}
		if turn := m.turn(class, m.charge(m.waiting[i])); turn > most {
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

// rivals are a class and the classes above it that are not bounded.
func (m *model) rivals(class admit.Class) (rivals []admit.Class) {
	for _, other := range byRank[:rank(class)+1] {
		if other == class || m.classes[other].Max == 0 {
			rivals = append(rivals, other)
		}
	}
	return rivals
}

// beyond reports whether the queue stands for a call, with as many calls as hide the hand-over.
func (m *model) beyond(c *modelCall) bool {
	n := 0
	for _, class := range m.rivals(c.class) {
		n += m.waits(class)
	}
	return m.state[c.class].stands && n >= max(4, m.limit)
}

// entitled reports whether a call may wait in a queue that stands.
func (m *model) entitled(c *modelCall) bool {
	owed := m.has(c.class)+m.wanted(c.class) < m.shareOf(c.class, m.limit) || m.waits(c.class) < m.shareOf(c.class, 32)
	starves := m.waits(c.class) == 0 && m.passed[c.class]-m.placed[c.class] >= 20
	tenants := m.tenants(c.class)
	tenants[c.tenant] = true
	weight := m.weight(c.class, c.tenant) + c.cost
	n := len(tenants)
	fair := (c.tenant != "" || m.named(c.class) > 0) && n > 1 && weight*n <= m.mostOf(c.class, m.limit)+m.mostOf(c.class, 32)
	return owed || starves || fair
}

// place finds a place for a call, or says why there is none.
func (m *model) place(c *modelCall) (why admit.Reason, ok bool) {
	beyond := m.beyond(c)
	switch {
	case m.queue.Policy == admit.Block:
		return 0, true
	case m.capacity() == 0:
		return admit.QueueFull, false
	case beyond && !m.entitled(c):
		if m.waits(c.class) == 0 {
			return m.blame(c, m.weight(c.class, c.tenant)+c.cost, admit.QueueFull), false
		}
		return m.roomWithin(c)
	case len(m.waiting) >= m.capacity() || m.crowded(c.class):
		return m.room(c)
	case beyond && m.waits(c.class) == 0:
		m.placed[c.class] = m.passed[c.class]
	}
	return 0, true
}

// room makes room for a call in a full queue, or says why it cannot.
func (m *model) room(c *modelCall) (why admit.Reason, ok bool) {
	if m.crowded(c.class) {
		return m.roomWithin(c)
	}
	roomy := m.capacity() >= 16
	spared := func(class admit.Class) bool {
		return m.waits(class) == 1 && class != c.class && (roomy || m.passed[class] >= 20)
	}
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
		if !owed && (m.capacity() < 2 || m.waits(c.class) > 0 || m.passed[c.class]-m.placed[c.class] < 20) {
			return m.blame(c, m.weight(c.class, c.tenant)+c.cost, admit.QueueFull), false
		}
	}
	if m.waits(c.class) == 0 && (m.beyond(c) || rank(from) < rank(c.class)) {
		m.placed[c.class] = m.passed[c.class]
	}
	m.refuse(m.take(m.heavy(from)), admit.Evicted)
	return 0, true
}

func (m *model) roomWithin(c *modelCall) (why admit.Reason, ok bool) {
	victim := m.heavy(c.class)
	heaviest := m.waiting[victim].tenant
	most, mine := m.weight(c.class, heaviest), m.weight(c.class, c.tenant)+c.cost
	switch {
	case c.tenant == heaviest || mine > most:
		return m.blame(c, mine, admit.QueueFull), false
	case mine == most:
		return admit.QueueFull, false
	}
	m.turnOut(victim, m.blame(c, most, admit.Evicted))
	return 0, true
}

// turnOut refuses the i-th waiter.
func (m *model) turnOut(i int, why admit.Reason) { m.refuse(m.take(i), why) }

// blame is OverShare if so much is more than a tenant's share when a call comes.
func (m *model) blame(c *modelCall, weight int, otherwise admit.Reason) admit.Reason {
	tenants := m.tenants(c.class)
	tenants[c.tenant] = true
	if n := len(tenants); n > 1 && weight*n > m.mostOf(c.class, m.limit)+m.mostOf(c.class, min(m.capacity(), max(32, m.limit))) {
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
	switch {
	case c.expired: // already over, whatever the gate does
		m.leave(c, context.DeadlineExceeded)
		return
	case m.draining:
		m.refuse(c, admit.Draining)
		return
	}
	if !m.dryRun && !m.sharing() && m.inFlight+c.cost > m.limit && m.queue.Policy != admit.Block {
		if why, ok := m.would(c); !ok { // the short way, on which nothing is learned of the tenant
			m.asked[c.class]++
			m.refuse(c, why)
			return
		}
	}
	fast := c.cost == 1 && c.tenant == "" && len(m.waiting) == 0 && !m.dryRun && !m.sharing()
	if fast && m.inFlight < m.limit {
		m.run(c, 1)
		c.counted = false
		return
	}
	if d := &m.demand[c.class]; !d.begun || m.now-m.came[c.class] > time.Minute {
		*d = modelDemand{begun: true, since: m.now}
	}
	m.came[c.class] = m.now
	m.classify(c)
	cost := m.charge(c)
	_, own := m.takes(c.class, c.tenant)
	head := m.needy(c.class)
	first := head >= 0 && !m.classMay(c.class, m.charge(m.waiting[head]))
	switch {
	case m.inFlight+cost <= m.limit && m.classMay(c.class, cost) && m.tenantMay(c, cost) && own == 0 && !first && m.next() < 0:
		m.run(c, cost)
	case m.dryRun && (m.capacity() == 0 || (m.inFlight-m.limit)/c.cost >= m.capacity() || m.beyondBound(c)):
		m.refuse(c, admit.QueueFull) // counted, and let in
		m.pretended++
		m.run(c, c.cost)
	case m.dryRun:
		m.grant(c, c.cost)
	default:
		m.enqueue(c)
	}
	m.forget()
}

// would says whether a call would find a place, and changes nothing.
func (m *model) would(c *modelCall) (why admit.Reason, ok bool) {
	tried := *m
	tried.waiting, tried.until = slices.Clone(m.waiting), maps.Clone(m.until)
	verdicts := map[*modelCall]string{}
	for _, w := range m.waiting {
		verdicts[w] = w.verdict
	}
	why, ok = tried.place(c)
	for w, verdict := range verdicts {
		w.verdict = verdict
	}
	return why, ok
}

func (m *model) enqueue(c *modelCall) {
	if why, ok := m.would(c); !ok {
		if m.queue.Policy != admit.Block {
			m.asked[c.class]++
			m.refuse(c, why)
			return
		}
	}
	m.see()
	m.asked[c.class]++
	if m.queue.Policy != admit.Block && m.tooLongForItsBound(c) {
		why := admit.OverShare
		if !m.holdsMost(c) {
			why = m.blame(c, m.weight(c.class, c.tenant)+c.cost, admit.QueueFull)
		}
		m.refuse(c, why)
		return
	}
	if why, ok := m.place(c); !ok {
		m.refuse(c, why)
		return
	}
	m.see()
	c.verdict = waits
	m.waiting = append(m.waiting, c)
	m.dispatch()
}

// tooLongForItsBound reports whether a call would wait for too long for the bound of its tenant.
func (m *model) tooLongForItsBound(c *modelCall) bool {
	if c.tenant == "" || m.tenantMay(c, m.charge(c)) {
		return false
	}
	patience := modelMaxWait
	if c.deadline > 0 {
		patience = min(patience, c.deadline-m.now)
	}
	all, allWant, mean := m.boundOf(c)
	held, before := m.takes(c.class, c.tenant)
	long, own := map[string]bool{}, 0
	for _, w := range m.waiting {
		if w.class == c.class && m.isLong(w) {
			long[w.tenant] = true
		}
		if w.class == c.class && w.tenant == c.tenant {
			own++
		}
	}
	if first := m.neediest(c.class, m.isLong); m.isLong(c) && first >= 0 {
		if least, _ := m.takes(c.class, m.waiting[first].tenant); least <= held+own {
			before = min(allWant, (before+c.cost)*len(long))
		}
	}
	return mean/time.Duration(all)*time.Duration(before+c.cost) > patience
}

func (m *model) dispatch() {
	m.dispatched = true
	for len(m.waiting) > 0 && m.inFlight < m.limit {
		i := m.next()
		if i < 0 {
			return
		}
		c := m.waiting[i]
		switch cost := m.charge(c); {
		case c.deadline > m.now && m.now-c.since > c.deadline-m.now: // no call of a script succeeds
			m.refuse(m.take(i), admit.DeadlineTooClose)
		case m.inFlight+cost > m.limit:
			m.block(c, m.limit-m.inFlight-m.part(c.class))
			return
		default:
			m.serve(i, cost)
		}
	}
}

// bill adds to the debt of the tenant of a call.
func (m *model) bill(c *modelCall, permits int) {
	if permits == 0 {
		return
	}
	if m.until == nil {
		m.until = map[[2]string]int{}
	}
	debt := max(0, m.owes(c)-m.granted[c.class]) + permits
	m.until[[2]string{c.class.String(), c.tenant}] = m.granted[c.class] + min(debt, max(permits, 20*m.limit))
}

// serve lets the i-th waiter run.
func (m *model) serve(i, cost int) {
	class := m.waiting[i].class
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
	c, debt := m.waiting[i], m.wasted(m.waiting[i])
	if part := m.part(class); held < part {
		debt += max(0, held+cost-part) * len(m.tenants(class))
	}
	m.bill(c, debt)
	m.see()
	m.waiting = slices.Delete(m.waiting, i, i+1)
	m.unblock(c)
	m.served[class]++
	m.grant(c, cost)
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
			m.pass(end)
			return
		}
		c := m.waiting[first]
		m.pass(c.expires())
		bound := m.atBound(c)
		m.take(first)
		switch {
		case m.now == c.deadline:
			m.leave(c, context.DeadlineExceeded)
		case bound:
			m.refuse(c, admit.OverShare)
		default:
			m.refuse(c, admit.WaitedTooLong)
		}
		m.dispatch() // those behind it may want less
	}
}

// atBound reports whether a call waits for permits most of which its own tenant holds.
func (m *model) atBound(c *modelCall) bool {
	return c.tenant != "" && !m.tenantMay(c, m.charge(c)) && m.holdsMost(c)
}

// holdsMost reports whether a call's tenant holds most of what counts against its bound.
func (m *model) holdsMost(c *modelCall) bool {
	held, _ := m.takes(c.class, c.tenant)
	all, _, _ := m.boundOf(c)
	return 2*held > all
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
			m.refuse(m.take(m.heavy(class)), admit.Evicted)
		}
	}
	for len(m.waiting) > m.capacity() && m.queue.Policy != admit.Block {
		from := m.lowest(func(class admit.Class) bool { return !m.within(class) })
		if from == nobody {
			from = m.lowest(func(admit.Class) bool { return true })
		}
		m.refuse(m.take(m.heavy(from)), admit.Evicted)
	}
	for m.dryRun && len(m.waiting) > 0 {
		m.serve(0, min(m.waiting[0].cost, m.limit))
	}
	m.dispatch()
}
