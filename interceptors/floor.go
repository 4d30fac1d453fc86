package interceptors

import (
	"sync"
	"time"
)

const floorWindow = 10 * time.Second

// A floor is the shortest time that successful calls of a method took of late: a
// minimum over the present window of time and the one before.
type floor struct {
	mu        sync.Mutex // guards what follows
	began     time.Time
	now, last time.Duration // 0 for none
}

func newFloor(place) *floor { return &floor{} }

func (f *floor) saw(took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turnLocked()
	if took = max(took, 1); f.now == 0 || took < f.now {
		f.now = took
	}
}

// shortest returns 0 if nothing is known.
func (f *floor) shortest() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turnLocked()
	if f.now == 0 || f.last != 0 && f.last < f.now {
		return f.last
	}
	return f.now
}

func (f *floor) turnLocked() {
	now := time.Now()
	switch age := now.Sub(f.began); {
	case age >= 2*floorWindow:
		f.began, f.last, f.now = now, 0, 0
	case age >= floorWindow:
		f.began, f.last, f.now = f.began.Add(floorWindow), f.now, 0
	}
}
