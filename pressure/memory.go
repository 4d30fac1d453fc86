package pressure

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// A MemoryConfig says what the memory signal measures. The zero value finds out by itself.
type MemoryConfig struct {
	// Limit is how many bytes of memory the process may have, for a limit that it cannot
	// see. Zero finds the limit: see the package's description.
	Limit int64
	// KeepGoLimit leaves Go's memory limit as it is. Without it a monitor that runs sets
	// that to 75 % of Limit or of the cgroup's limit, follows changes of the latter, and
	// takes it back in Stop. It never touches a limit that somebody else has set.
	KeepGoLimit bool
}

// Memory returns the signal "memory": the share of the process's memory limit that is in
// use. See the package's description for what counts.
//
// Above 0.75, and if much of the heap may be garbage, it has the collector run, so that
// a level ends when the memory is free. It does so at most once a second, and for at most
// a tenth of the time.
func Memory(c MemoryConfig) Signal { return &memory{cfg: c, sys: &thisSystem} }

const (
	// goShare is the part of a limit that is left to Go's heap.
	goShare = 0.75
	// collectAt is from where on garbage is worth a collection.
	collectAt = 0.75
	// lookAgain is after how long the cgroup is looked for anew: a process can be moved.
	lookAgain = 10 * time.Second
)

type memory struct {
	cfg MemoryConfig
	sys *system

	mu      sync.Mutex // guards what follows
	group   cgroup
	found   time.Time // when group was; zero for never
	runs    bool
	goLimit int64 // that this signal has set; 0 for none

	cycles     uint64
	cycled     time.Time // when cycles changed
	collected  time.Time // when this signal had the collector run
	collection time.Duration
}

func (m *memory) Name() string { return NameMemory }

func (m *memory) validate() error {
	if m.cfg.Limit < 0 {
		return fmt.Errorf("memory: Limit: got %d, want 0 (found by itself) or more", m.cfg.Limit)
	}
	return nil
}

// A usage is how much of a limit is in use.
type usage struct {
	used, limit int64
	kills       bool // who exceeds the limit is killed
}

func (u usage) share() float64 { return max(float64(u.used), 0) / float64(u.limit) }

func (m *memory) Read() (float64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.sys.heap()
	u, err := m.measure(h)
	if err != nil {
		return 0, err
	}
	if m.worthCollecting(u, h) {
		began := time.Now()
		runtime.GC()
		m.collected = time.Now()
		m.collection = m.collected.Sub(began)
		if u, err = m.measure(m.sys.heap()); err != nil {
			return 0, err
		}
	}
	m.setGoLimit(u)
	return u.share(), nil
}

// measure looks for the first limit that there is.
func (m *memory) measure(h heap) (usage, error) {
	if m.cfg.Limit > 0 {
		return usage{m.sys.resident(h) - h.free, m.cfg.Limit, true}, nil
	}
	u, err := m.ofGroup(h)
	if err == nil {
		return u, nil
	}
	if !errors.Is(err, ErrUnknown) && m.goLimit != 0 {
		return usage{}, err // there was a limit a moment ago
	}
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 && limit > 0 && limit != m.goLimit {
		return usage{h.mapped - h.free - h.garbage, limit, false}, nil
	}
	return m.ofMachine(h)
}

// ofGroup measures the cgroup.
func (m *memory) ofGroup(h heap) (usage, error) {
	if m.found.IsZero() || time.Since(m.found) > lookAgain {
		g, err := findCgroup(m.sys.files, "memory")
		if err != nil {
			m.found = time.Time{}
			return usage{}, err
		}
		m.group, m.found = g, time.Now()
	}
	used, err := m.group.memoryUsage(m.sys.files)
	if err != nil {
		m.found = time.Time{}
		return usage{}, err
	}
	limit := m.group.memoryLimit(m.sys.files)
	if limit == 0 {
		return usage{}, fmt.Errorf("%w: no cgroup has a memory limit", ErrUnknown)
	}
	return usage{used - h.free, limit, true}, nil
}

// ofMachine measures what the process has against what it could have: what others have of
// the machine's memory is not the process's fault.
func (m *memory) ofMachine(h heap) (usage, error) {
	available, err := readStat(m.sys.files, "proc/meminfo", "MemAvailable")
	if err != nil {
		return usage{}, fmt.Errorf("%w: no memory limit: set MemoryConfig.Limit or GOMEMLIMIT", ErrUnknown)
	}
	resident := m.sys.resident(h)
	return usage{resident - h.free, max(resident+available, 1), false}, nil
}

// worthCollecting reports whether a collection may find that there is more room.
func (m *memory) worthCollecting(u usage, h heap) bool {
	now := time.Now()
	if h.cycles != m.cycles || m.cycled.IsZero() {
		m.cycles, m.cycled = h.cycles, now
	}
	return u.kills && u.share() >= collectAt && h.garbage > u.limit/50 &&
		now.Sub(m.cycled) >= time.Second && now.Sub(m.collected) >= max(time.Second, 10*m.collection)
}

// setGoLimit has the collector keep the heap below the limit, if nobody else has.
func (m *memory) setGoLimit(u usage) {
	if !m.runs || m.cfg.KeepGoLimit {
		return
	}
	if !u.kills {
		m.resetGoLimit() // the cgroup's limit is gone
		return
	}
	now := debug.SetMemoryLimit(-1)
	if now != math.MaxInt64 && now != m.goLimit {
		m.goLimit = 0
		return
	}
	if want := int64(float64(u.limit) * goShare); want != now {
		debug.SetMemoryLimit(want)
		m.goLimit = want
	}
}

func (m *memory) start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runs = true
}

func (m *memory) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runs = false
	m.resetGoLimit()
}

// resetGoLimit takes back what setGoLimit has set, unless somebody else has set another.
func (m *memory) resetGoLimit() {
	if m.goLimit != 0 && debug.SetMemoryLimit(-1) == m.goLimit {
		debug.SetMemoryLimit(math.MaxInt64)
	}
	m.goLimit = 0
}
