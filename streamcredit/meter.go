package streamcredit

import (
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
)

// A Meter counts all streams that were made with it ([WithMeter]), for metrics. It keeps one sum
// for all streams that have ended, so its cost grows only with the number of open streams. Safe
// for concurrent use. The zero value is a meter without a name.
type Meter struct {
	name    string
	dropped atomic.Uint64

	looks sync.Mutex // held during Stats, so that only one sum is made at a time

	mu         sync.Mutex         // guards the fields below
	open       map[metered]uint64 // the last look that measured the stream
	look       uint64             // the number of looks so far
	looking    *MeterStats        // the sum of the look that goes on, or nil
	closed     MeterStats         // sums over streams that have ended
	violations map[Reason]uint64
	log        *slog.Logger
	logged     map[Reason]sampled
}

// metered is the part of a session that its meter uses.
type metered interface {
	measure(m *MeterStats)
	describe() StreamState
}

// NewMeter returns a meter. Its name becomes a label value, so it must come from the program and
// never from a call.
func NewMeter(name string) *Meter {
	return &Meter{name: name}
}

// Name returns the meter's name.
func (m *Meter) Name() string { return m.name }

// MeterStats is a snapshot of a [Meter]. It has counters since the meter was created, and the
// state of the open streams.
type MeterStats struct {
	// Streams is the number of open streams.
	Streams int
	// Opened counts the streams that were opened.
	Opened uint64

	// Sent and Received count elements. SentBytes and ReceivedBytes count their bytes.
	// ReceivedBytes includes only receivers with a size bound or a budget.
	Sent, Received           uint64
	SentBytes, ReceivedBytes uint64

	// ControlSent and ControlReceived count control messages, and control that rode on elements.
	ControlSent, ControlReceived uint64

	// Dropped counts elements that outboxes have dropped.
	Dropped uint64

	// Credit is the number of elements that senders may send now. Senders with unbounded demand
	// are left out. Unbounded counts them.
	Credit    int64
	Unbounded int
	// StarvedSeconds is the time in which a Send waited for demand, summed over senders. Starving
	// is the number of senders with a Send that waits now.
	StarvedSeconds float64
	Starving       int

	// Demand is the number of elements that receivers have requested and not received. Receivers
	// with unbounded demand are left out.
	Demand int64
	// Lag is the number of elements that have arrived and are not consumed.
	Lag int
	// WaitedSeconds is the time in which a Recv waited for elements, summed over receivers.
	WaitedSeconds float64
	// Window is the sum of the windows of receivers.
	Window int64

	// Violations counts streams that ended with a ProtocolError, by reason. Exceeded time limits
	// are among them.
	Violations map[Reason]uint64
}

// lookBatch is the number of streams that are measured or copied under one lock. A stream that
// opens or ends meanwhile waits for about a microsecond.
const lookBatch = 8

// Stats returns the sums. Its cost grows with the number of open streams. Streams that open or end
// meanwhile do not wait for it. It counts each stream once, also one that ends meanwhile.
func (m *Meter) Stats() MeterStats {
	m.looks.Lock()
	defer m.looks.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	sum := m.closed
	m.look++
	m.looking = &sum
	measured := 0
	for s := range m.open { // the map may change in a rest
		s.measure(&sum)
		m.open[s] = m.look
		measured++
		m.restLocked(measured)
	}
	m.looking = nil
	sum.Opened, sum.Dropped = m.closed.Opened, m.dropped.Load()
	sum.Streams = len(m.open)
	sum.Violations = maps.Clone(m.violations)
	return sum
}

// restLocked releases the lock for a moment after every few streams of a look.
func (m *Meter) restLocked(streams int) {
	if streams%lookBatch == 0 {
		m.mu.Unlock()
		if rested != nil {
			rested()
		}
		m.mu.Lock()
	}
}

// rested is called in each rest of a look. Only tests set it.
var rested func()

func (m *Meter) join(s metered) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed.Opened++
	if m.open == nil {
		m.open = map[metered]uint64{}
	}
	m.open[s] = 0
}

// leave removes s and keeps its counts. A look that goes on and has not measured s counts it now,
// or its sums would be lower than those of an earlier look.
func (m *Meter) leave(s metered) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, ok := m.open[s]
	if !ok {
		return
	}
	delete(m.open, s)
	s.measure(&m.closed)
	m.closed.keepState(&MeterStats{})
	if m.looking != nil && last != m.look {
		before := *m.looking
		s.measure(m.looking)
		m.looking.keepState(&before) // it is not open any more
	}
}

// failed counts err if it is a violation.
func (m *Meter) failed(err error) {
	var v *ProtocolError
	if !errors.As(err, &v) {
		return
	}
	m.mu.Lock()
	if m.violations == nil {
		m.violations = map[Reason]uint64{}
	}
	m.violations[v.Reason]++
	log, n := m.sampleLocked(v.Reason)
	m.mu.Unlock()
	if log != nil {
		log.Warn("weir: a stream was ended",
			slog.String("meter", m.name), slog.String("reason", string(v.Reason)), slog.Uint64("streams", n))
	}
}

// keepState sets the fields that describe open streams as they were before.
func (m *MeterStats) keepState(before *MeterStats) {
	m.Credit, m.Unbounded, m.Starving = before.Credit, before.Unbounded, before.Starving
	m.Demand, m.Lag, m.Window = before.Demand, before.Lag, before.Window
}

// measure adds the counts and the state of the session to m.
func (s *session[O, I]) measure(m *MeterStats) {
	m.ControlReceived += s.controls.Load()
	m.ControlSent += s.w.controls.Load()
	if s.out != nil {
		o := s.out.stats()
		m.Sent += s.w.elements.Load()
		m.SentBytes += s.w.bytes.Load()
		m.StarvedSeconds += o.Starved.Seconds()
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
		m.ReceivedBytes += i.ReceivedBytes
		m.WaitedSeconds += i.Waited.Seconds()
		if i.Outstanding != unbounded {
			m.Demand = saturate(m.Demand, i.Outstanding)
		}
		m.Lag += int(i.Received - i.Consumed)
		m.Window += i.Window
	}
}
