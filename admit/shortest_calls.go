package admit

import (
	"sync/atomic"
	"time"
)

// shortestCalls remembers the shortest recent success of each class. A call with less
// time until its deadline cannot end in time.
type shortestCalls struct {
	current [MaxClasses]atomic.Int64 // in nanoseconds; 0 if there was none
	before  [MaxClasses]int64        // of the period before; the gate's lock guards before and turned
	turned  time.Duration            // when the current period began
}

// shortestMemory is the shortest time for which a success is remembered. Periods end
// only in calls of the method of.
const shortestMemory = 5 * time.Second

// see notes the latency of a success. It takes no lock.
func (l *shortestCalls) see(c Class, took time.Duration) {
	if c >= MaxClasses {
		return
	}
	took = max(took, 1)
	for {
		least := l.current[c].Load()
		if least != 0 && least <= int64(took) || l.current[c].CompareAndSwap(least, int64(took)) {
			return
		}
	}
}

// of returns the shortest recent success of a class, or 0 if there was none. The gate's
// lock must be held.
func (l *shortestCalls) of(c Class, now time.Duration) time.Duration {
	if now-l.turned >= shortestMemory {
		for i := range l.current {
			l.before[i] = l.current[i].Swap(0)
		}
		l.turned = now
	}
	least, before := l.current[c].Load(), l.before[c]
	if least == 0 || before != 0 && before < least {
		least = before
	}
	return time.Duration(least)
}
