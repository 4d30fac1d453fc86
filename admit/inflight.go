package admit

import "sync/atomic"

// inFlight counts the permits in use against the limit. The count, the limit and the
// lock bit share one atomic word, so that a call can check all three and take a permit
// in one step. It is safe for concurrent use.
type inFlight struct {
	state atomic.Uint64 // a word
	peak  atomic.Int64  // the most permits in use since the last window
}

// A word is the state of an inFlight. It holds the permits in use (32 bits), the limit (31
// bits) and the lock bit (1 bit). While the lock bit is set, calls must take the gate's lock.
type word uint64

const (
	limitShift  = 32
	inFlightMax = word(1)<<limitShift - 1
	lockBit     = word(1) << 63

	// manyInFlight exceeds every limit. Only a dry run gets there. It is half of the
	// largest 32-bit int, which leaves room for the cost of one more call.
	manyInFlight = 1 << 30
)

func (s word) inFlight() int  { return int(s & inFlightMax) }
func (s word) limit() int     { return int(s &^ lockBit >> limitShift) }
func (s word) free() bool     { return s.inFlight() < s.limit() }
func (s word) mustLock() bool { return s&lockBit != 0 }

// plus adds d permits in use. Adding the two's complement of a number subtracts it. The
// sum cannot overflow into the limit, because each call is a goroutine, and takes one
// permit beyond manyInFlight.
func (s word) plus(d int) word { return s + word(d) }

func (f *inFlight) load() word { return word(f.state.Load()) }

func (f *inFlight) swap(from, to word) bool {
	return f.state.CompareAndSwap(uint64(from), uint64(to))
}

// take takes n permits if the state is still from.
func (f *inFlight) take(from word, n int) bool {
	if !f.swap(from, from.plus(n)) {
		return false
	}
	f.sawInUse(int64(from.inFlight() + n))
	return true
}

// takeFree takes one permit if one is free, and calls need not take the lock. It returns the number
// of permits in use afterwards.
func (f *inFlight) takeFree() (n int, ok bool) {
	for {
		s := f.load()
		if s.mustLock() || !s.free() {
			return 0, false
		}
		if f.take(s, 1) {
			return s.inFlight() + 1, true
		}
	}
}

func (f *inFlight) sawInUse(n int64) {
	for {
		p := f.peak.Load()
		if n <= p || f.peak.CompareAndSwap(p, n) {
			return
		}
	}
}

// giveBack returns n permits unless calls must take the lock.
func (f *inFlight) giveBack(n int) bool {
	for {
		s := f.load()
		if s.mustLock() {
			return false
		}
		if f.swap(s, s.plus(-n)) {
			return true
		}
	}
}

// add changes the permits in use, whatever the limit and the lock bit.
func (f *inFlight) add(n int) {
	for taken := false; !taken; {
		taken = f.take(f.load(), n)
	}
}

// chargeBeyond returns the cost charged to a call that is admitted regardless of the limit.
func (f *inFlight) chargeBeyond(cost int) int {
	if f.load()&inFlightMax > manyInFlight { // as a word, since it may exceed a 32-bit int
		return 1
	}
	return cost
}

func (f *inFlight) setLimit(n int) {
	for {
		s := f.load()
		if f.swap(s, s&(lockBit|inFlightMax)|word(n)<<limitShift) {
			return
		}
	}
}

// setMustLock sets or clears the lock bit.
func (f *inFlight) setMustLock(on bool) {
	for {
		s := f.load()
		to := s &^ lockBit
		if on {
			to |= lockBit
		}
		if s == to || f.swap(s, to) {
			return
		}
	}
}

// resetPeak returns the peak and begins anew with the permits in use now.
func (f *inFlight) resetPeak() int { return int(f.peak.Swap(int64(f.load().inFlight()))) }
