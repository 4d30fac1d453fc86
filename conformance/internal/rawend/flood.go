package rawend

import (
	"time"
)

// A bucket implements the flood rule. Each control message spends one token. Elements earn tokens that never
// expire. Time earns tokens up to a bound.
type bucket struct {
	elements int64
	time     float64
	most     float64
	at       time.Time
}

func newBucket(most float64) bucket { return bucket{time: most, most: most, at: time.Now()} }

func (b *bucket) spend() bool {
	now := time.Now()
	b.time = min(b.most, b.time+rate*now.Sub(b.at).Seconds())
	b.at = now
	switch {
	case b.time >= 1:
		b.time--
	case b.elements >= 1:
		b.elements--
	default:
		return false
	}
	return true
}
