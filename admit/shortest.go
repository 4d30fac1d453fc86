package admit

import (
	"sync/atomic"
	"time"
)

// leastMemory is for how long the shortest call of a class is remembered, at the
// least. Time passes only when somebody asks.
const leastMemory = 5 * time.Second

// leastTimes remembers the shortest time that a successful call of each class
// took of late. A call whose deadline is nearer than that cannot end in time.
type leastTimes struct {
	current [MaxClasses]atomic.Int64 // 0: none yet
	before  [MaxClasses]int64        // the gate's lock guards it, and turned
	turned  time.Duration            // when current became before
}

// see notes how long a call took. It takes no lock.
func (l *leastTimes) see(c Class, took time.Duration) {
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

// of returns the shortest time of a class, or 0 if none is known. The gate's lock
// must be held.
func (l *leastTimes) of(c Class, now time.Duration) time.Duration {
	if now-l.turned >= leastMemory {
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
