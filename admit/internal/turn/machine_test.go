package turn_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-go/weir/admit/internal/turn"
)

const (
	ms       = time.Millisecond
	progress = 20 // as in the package
)

// A call is one of the machine's: it waits, runs, or is gone.
type call struct {
	turn.Waiter

	turn.Call

	holder *turn.Tenant
	held   int
}

// A machine drives a queue as a gate does, and knows what the queue must say: by linear
// search in slices, which is what the heaps stand for.
type machine struct {
	*rapid.T

	q                *turn.Queue
	cfg              turn.Config
	limit            int
	now              time.Duration
	waiting, running []*call // in the order in which they came
	passed           [turn.MaxClasses]int
	plain            bool // no shares, bounds, costs or long calls: the order is known
}

func newMachine(t *rapid.T, plain bool) *machine {
	m := &machine{T: t, plain: plain, limit: 1 + rapid.IntRange(0, 2).Draw(t, "limit")}
	m.configure()
	m.q = turn.New(m.cfg)
	return m
}

// configure draws another configuration.
func (m *machine) configure() {
	m.cfg = turn.Config{Places: rapid.SampledFrom([]int{1, 2, 5, 17}).Draw(m.T, "places"), MaxWait: time.Second}
	for class := range 4 {
		c := &m.cfg.Classes[class]
		c.Priority = rapid.SampledFrom([]int{1, 2, 3}).Draw(m.T, "priority")
		if !m.plain && rapid.Bool().Draw(m.T, "with a share") {
			c.Share = 0.25
		}
		if !m.plain && rapid.IntRange(0, 3).Draw(m.T, "with a bound") == 0 {
			c.Max = 0.5
		}
	}
}

func (m *machine) inFlight() (n int) {
	for _, c := range m.running {
		n += c.held
	}
	return n
}

func (m *machine) room() turn.Room {
	return turn.Room{Limit: m.limit, InFlight: m.inFlight(), Now: m.now}
}

// run notes that a call runs.
func (m *machine) run(c *call, cost int, holder *turn.Tenant) {
	if cost < 1 || cost > min(c.Call.Cost, m.limit) {
		m.Fatalf("charged: got %d for a call that costs %d of %d", cost, c.Call.Cost, m.limit)
	}
	c.held, c.holder = cost, holder
	m.running = append(m.running, c)
}

func (m *machine) drop(c *call) {
	m.waiting = slices.DeleteFunc(m.waiting, func(w *call) bool { return w == c })
}

// Arrive lets a call come.
func (m *machine) Arrive(t *rapid.T) {
	m.T = t
	c := &call{Call: turn.Call{
		Class: rapid.IntRange(0, 3).Draw(t, "class"), Tenant: rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "tenant"), Cost: 1,
	}}
	if !m.plain { // tenants with dear calls run into debt
		c.Call.Cost = min(m.limit, rapid.SampledFrom([]int{1, 1, 1, 2, 4}).Draw(t, "cost"))
	}
	c.Owner = c
	m.now += time.Microsecond
	m.dispatch()                    // as in Sleep
	defer func() { m.dispatch() }() // a call that is refused tells of its tenant, too
	if cost, ok := m.q.MayRun(c.Call, m.room()); ok {
		if m.inFlight()+cost > m.limit {
			t.Fatalf("let in beyond the limit: %d and %d of %d", m.inFlight(), cost, m.limit)
		}
		m.run(c, cost, m.q.Hold(c.Call, cost, m.room()))
		return
	}
	if _, shut := m.q.Shut(c.Call, m.limit); shut {
		return
	}
	v := m.q.Ask(c.Call, m.room(), 0, 0)
	if !v.Wait {
		return
	}
	if v.Evict != nil {
		m.evict(c, v.Evict)
	}
	c.Waiter.Class, c.Waiter.Cost, c.Since = c.Call.Class, c.Call.Cost, m.now
	m.q.Join(&c.Waiter, c.Tenant, m.room())
	m.waiting = append(m.waiting, c)
	m.dispatch()
}

// evict takes out the call that makes room for a newcomer.
func (m *machine) evict(newcomer *call, w *turn.Waiter) {
	out := w.Owner.(*call)
	if !slices.Contains(m.waiting, out) {
		m.Fatalf("evicted: got a call that does not wait")
	}
	mine, theirs := m.cfg.Classes[newcomer.Call.Class].Priority, m.cfg.Classes[out.Call.Class].Priority
	starves := m.passed[newcomer.Call.Class] >= progress
	if m.plain && theirs > mine && !starves {
		m.Fatalf("evicted for a call of priority %d: got one of %d", mine, theirs)
	}
	m.q.Remove(w, m.room())
	m.drop(out)
}

// dispatch serves as many calls as it can.
func (m *machine) dispatch() {
	for m.inFlight() < m.limit {
		w, cost := m.q.Next(m.room())
		if m.plain {
			if want := m.next(); w != want {
				m.Fatalf("next: got %v, want %v", w, want)
			}
		}
		if w == nil || m.inFlight()+cost > m.limit {
			return
		}
		c := w.Owner.(*call)
		for class := range m.passed {
			m.passed[class] += cost
		}
		m.passed[c.Call.Class] = 0
		m.run(c, cost, m.q.Serve(w, cost, m.room()))
		m.drop(c)
	}
}

// next is which call is served next: of a class that was passed over too often, then of the
// highest priority, then the one that came first; within a class of the tenant that holds the
// least.
func (m *machine) next() *turn.Waiter {
	var best *call
	bestTurn := false
	for class, cfg := range m.cfg.Classes {
		var first *call
		for _, c := range m.waiting {
			if c.Call.Class == class && (first == nil || m.holds(c) < m.holds(first)) {
				first = c
			}
		}
		if first == nil {
			continue
		}
		owed := m.passed[class] >= progress*min(first.Call.Cost, m.limit)
		better := best == nil || owed && !bestTurn
		if best != nil && owed == bestTurn {
			theirs := m.cfg.Classes[best.Call.Class].Priority
			better = cfg.Priority > theirs || cfg.Priority == theirs && slices.Index(m.waiting, first) < slices.Index(m.waiting, best)
		}
		if better {
			best, bestTurn = first, owed
		}
	}
	if best == nil {
		return nil
	}
	return &best.Waiter
}

// holds is how many permits a call's tenant has.
func (m *machine) holds(c *call) (n int) {
	for _, r := range m.running {
		if r.holder != nil && r.Call.Class == c.Call.Class && r.Tenant == c.Tenant {
			n += r.held
		}
	}
	return n
}

// Return gives the permits of a call back.
func (m *machine) Return(t *rapid.T) {
	if m.T = t; len(m.running) == 0 {
		t.Skip("nothing runs")
	}
	i := rapid.IntRange(0, len(m.running)-1).Draw(t, "call")
	c := m.running[i]
	m.running = slices.Delete(m.running, i, i+1)
	if c.holder != nil {
		m.q.Return(c.holder, c.held, m.room())
	}
	m.dispatch()
}

// Leave lets a waiting call go.
func (m *machine) Leave(t *rapid.T) {
	if m.T = t; len(m.waiting) == 0 {
		t.Skip("nothing waits")
	}
	c := rapid.SampledFrom(m.waiting).Draw(t, "call")
	m.q.Remove(&c.Waiter, m.room())
	m.drop(c)
	m.dispatch()
}

// Sleep lets time pass. In a plain machine it is too short for calls to be long.
func (m *machine) Sleep(t *rapid.T) {
	m.T = t
	longest := 400 * ms
	if m.plain {
		longest = 10 * time.Microsecond
	}
	m.now += time.Duration(rapid.Int64Range(1, int64(longest)).Draw(t, "time"))
	m.dispatch() // what is charged for a call may have become less
}

// Change draws another limit, or other rules.
func (m *machine) Change(t *rapid.T) {
	m.T = t
	if rapid.Bool().Draw(t, "the limit") {
		m.limit = 1 + rapid.IntRange(0, 2).Draw(t, "limit")
		if !m.plain {
			m.limit = rapid.SampledFrom([]int{1, 2, 4, 9, 20}).Draw(t, "limit")
		}
	} else if !m.plain { // in a plain one classes do not change what they are passed over for
		m.configure()
		m.q.Configure(m.cfg, m.now)
	}
	for w := m.q.Excess(m.limit); w != nil; w = m.q.Excess(m.limit) {
		m.q.Remove(w, m.room())
		m.drop(w.Owner.(*call))
	}
	m.dispatch()
}

// check compares what the queue knows with the machine's slices.
func (m *machine) check(t *rapid.T) {
	var waiting, held [turn.MaxClasses]int
	tenants := map[string]bool{}
	for _, c := range m.waiting {
		waiting[c.Call.Class]++
		tenants[fmt.Sprint(c.Call.Class, c.Tenant)] = tenants[fmt.Sprint(c.Call.Class, c.Tenant)] || c.Tenant != ""
	}
	for _, c := range m.running {
		if c.holder != nil {
			held[c.Call.Class] += c.held
			tenants[fmt.Sprint(c.Call.Class, c.Tenant)] = tenants[fmt.Sprint(c.Call.Class, c.Tenant)] || c.Tenant != ""
		}
	}
	named := 0
	for _, is := range tenants {
		if is {
			named++
		}
	}
	for class := range waiting {
		if m.q.Waiting(class) != waiting[class] || m.q.Held(class) != held[class] {
			t.Fatalf("class %d: got %d waiting and %d held, want %d and %d", class, m.q.Waiting(class), m.q.Held(class), waiting[class], held[class])
		}
	}
	if m.q.Len() != len(m.waiting) || m.q.Tenants() != named || m.q.Len() > m.cfg.Places {
		t.Fatalf("got %d waiting of %d, %d tenants, want %d and %d", m.q.Len(), m.cfg.Places, m.q.Tenants(), len(m.waiting), named)
	}
	if w, cost := m.q.Next(m.room()); w != nil && m.inFlight()+cost <= m.limit {
		t.Fatalf("got a call waiting that could run at a cost of %d: %d of %d permits are in use", cost, m.inFlight(), m.limit)
	}
}

// Whatever happens, the queue knows who waits and who holds what, no call waits that may run,
// and none is let in beyond the limit.
func TestQueueKeepsItsLedger(t *testing.T) { play(t, false) }

// Without shares, bounds, costs and long calls the next call is the one that a linear search finds.
func TestQueueServesInOrder(t *testing.T) { play(t, true) }

func play(t *testing.T, plain bool) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t, plain)
		t.Repeat(map[string]func(*rapid.T){
			"": m.check, "arrive": m.Arrive, "arrive too": m.Arrive, "return": m.Return, "leave": m.Leave, "sleep": m.Sleep, "change": m.Change,
		})
	})
}
