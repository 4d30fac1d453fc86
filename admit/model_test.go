package admit_test

import (
	"context"
	"time"

	"github.com/weir-go/weir/admit"
)

// A model is what a gate with a fixed limit promises, in slices and without a
// lock: after each step of a script it says what has become of every call.
// Deadlines, patience and steps never fall on the same moment.
type model struct {
	limit    int
	queue    admit.QueueConfig
	noQueue  bool
	dryRun   bool
	draining bool
	now      time.Duration
	since    time.Duration // since when somebody waits
	inFlight int
	waiting  []*modelCall
	want     admit.Stats
	// pretended counts the refusals of dry runs, which refuse nobody.
	pretended int
}

// A modelCall is a call and what the model says of it.
type modelCall struct {
	real     *call
	class    admit.Class
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
	c.verdict, c.took = runs, m.now-c.since
	m.inFlight++
	m.want.Waited++
	m.want.WaitTime += c.took
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

// victim is who makes room: the oldest of the last class.
func (m *model) victim() int {
	v := -1
	for i, c := range m.waiting {
		if v < 0 || rank(c.class) > rank(m.waiting[v].class) {
			v = i
		}
	}
	return v
}

// next is who is served: of the first class the oldest, or the newest.
func (m *model) next() int {
	newest := m.queue.Order == admit.AdaptiveLIFO && 2*len(m.waiting) > m.capacity()
	n := 0
	for i, c := range m.waiting {
		if d := rank(c.class) - rank(m.waiting[n].class); d < 0 || d == 0 && newest {
			n = i
		}
	}
	return n
}

func (m *model) acquire(c *modelCall) {
	c.since, c.late = m.now, m.now+modelMaxWait
	if m.queue.Policy == admit.Block && m.queue.MaxWait == 0 {
		c.late = 0
	}
	switch {
	case c.expired: // already over, whatever the gate does
		m.leave(c, context.DeadlineExceeded)
	case m.draining:
		m.refuse(c, admit.Draining)
	case m.inFlight < m.limit:
		m.inFlight++
		c.verdict = runs
	case m.dryRun && m.inFlight-m.limit >= m.capacity():
		m.refuse(c, admit.QueueFull) // counted, and let in
		m.pretended++
		m.inFlight++
		c.verdict = runs
	case m.dryRun:
		m.grant(c)
	default:
		m.enqueue(c)
	}
}

func (m *model) enqueue(c *modelCall) {
	if m.queue.Policy != admit.Block && len(m.waiting) >= m.capacity() {
		v := m.victim()
		if v < 0 || rank(m.waiting[v].class) < rank(c.class) ||
			rank(m.waiting[v].class) == rank(c.class) && m.queue.Policy == admit.Reject {
			m.refuse(c, admit.QueueFull)
			return
		}
		m.refuse(m.take(v), admit.Displaced)
	}
	if len(m.waiting) == 0 {
		m.since = m.now
	}
	c.verdict = waits
	m.waiting = append(m.waiting, c)
}

func (m *model) dispatch() {
	for len(m.waiting) > 0 && m.inFlight < m.limit {
		c := m.take(m.next())
		if m.queue.Order == admit.CoDel && m.now-m.since > 100*ms && m.now-c.since > 5*ms {
			m.refuse(c, admit.WaitedTooLong)
		} else {
			m.grant(c)
		}
	}
}

func (m *model) sleep(d time.Duration) {
	m.now += d
	for i := 0; i < len(m.waiting); {
		c := m.waiting[i]
		switch {
		case c.deadline > 0 && c.deadline < m.now && (c.late == 0 || c.deadline < c.late):
			m.leave(m.take(i), context.DeadlineExceeded)
			c.took = c.deadline - c.since
		case c.late > 0 && c.late < m.now:
			m.refuse(m.take(i), admit.WaitedTooLong)
			c.took = c.late - c.since
		default:
			i++
		}
	}
}

func (m *model) cancel(c *modelCall) {
	for i := range m.waiting {
		if m.waiting[i] == c {
			m.leave(m.take(i), context.Canceled)
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
func (m *model) updated(relimited bool) {
	if relimited {
		m.dispatch()
	}
	for len(m.waiting) > m.capacity() && m.queue.Policy != admit.Block {
		m.refuse(m.take(m.victim()), admit.Displaced)
	}
	for m.dryRun && len(m.waiting) > 0 {
		m.grant(m.take(0))
	}
}
