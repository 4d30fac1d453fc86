package latency

import (
	"sync"
	"time"

	"github.com/weir-go/weir/interceptors/internal/places"
)

const minimumWindow = 10 * time.Second

// A Minimum is the shortest time that successful calls of a method took of late: a
// minimum over the present window of time and the one before.
type Minimum struct {
	mu        sync.Mutex // guards what follows
	began     time.Time
	now, last time.Duration // 0 for none
}

func NewMinimum(places.Place) *Minimum { return &Minimum{} }

func (f *Minimum) Saw(took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turnLocked()
	if took = max(took, 1); f.now == 0 || took < f.now {
		f.now = took
	}
}

// Shortest returns 0 if nothing is known.
func (f *Minimum) Shortest() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turnLocked()
	if f.now == 0 || f.last != 0 && f.last < f.now {
		return f.last
	}
	return f.now
}

func (f *Minimum) turnLocked() {
	now := time.Now()
	switch age := now.Sub(f.began); {
	case age >= 2*minimumWindow:
		f.began, f.last, f.now = now, 0, 0
	case age >= minimumWindow:
		f.began, f.last, f.now = f.began.Add(minimumWindow), f.now, 0
	}
}
