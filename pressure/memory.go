package pressure

import (
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"time"
)

// A MemoryConfig configures the memory signal. The zero value finds the limit by itself.
type MemoryConfig struct {
	// Limit is the memory limit of the process in bytes, if the process cannot find it. Zero
	// means that it is found as the package documentation describes.
	Limit int64
	// KeepGoLimit keeps Go's memory limit as it is. Otherwise a running monitor sets it to
	// 75 % of Limit, or of the limit of the cgroup or the data segment, follows their changes,
	// and resets it in Stop. It never changes a limit that the program or GOMEMLIMIT has set.
	KeepGoLimit bool
}

// Memory returns the signal "memory". It is the used share of the memory limit of the process.
// The package documentation defines usage and limit.
//
// While the memory rises fast, a monitor reads this signal more often than the others. Close to
// the limit it does so before another 1 % of the limit is taken, but at most every 10 ms. From
// Elevated on, the level follows the value that the memory will have 100 ms after the next read,
// at most 4 % more than it has. So a level begins in time for calls that are already admitted.
//
// Above 0.75 it runs the collector if more than 2 % of the limit may be garbage. Otherwise a
// level could last until the next collection. It does so at most once a second, and for at
// most a tenth of the time. Above 0.85 it does so twice a second, for at most a fifth of the
// time, whatever seems to be garbage. Memory that the program has let go of since the last
// collection looks alive, and a server that refuses calls allocates too little to collect by
// itself.
func Memory(c MemoryConfig) Signal { return &memory{cfg: c, sys: &thisSystem} }

const (
	// goShare is the part of a limit that Go's memory limit is set to.
	goShare = 0.75
	// collectAt is the value from which garbage is collected, and checkAt the value from which
	// anything may be garbage.
	collectAt, checkAt = 0.75, 0.85
	// betweenCollections is the least time between a collection and one that this signal runs.
	betweenCollections = 500 * time.Millisecond
	// briefly is how long a read waits for a collection at most.
	briefly = 50 * time.Millisecond
	// lookAgain is how often the cgroup is looked for again, since a process can be moved.
	lookAgain = 10 * time.Second
)

type memory struct {
	cfg MemoryConfig
	sys *system

	mu      sync.Mutex // guards the fields below
	group   cgroup
	found   time.Time // when group was found, zero for never
	runs    bool
	goLimit int64 // set by this signal, 0 for none

	pace       pace
	cycles     uint64
	cycled     time.Time          // when cycles changed
	collecting chan time.Duration // a collection of this signal that is under way, nil for none
	collected  time.Time          // when one ended
	collection time.Duration      // how long it took
}

func (m *memory) Name() string { return NameMemory }

func (m *memory) validate() error {
	if m.cfg.Limit < 0 {
		return fmt.Errorf("memory: Limit: got %d, want more than 0, or 0 for the one that is found", m.cfg.Limit)
	}
	return nil
}

// A usage is how much of a limit is in use.
type usage struct {
	used, limit int64
	kills       bool  // the kernel kills a process above the limit
	other       int64 // part of the limit that is not Go's
}

func (u usage) share() float64 { return max(float64(u.used), 0) / float64(u.limit) }

func (m *memory) Read() (float64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, at := m.sys.heap(), time.Now()
	u, err := m.measure(h)
	if err != nil {
		return 0, err
	}
	if m.worthCollecting(u, h) && m.collect() {
		at = time.Now()
		if u, err = m.measure(m.sys.heap()); err != nil {
			return 0, err
		}
	}
	m.setGoLimit(u)
	m.pace.add(at, u)
	return u.share(), nil
}

func (m *memory) forecast() (rise float64, within time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pace.forecast()
}

// measure returns the usage of the first limit that exists.
func (m *memory) measure(h heap) (usage, error) {
	if m.cfg.Limit > 0 {
		return usage{used: m.sys.resident(h) - h.free, limit: m.cfg.Limit, kills: true}, nil
	}
	u, err := m.ofGroup(h)
	if d, known := m.sys.ofDataLimit(h); known && (err != nil || d.limit < u.limit) {
		u, err = d, nil
	}
	if err == nil {
		return u, nil
	}
	if !errors.Is(err, ErrUnknown) && m.goLimit != 0 {
		return usage{}, err // the limit was there a moment ago
	}
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 && limit > 0 && limit != m.goLimit {
		return usage{used: h.mapped - h.free - h.garbage, limit: limit}, nil
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
	return usage{used: used - h.free, limit: limit, kills: true}, nil
}

// ofMachine measures the memory of the process against that and the available memory. The
// memory of other processes does not count, since this process cannot free it.
func (m *memory) ofMachine(h heap) (usage, error) {
	available, err := readStat(m.sys.files, "proc/meminfo", "MemAvailable")
	if err != nil {
		return usage{}, fmt.Errorf("%w: no memory limit: set MemoryConfig.Limit or GOMEMLIMIT", ErrUnknown)
	}
	resident := m.sys.resident(h)
	return usage{used: resident - h.free, limit: max(resident+available, 1)}, nil
}

// collect runs the collector, and reports whether it has ended. It waits for it briefly, and not
// beyond the next read of memory that rises fast. A collection of several GiB takes seconds, and
// the memory must be measured all that time.
func (m *memory) collect() (ended bool) {
	m.collecting = make(chan time.Duration, 1)
	go func(took chan<- time.Duration) {
		began := time.Now()
		m.sys.collect()
		took <- time.Since(began)
	}(m.collecting)
	wait := briefly
	if _, within := m.pace.forecast(); within > 0 {
		wait = min(wait, within)
	}
	late := time.NewTimer(wait)
	defer late.Stop()
	select {
	case took := <-m.collecting:
		m.ended(took)
		return true
	case <-late.C:
		return false
	}
}

// ended stores how long a collection took.
func (m *memory) ended(took time.Duration) {
	m.collecting, m.collected, m.collection = nil, time.Now(), took
}

// worthCollecting reports whether a collection may lower the value.
func (m *memory) worthCollecting(u usage, h heap) bool {
	select {
	case took := <-m.collecting: // blocks if it is nil
		m.ended(took)
	default:
	}
	if m.collecting != nil {
		return false
	}
	now := time.Now()
	if h.cycles != m.cycles || m.cycled.IsZero() {
		m.cycles, m.cycled = h.cycles, now
	}
	wait, rest := time.Second, 10*m.collection
	switch share := u.share(); {
	case !u.kills || share < collectAt:
		return false
	case share >= checkAt:
		wait, rest = betweenCollections, 4*m.collection
	case h.garbage <= u.limit/50:
		return false
	}
	return now.Sub(m.cycled) >= wait && now.Sub(m.collected) >= max(wait, rest)
}

// setGoLimit sets Go's memory limit, unless the program or GOMEMLIMIT has set one.
func (m *memory) setGoLimit(u usage) {
	if !m.runs || m.cfg.KeepGoLimit {
		return
	}
	if !u.kills {
		m.resetGoLimit() // the limit is gone
		return
	}
	now := debug.SetMemoryLimit(-1)
	if now != math.MaxInt64 && now != m.goLimit {
		m.goLimit = 0
		return
	}
	want := int64(float64(u.limit) * goShare)
	if u.other > 0 {
		want = max(want-u.other, u.limit/4)
	}
	if near := u.limit / 64; u.other > 0 && now < want+near && want < now+near {
		return // threads come and go
	}
	if want != now {
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

// resetGoLimit undoes setGoLimit, unless the program has set another limit since.
func (m *memory) resetGoLimit() {
	if m.goLimit != 0 && debug.SetMemoryLimit(-1) == m.goLimit {
		debug.SetMemoryLimit(math.MaxInt64)
	}
	m.goLimit = 0
}
