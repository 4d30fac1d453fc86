package streamcredit

import (
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// A Meter counts all streams that were made with it ([WithMeter]), for metrics. It holds
// sums over streams and nothing for each: its cost does not grow with their number but
// while they are open. Safe for concurrent use. The zero value is a meter without a name.
type Meter struct {
	name    string
	dropped atomic.Uint64

	mu         sync.Mutex // guards what follows
	open       map[metered]struct{}
	closed     MeterStats // sums over streams that are over
	violations map[Reason]uint64
}

// metered is what a session offers to its meter.
type metered interface{ measure(m *MeterStats) }

// NewMeter returns a meter. Its name becomes a label value: choose it in the program,
// never from a call.
func NewMeter(name string) *Meter {
	return &Meter{name: name}
}

// Name returns the meter's name.
func (m *Meter) Name() string { return m.name }

// MeterStats is what a [Meter] has counted since it was made, and the state of the
// streams that are open.
type MeterStats struct {
	// Streams is how many are open; Opened how many there ever were.
	Streams, Opened uint64

	// Sent and Received count elements, SentBytes and ReceivedBytes their sizes (of what
	// was received only where its size is bounded).
	Sent, Received           uint64
	SentBytes, ReceivedBytes int64

	// ControlSent and ControlReceived count control messages and what rode on elements.
	ControlSent, ControlReceived uint64

	// Dropped counts elements that outboxes have dropped.
	Dropped uint64

	// Credit is what senders may send now, without those whose demand is unbounded,
	// which Unbounded counts.
	Credit    int64
	Unbounded uint64
	// Starved is the time, summed over senders, in which a Send waited for demand;
	// Starving how many senders have one that does now.
	Starved  time.Duration
	Starving uint64

	// Demand is what receivers have asked for and not received, without those that
	// asked for no end.
	Demand int64
	// Lag is how many elements have arrived and are not consumed.
	Lag uint64
	// Waited is the time, summed over receivers, in which a Recv waited for elements.
	Waited time.Duration
	// Window is the sum of the windows of receivers.
	Window int64

	// Violations counts streams that ended with a ProtocolError, by reason; time limits
	// (stalls) are among them.
	Violations map[Reason]uint64
}

// Stats returns the sums. It looks at each open stream.
func (m *Meter) Stats() MeterStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	sum := m.closed
	sum.Dropped = m.dropped.Load()
	for s := range m.open {
		s.measure(&sum)
	}
	sum.Streams = uint64(len(m.open))
	sum.Violations = maps.Clone(m.violations)
	return sum
}

func (m *Meter) join(s metered) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed.Opened++
	if m.open == nil {
		m.open = map[metered]struct{}{}
	}
	m.open[s] = struct{}{}
}

// leave keeps what s has counted.
func (m *Meter) leave(s metered) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.open[s]; !ok {
		return
	}
	delete(m.open, s)
	s.measure(&m.closed)
	m.closed.forgetState()
}

// failed counts a violation.
func (m *Meter) failed(err error) {
	var v *ProtocolError
	if !errors.As(err, &v) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.violations == nil {
		m.violations = map[Reason]uint64{}
	}
	m.violations[v.Reason]++
}

// forgetState clears what is true only of open streams.
func (m *MeterStats) forgetState() {
	m.Credit, m.Unbounded, m.Starving, m.Demand, m.Lag, m.Window = 0, 0, 0, 0, 0, 0
}

// measure adds what the session has counted, and its state.
func (s *session[O, I]) measure(m *MeterStats) {
	m.ControlReceived += s.controls.Load()
	m.ControlSent += s.w.controls.Load()
	if s.out != nil {
		o := s.out.stats()
		m.Sent += s.w.elements.Load()
		m.SentBytes += s.w.bytes.Load()
		m.Starved += o.Starved
		if o.Waiting > 0 {
			m.Starving++
		}
		if o.Credit == unbounded {
			m.Unbounded++
		} else {
			m.Credit = saturate(m.Credit, o.Credit)
		}
	}
	if s.in != nil {
		i := s.in.stats()
		m.Received += i.Received
		m.ReceivedBytes += i.Bytes
		m.Waited += i.Waited
		if i.Outstanding != unbounded {
			m.Demand = saturate(m.Demand, i.Outstanding)
		}
		m.Lag += i.Received - i.Consumed
		m.Window += int64(i.Window)
	}
}
