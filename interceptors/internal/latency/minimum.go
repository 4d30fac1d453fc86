package latency

import (
	"sync"
	"time"

	"github.com/weir-go/weir/interceptors/internal/places"
)

const minimumWindow = 10 * time.Second

// A Minimum is the shortest time of a recent successful call of a method. It is a minimum
// over the current window of time and the one before.
type Minimum struct {
	mu        sync.Mutex // guards the fields below
	began     time.Time
	now, last time.Duration // 0 for none
}

// NewMinimum returns a Minimum that knows nothing.
func NewMinimum(places.Place) *Minimum { return &Minimum{} }

// Saw records the time of a successful call.
func (f *Minimum) Saw(took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turnLocked()
	if took = max(took, 1); f.now == 0 || took < f.now {
		f.now = took
	}
}

// Shortest returns the minimum, 0 if nothing is known.
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
