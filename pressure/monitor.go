package pressure

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A Monitor reads signals and says how close the process is to its end. Use [New]. All
// methods are safe for concurrent use. The zero Monitor and a nil one are always Calm.
//
// A monitor has one goroutine from Start to Stop, which starts a short one for each read
// of a signal.
type Monitor struct {
	state atomic.Pointer[state]

	life    sync.Mutex // held by Start and Stop throughout; taken before mu
	mu      sync.Mutex // guards what follows
	cfg     config
	stop    chan struct{} // closed to end the goroutine; nil while there is none
	done    chan struct{} // closed when it has ended
	samples uint64
	changes uint64
	panics  uint64
}

// A state is what callers see. It never changes.
type state struct {
	level  Level
	signal string
}

// starter is a signal that has something to do while a monitor runs.
type starter interface {
	start()
	stop()
}

// New returns a monitor that is not started. It returns an error that wraps ErrConfig and
// names every wrong option.
func New(opts ...Option) (*Monitor, error) {
	c := config{name: "default"}
	c.probes = c.newProbes([]Signal{Memory(MemoryConfig{}), GC(), Processors()})
	c.take(opts)
	if err := c.validate(); err != nil {
		return nil, err
	}
	return &Monitor{cfg: c}, nil
}

// Name returns the name of the monitor; see [WithName]. It is empty for a nil or zero Monitor.
func (m *Monitor) Name() string {
	if m == nil {
		return ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cfg.name
}

// Update changes the configuration, also while the monitor runs, and keeps what it is not
// told to change. With an error, which wraps ErrConfig, it changes nothing. The next
// sample goes by it.
func (m *Monitor) Update(opts ...Option) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.cfg
	next.take(opts)
	if m.cfg.name != next.name {
		next.wrong = append(next.wrong, fmt.Errorf("a monitor cannot be renamed: got %q, want %q", next.name, m.cfg.name))
	}
	if err := next.validate(); err != nil {
		return err
	}
	if m.stop != nil {
		each(m.cfg.probes, starter.stop)
		each(next.probes, starter.start)
	}
	m.cfg = next
	return nil
}

// Start begins to read the signals. It does not block. A monitor that runs is left alone.
// Call Stop when the server has stopped.
func (m *Monitor) Start() {
	m.life.Lock()
	defer m.life.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stop != nil {
		return
	}
	if m.cfg.every == 0 { // a zero Monitor
		return
	}
	each(m.cfg.probes, starter.start)
	m.stop, m.done = make(chan struct{}), make(chan struct{})
	go m.run(m.stop, m.done)
}

// Stop ends the monitor's goroutine and waits for it. It does not wait for a signal that
// does not return. The level is Calm from then on. Start begins anew. A hook must not call
// Stop, which waits for the hook.
func (m *Monitor) Stop() {
	m.life.Lock()
	defer m.life.Unlock()
	m.mu.Lock()
	stop, done := m.stop, m.done
	m.mu.Unlock()
	if stop == nil {
		return
	}
	close(stop)
	<-done
	m.mu.Lock()
	defer m.mu.Unlock()
	each(m.cfg.probes, starter.stop)
	m.stop, m.done = nil, nil
	m.state.Store(nil)
}

// each calls f for the signals that want to know when a monitor runs.
func each(probes []*probe, f func(starter)) {
	for _, p := range probes {
		if s, ok := p.signal.(starter); ok {
			f(s)
		}
	}
}

// Level returns the level at the last sample. It costs one atomic load.
func (m *Monitor) Level() Level {
	level, _ := m.Pressure()
	return Level(level)
}

// Pressure returns the level and the name of the signal that caused it, for gates: see
// admit.WithPressure. It costs one atomic load.
func (m *Monitor) Pressure() (level uint8, signal string) {
	if m == nil {
		return 0, ""
	}
	if s := m.state.Load(); s != nil {
		return uint8(s.level), s.signal
	}
	return 0, ""
}

func (m *Monitor) run(stop <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	for {
		began := time.Now()
		every := m.sample(stop)
		next := time.NewTimer(every - time.Since(began))
		select {
		case <-stop:
			next.Stop()
			return
		case <-next.C:
		}
	}
}

// sample reads the signals once and settles the level. It returns after how long to do so
// again, at the latest then.
func (m *Monitor) sample(stop <-chan struct{}) time.Duration {
	m.mu.Lock()
	cfg, now := m.cfg, time.Now()
	for _, p := range cfg.probes {
		p.ask(now)
	}
	m.mu.Unlock()

	late := time.NewTimer(cfg.every)
	defer late.Stop()
	answers := make([]*reading, len(cfg.probes))
	over := false
	for i, p := range cfg.probes {
		if over { // a select may choose what ends it though there is an answer
			select {
			case r := <-p.answer:
				answers[i] = &r
			default:
			}
			continue
		}
		select {
		case r := <-p.answer:
			answers[i] = &r
		case <-late.C:
			over = true
		case <-stop:
			over = true
		}
	}
	m.settle(&cfg, answers)
	return cfg.every
}

// settle takes what the signals have answered, nil for those that have not, and tells the
// hooks what has changed.
func (m *Monitor) settle(cfg *config, answers []*reading) {
	m.mu.Lock()
	now := time.Now()
	var tell []func(Hooks)
	worst, name := 0.0, ""
	for i, p := range cfg.probes {
		if answers[i] != nil {
			p.take(*answers[i], now)
		} else {
			p.silent(now, cfg.memory())
		}
		if p.news() {
			name, err := p.name, p.err
			tell = append(tell, func(h Hooks) {
				if h.Failed != nil {
					h.Failed(name, err)
				}
			})
		}
		if v := p.worth(now, cfg.memory()); v > worst {
			worst, name = v, p.name
		}
	}
	m.samples++
	was := state{}
	if s := m.state.Load(); s != nil {
		was = *s
	}
	level := cfg.marks.withDefaults().next(was.level, worst)
	if level != was.level {
		m.changes++
		change := Change{From: was.level, To: level, Signal: name, Value: worst}
		tell = append(tell, func(h Hooks) {
			if h.Changed != nil {
				h.Changed(change)
			}
		})
	}
	switch {
	case level == Calm:
		m.state.Store(nil)
	case level != was.level || name != was.signal:
		m.state.Store(&state{level, name})
	}
	m.mu.Unlock()
	for _, f := range tell {
		for _, h := range cfg.hooks {
			m.guard(func() { f(h) })
		}
	}
}

// guard runs a hook and counts its panic.
func (m *Monitor) guard(f func()) {
	defer func() {
		if recover() != nil {
			m.mu.Lock()
			m.panics++
			m.mu.Unlock()
		}
	}()
	f()
}
