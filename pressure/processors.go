package pressure

import (
	"fmt"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"time"
)

// Processors returns the signal "processors". It is the larger of two numbers, each over the
// last second:
//
//   - the median time that runnable goroutines waited for a processor, divided by 100 ms;
//   - on Linux the share of time in which the cgroup had no processor, because its CPU quota
//     was used up.
//
// It is at most 0.9. With the default marks it refuses only classes below Default, because
// nothing kills a process that waits, and slow calls with long deadlines still succeed. The
// limit of the gate answers a real overload of the processors.
func Processors() Signal {
	return &processors{sys: &thisSystem, latencies: readLatencies}
}

const (
	// worstLatency is a wait for a processor at which no call is served in time.
	worstLatency   = 100 * time.Millisecond
	mostProcessors = 0.9
	// fewest is the least number of waits in a second that count. The median of fewer shows
	// noise.
	fewest = 50
)

type processors struct {
	sys       *system
	latencies func() (counts []uint64, bounds []float64, err error)

	mu        sync.Mutex // guards the fields below
	past      window[[]uint64]
	throttled window[float64]
	group     *cgroup   // nil if it was not found
	found     time.Time // when it was looked for
}

func (p *processors) Name() string { return NameProcessors }

func (p *processors) Read() (float64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts, bounds, err := p.latencies()
	if err != nil {
		return 0, err
	}
	then, _ := p.past.add(time.Now(), counts)
	median, ok := medianOf(counts, then, bounds)
	if !ok {
		p.past.clear()
	}
	return min(max(median/worstLatency.Seconds(), p.throttling()), mostProcessors), nil
}

// medianOf returns the median of the histogram entries between then and now. It is not ok if
// a counter went backwards.
func medianOf(now, then []uint64, bounds []float64) (median float64, ok bool) {
	if len(now) != len(then) || len(bounds) != len(now)+1 {
		return 0, false
	}
	var total uint64
	for i := range now {
		if now[i] < then[i] {
			return 0, false
		}
		total += now[i] - then[i]
	}
	if total < fewest {
		return 0, true
	}
	var below uint64
	for i := range now {
		if below += now[i] - then[i]; below > total/2 {
			return max(bounds[i], 0), true // the lower bound, so never too high
		}
	}
	return 0, true
}

// throttling returns the share of time in which the quota was used up, 0 without a quota.
func (p *processors) throttling() float64 {
	if now := time.Now(); p.found.IsZero() || now.Sub(p.found) > lookAgain {
		p.found, p.group = now, nil
		if g, err := findCgroup(p.sys.files, "cpu"); err == nil {
			p.group = &g
		}
	}
	if p.group == nil {
		return 0
	}
	now, err := p.group.throttled(p.sys.files)
	if err != nil {
		p.throttled.clear()
		return 0
	}
	then, took := p.throttled.add(time.Now(), now)
	if now < then {
		p.throttled.clear()
		return 0
	}
	return (now - then) / took.Seconds() / float64(runtime.GOMAXPROCS(0))
}

func readLatencies() (counts []uint64, bounds []float64, err error) {
	s := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindFloat64Histogram {
		return nil, nil, fmt.Errorf("%w: this Go runtime has no %s", ErrUnknown, s[0].Name)
	}
	h := s[0].Value.Float64Histogram()
	return slices.Clone(h.Counts), h.Buckets, nil
}
