package pressure

// Stats is a snapshot of a monitor: its state, and counters since it was made.
type Stats struct {
	// Level is the level, and Signal the name of the signal that caused it; empty at Calm.
	Level  Level
	Signal string
	// Marks are the marks in force.
	Marks Marks
	// Signals are the signals in their order.
	Signals []SignalStats
	// Samples counts the samples, Changes the changes of the level, and Panics the panics
	// of hooks.
	Samples, Changes, Panics uint64
}

// SignalStats is what a monitor knows of one signal.
type SignalStats struct {
	// Name is its name.
	Name string
	// Value is what it said last, from 0 to 1.
	Value float64
	// Err says why it has no value now; nil if it has one. It wraps ErrUnknown where there
	// is nothing to measure.
	Err error
	// Failures counts the samples that it failed.
	Failures uint64
}

// Stats returns a snapshot. It takes a lock that no call waits for.
func (m *Monitor) Stats() Stats {
	if m == nil {
		return Stats{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	level, signal := m.Pressure()
	s := Stats{
		Level: Level(level), Signal: signal, Marks: m.cfg.marks.withDefaults(),
		Samples: m.samples, Changes: m.changes, Panics: m.panics,
	}
	for _, p := range m.cfg.probes {
		s.Signals = append(s.Signals, SignalStats{Name: p.name, Value: p.value, Err: p.err, Failures: p.failures})
	}
	return s
}
