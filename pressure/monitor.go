package pressure

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Monitor reads signals and derives the level of pressure. Use [New]. It is safe for
// concurrent use. The zero Monitor and a nil one are always Calm.
//
// A monitor has one goroutine from Start to Stop. It starts a short one for each read of a
// signal.
type Monitor struct {
	state atomic.Pointer[state]

	life    sync.Mutex // held by Start and Stop throughout, and taken before mu
	mu      sync.Mutex // guards the fields below
	cfg     config
	stop    chan struct{} // closed to end the goroutine, nil if there is none
	done    chan struct{} // closed by the goroutine when it ends
	samples uint64
	changes uint64
	panics  uint64
}

// A state is the result of a sample. It never changes.
type state struct {
	level  Level
	signal string
}

// A starter is a signal that the monitor tells when it starts and stops.
type starter interface {
	start()
	stop()
}

// New returns a monitor that is not started. The error wraps ErrConfig and names every wrong
// option.
func New(opts ...Option) (*Monitor, error) {
	c := config{name: "default"}
	c.probes = c.newProbes([]Signal{Memory(MemoryConfig{}), GC(), Processors()})
	c.apply(opts)
	if err := c.validate().Err(ErrConfig); err != nil {
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

// Update changes the configuration, also while the monitor runs. It keeps everything that no
// option names. The next sample uses the new configuration. If an option is wrong, Update
// changes nothing and returns an error that wraps ErrConfig.
func (m *Monitor) Update(opts ...Option) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.cfg
	next.apply(opts)
	bad := next.validate()
	bad.That(next.name == m.cfg.name, "name: got %q, want %q, because a monitor cannot be renamed", next.name, m.cfg.name)
	if err := bad.Err(ErrConfig); err != nil {
		return err
	}
	if m.stop != nil {
		each(without(m.cfg.probes, next.probes), starter.stop)
		each(without(next.probes, m.cfg.probes), starter.start)
	}
	m.cfg = next
	return nil
}

// Start begins to read the signals. It does not block. It does nothing if the monitor runs.
// Call Stop after the server has stopped.
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

// Stop ends the goroutine of the monitor and waits for it, but not for a signal that does not
// return. The level is Calm from then on. Start can start the monitor again. A hook must not
// call Stop, because Stop waits for the hook.
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

// each calls f for each signal that is a starter.
func each(probes []*probe, f func(starter)) {
	for _, p := range probes {
		if s, ok := p.signal.(starter); ok {
			f(s)
		}
	}
}

// without returns the probes that are not among others.
func without(probes, others []*probe) []*probe {
	return slices.DeleteFunc(slices.Clone(probes), func(p *probe) bool { return slices.Contains(others, p) })
}

// Level returns the level of the last sample. It costs one atomic load.
func (m *Monitor) Level() Level {
	level, _ := m.Pressure()
	return Level(level)
}

// Pressure returns the level and the name of the signal that caused it. Gates call it; see
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

// sample reads the signals that are due and sets the level. It returns when the next sample
// is due, counted from the begin of this one, and waits no longer than that for the signals.
// It does not wait for a read that counts as failed, so a signal that hangs delays no other.
func (m *Monitor) sample(stop <-chan struct{}) time.Duration {
	m.mu.Lock()
	cfg, now := m.cfg, time.Now()
	patience := cfg.next()
	answers := make([]*reading, len(cfg.probes))
	asked := make([]bool, len(cfg.probes))
	for i, p := range cfg.probes {
		select {
		case r := <-p.answer:
			p.take(r, now)
		default:
		}
		asked[i] = p.ask(now, cfg.every) || p.asked && p.err == nil
	}
	m.mu.Unlock()

	late := time.NewTimer(patience)
	defer late.Stop()
	over := false
	for i, p := range cfg.probes {
		if !asked[i] {
			continue
		}
		if over { // an answer may still be there, since select chooses at random
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
	m.mu.Lock()
	defer m.mu.Unlock()
	return cfg.next()
}

// settle evaluates the answers of the signals and calls the hooks. An answer is nil if the
// signal was not due or has not returned.
func (m *Monitor) settle(cfg *config, answers []*reading) {
	m.mu.Lock()
	now := time.Now()
	var tell []func(Hooks)
	worst, name, marks := 0.0, "", cfg.marks.withDefaults()
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
		if v := p.worth(now, cfg.memory(), marks.Elevated); v > worst {
			worst, name = v, p.name
		}
	}
	m.samples++
	was := state{}
	if s := m.state.Load(); s != nil {
		was = *s
	}
	level := marks.next(was.level, worst)
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

// guard calls a hook and counts its panic.
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
