package pressure

// Stats is a snapshot of a monitor. The counters start when it was made.
type Stats struct {
	// Level is the level, and Signal the name of the signal that caused it. Signal is empty
	// at Calm.
	Level  Level
	Signal string
	// Marks are the marks in force.
	Marks Marks
	// Signals has the signals in the order of WithSignals.
	Signals []SignalStats
	// Samples counts the samples, Changes the changes of the level, and Panics the panics
	// of hooks.
	Samples, Changes, Panics uint64
}

// SignalStats is a snapshot of one signal.
type SignalStats struct {
	// Name is the name of the signal.
	Name string
	// Value is the last valid value, from 0 to 1.
	Value float64
	// Err is the error of the last read, nil if it succeeded. It wraps ErrUnknown if there is
	// nothing to measure.
	Err error
	// Failures counts the failed reads.
	Failures uint64
}

// Stats returns a snapshot. Calls never wait for the lock that it takes.
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
