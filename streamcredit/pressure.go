package streamcredit

import "time"

// A Pressure tells a budget how close the process is to its end. The Monitor of package
// pressure is one.
type Pressure interface {
	// Pressure returns the level, from 0 (nothing is scarce) to 3, and the name of what
	// causes it. It is called with locks held: it must cost no more than an atomic load.
	Pressure() (level uint8, signal string)
}

// relief is how often receivers that want more are asked while there is pressure, since
// nothing else may happen when it ends.
const relief = 100 * time.Millisecond

// boundsLocked returns the bytes and messages that may be given away now, 0 where there is
// no bound. Each level of pressure halves both, and the highest leaves one element for each
// stream.
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

// level asks for the pressure. One that panics is none.
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

// relieveLocked sees to it that receivers which want more are asked again.
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
