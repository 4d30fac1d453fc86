package streamcredit

import "time"

// The flood rule's bucket.
const (
	floodBurst = 1000
	floodRate  = 100 // a second
	// moment is the time in which the bucket earns a token.
	moment = time.Second / floodRate
)

// bucket is the flood rule. A control message costs a token. Each element of either direction
// adds a token that never expires. Time adds floodRate tokens a second, up to the size of the
// bucket. Only one goroutine at a time may use it. It reads the clock only when it is empty.
type bucket struct {
	most     int64 // the size, in tokens
	tokens   int64
	elements uint64 // elements that are counted in tokens already
	filled   time.Time
}

func newBucket(most int64) bucket { return bucket{most: most, tokens: most, filled: time.Now()} }

// spend takes a token and reports whether there was one. seen returns the number of elements that
// have passed, in both directions.
func (b *bucket) spend(seen func() uint64) bool {
	if !b.fill(seen) {
		return false
	}
	b.tokens--
	return true
}

// fill reports whether there is a token.
func (b *bucket) fill(seen func() uint64) bool {
	if b.tokens > 0 {
		return true
	}
	elements := seen()
	b.tokens = int64(elements - b.elements)
	b.elements = elements
	if earned := int64(time.Since(b.filled).Seconds() * floodRate); earned > 0 {
		b.tokens += min(earned, b.most)
		b.filled = b.filled.Add(time.Duration(earned) * time.Second / floodRate)
	}
	return b.tokens > 0
}
