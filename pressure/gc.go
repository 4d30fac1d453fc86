package pressure

import (
	"fmt"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"
)

// GC returns the signal "gc". It is the share of the processor time of the last second that the
// collector took, divided by 0.5, the share at which the Go runtime stops the collector. So
// 0.85 means 42 % of the processors. Near 1 each collection frees little, and the next one
// begins at once.
//
// Collection by idle processors does not count.
func GC() Signal { return &collector{read: readCollector} }

// mostGC is the share at which the Go runtime stops the collector (runtime/mgclimit.go).
const mostGC = 0.5

type collector struct {
	read func() (gc, total float64, err error)

	mu   sync.Mutex // guards past
	past window[collectorTimes]
}

type collectorTimes struct{ gc, total float64 }

func (c *collector) Name() string { return NameGC }

func (c *collector) Read() (float64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	gc, total, err := c.read()
	if err != nil {
		return 0, err
	}
	now := collectorTimes{gc, total}
	then, took := c.past.add(time.Now(), now)
	if now.gc < then.gc || now.total < then.total {
		c.past.clear() // a counter went backwards
		return 0, nil
	}
	// The runtime counts at the end of each collection. The time of a long collection may
	// exceed the window.
	possible := max(took.Seconds()*float64(runtime.GOMAXPROCS(0)), now.total-then.total)
	return (now.gc - then.gc) / possible / mostGC, nil
}

func readCollector() (gc, total float64, err error) {
	s := []metrics.Sample{
		{Name: "/cpu/classes/gc/total:cpu-seconds"},
		{Name: "/cpu/classes/gc/mark/idle:cpu-seconds"},
		{Name: "/cpu/classes/total:cpu-seconds"},
	}
	metrics.Read(s)
	for _, m := range s {
		if m.Value.Kind() != metrics.KindFloat64 {
			return 0, 0, fmt.Errorf("%w: this Go runtime has no %s", ErrUnknown, m.Name)
		}
	}
	return s[0].Value.Float64() - s[1].Value.Float64(), s[2].Value.Float64(), nil
}

// A window holds readings of the last second.
type window[T any] struct{ past []moment[T] }

type moment[T any] struct {
	at    time.Time
	value T
}

const windowLength = time.Second

// add adds a reading. It returns the latest reading that is at least a second old, and its
// age. If there is none, it returns the first reading and one second.
func (w *window[T]) add(now time.Time, value T) (then T, took time.Duration) {
	w.past = append(w.past, moment[T]{now, value})
	for len(w.past) > 1 && now.Sub(w.past[1].at) >= windowLength {
		w.past = w.past[1:]
	}
	return w.past[0].value, max(now.Sub(w.past[0].at), windowLength)
}

func (w *window[T]) clear() { w.past = nil }
