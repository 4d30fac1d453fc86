package streamcredit

import "time"

// A Pressure tells a budget how close the process is to its end. The Monitor of package
// pressure is one.
type Pressure interface {
	// Pressure returns the level, from 0 (calm) to 3, and the name of the signal that causes
	// it. It is called with locks held, so it must cost no more than a few atomic loads.
	Pressure() (level uint8, signal string)
}

// relief is how often the budget offers credit to starved receivers under pressure. Without
// it, nothing would wake them when the pressure ends.
const relief = 100 * time.Millisecond

// boundsLocked returns the bounds that hold now, 0 for no bound. Each level of pressure halves
// them, and the highest leaves one element for each stream.
func (b *Budget) boundsLocked() (bytes, messages int64, pressed bool) {
	level := b.level()
	if level == 0 {
		return b.config.Bytes, b.config.Messages, false
	}
	shrink := func(n int64) int64 {
		switch {
		case n == 0:
			return 0
		case level > 2:
			return 1
		}
		return max(n>>level, 1)
	}
	return shrink(b.config.Bytes), shrink(b.config.Messages), true
}

// level returns the level of pressure. A panic counts as 0.
func (b *Budget) level() (level uint8) {
	if b.config.Pressure == nil {
		return 0
	}
	defer func() {
		if recover() != nil {
			level = 0
		}
	}()
	level, _ = b.config.Pressure.Pressure()
	return level
}

// relieveLocked schedules an offer to the receivers that want more.
func (b *Budget) relieveLocked() {
	if !b.relieving && b.wanting > 0 {
		b.relieving = true
		time.AfterFunc(relief, func() {
			b.mu.Lock()
			b.relieving = false
			b.mu.Unlock()
			b.offer()
		})
	}
}
