package latency

import (
	"sync"
	"time"

	"github.com/weir-go/weir/interceptors/internal/places"
)

const (
	minimumWindow = 10 * time.Second
	// doubtAfter is how long a minimum is believed that no call has confirmed or tried.
	doubtAfter = 100 * time.Millisecond
)

// A Minimum is the shortest time of a recent successful call of a method. It is a minimum
// over the current window of time and the one before.
type Minimum struct {
	mu        sync.Mutex // guards the fields below
	began     time.Time
	now, last time.Duration // 0 for none
	checked   time.Time     // when a call last succeeded or was allowed in spite of the minimum
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
	f.checked = time.Now()
}

// Allows reports whether a call with that much time left should be sent. It should not if the
// time is not more than the minimum. But the minimum may be of a slow moment, such as the first
// call of a connection, and a call that is not sent never corrects it. So a call is allowed
// anyway if for doubtAfter none has succeeded and none was allowed so.
func (f *Minimum) Allows(left time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turnLocked()
	if left > f.shortestLocked() {
		return true
	}
	now := time.Now()
	if now.Sub(f.checked) < doubtAfter {
		return false
	}
	f.checked = now
	return true
}

// shortestLocked returns the minimum, 0 if nothing is known.
func (f *Minimum) shortestLocked() time.Duration {
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
