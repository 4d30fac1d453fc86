package broker

import (
	"sync"
	"time"
)

// A Settlement is the end of a message: Requeued, Acked, DeadLettered or Lost.
type Settlement uint8

// The settlements.
const (
	// Requeued messages were given back.
	Requeued Settlement = iota
	// Acked messages were consumed.
	Acked
	// DeadLettered messages were set aside.
	DeadLettered
	// Lost messages were taken away by the broker, or could not be given back at the end.
	// The broker delivers them again.
	Lost

	// NumSettlements is the number of settlements.
	NumSettlements = 4
)

// String returns the settlement in lower case with underscores, as in the labels of metrics.
func (s Settlement) String() string {
	return nameOf(int(s), "requeued", "acked", "dead_lettered", "lost")
}

// A PauseCause is the origin of a pause of consumption: ByDependency or ByGate.
type PauseCause uint8

// The causes.
const (
	// ByDependency means that the handler returned an error of the kind Refused.
	ByDependency PauseCause = iota
	// ByGate means that the gate of the consumer refused.
	ByGate

	// NumPauseCauses is the number of causes.
	NumPauseCauses = 2
)

// String returns the cause in lower case, as in the labels of metrics.
func (c PauseCause) String() string { return nameOf(int(c), "dependency", "gate") }

func nameOf(i int, names ...string) string {
	if i < len(names) {
		return names[i]
	}
	return "unknown"
}

// A Meter counts messages of sources and consumers that were made with it, in
// SourceConfig and ConsumeConfig, for metrics. It is safe for concurrent use. The zero
// Meter has no name.
type Meter struct {
	name string

	mu      sync.Mutex // guards the fields below
	stats   Stats
	changed time.Time // when Paused changed
}

// NewMeter returns a meter. Its name becomes a label value, so it must come from the
// program and never from a message.
func NewMeter(name string) *Meter { return &Meter{name: name} }

// Name returns the meter's name.
func (m *Meter) Name() string { return m.name }

// Stats is a snapshot of a [Meter]. Fields of the current state are of type int. Counters
// never decrease.
type Stats struct {
	// Wanted is the number of messages that sources were asked for and that are not
	// settled. Held is the number of messages in this process that are not settled.
	Wanted, Held int
	// Running is the number of handlers that run.
	Running int
	// Paused is the number of consumers that pause.
	Paused int

	// Fetched counts messages that were delivered to this process, Redelivered those
	// among them that the broker had delivered before, as far as it counts.
	Fetched, Redelivered uint64
	// Settled counts messages by their end.
	Settled [NumSettlements]uint64
	// Extended counts the times that a source asked for more time for a message.
	Extended uint64
	// Failed counts failed attempts of handlers, panics among them. Panics counts those.
	Failed, Panics uint64
	// Refused counts attempts that ended because something refused work.
	Refused uint64
	// Pauses counts pauses by their cause. A pause that is extended counts once.
	// PausedSeconds is the time spent in pauses, summed over consumers.
	Pauses        [NumPauseCauses]uint64
	PausedSeconds float64
	// Errors counts errors of fetching, extending and settling. LastError is the last of
	// them, and LastErrorAt its time.
	Errors      uint64
	LastError   error
	LastErrorAt time.Time
	// LastPause is the error that caused the last pause.
	LastPause error
}

// Stats returns the current state, and what was counted since the meter was made. It is safe for
// concurrent use.
func (m *Meter) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.accrueLocked()
	return m.stats
}

// count changes the numbers. It must not block.
func (m *Meter) count(change func(*Stats)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.stats)
}

func (m *Meter) errs(err error) {
	m.count(func(s *Stats) {
		s.Errors++
		s.LastError, s.LastErrorAt = err, time.Now()
	})
}

func (m *Meter) paused(cause PauseCause, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.accrueLocked()
	m.stats.Paused++
	m.stats.Pauses[cause]++
	m.stats.LastPause = err
}

func (m *Meter) resumed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.accrueLocked()
	m.stats.Paused--
}

// accrueLocked adds the time since the last change to PausedSeconds.
func (m *Meter) accrueLocked() {
	now := time.Now()
	if m.stats.Paused > 0 {
		m.stats.PausedSeconds += float64(m.stats.Paused) * now.Sub(m.changed).Seconds()
	}
	m.changed = now
}
