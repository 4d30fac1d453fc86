package admit

// A word is a gate's state in one atomic: the calls in flight (32 bits), the
// limit (31 bits), and whether calls must take the lock (1 bit).
type word uint64

const (
	limitShift = 32
	inFlight   = word(1)<<limitShift - 1
	slowBit    = word(1) << 63

	// manyInFlight is more than any limit. Only dry runs get there. Half of what an int
	// of 32 bits holds, it leaves room for the last call.
	manyInFlight = 1 << 30
)

func newWord(limit int) word { return word(limit) << limitShift }

func (s word) inFlight() int { return int(s & inFlight) }
func (s word) limit() int    { return int(s &^ slowBit >> limitShift) }
func (s word) free() bool    { return s.inFlight() < s.limit() }
func (s word) slow() bool    { return s&slowBit != 0 }

// plus changes the calls in flight; adding the two's complement of a number
// subtracts it. It never overflows into the limit: each call is a goroutine, and
// beyond manyInFlight takes one permit whatever it costs.
func (s word) plus(d int) word { return s + word(d) }

func (s word) withLimit(n int) word { return s&(slowBit|inFlight) | word(n)<<limitShift }

func (s word) withSlow(on bool) word {
	if on {
		return s | slowBit
	}
	return s &^ slowBit
}

func (g *Gate) load() word { return word(g.state.Load()) }

func (g *Gate) swap(from, to word) bool {
	return g.state.CompareAndSwap(uint64(from), uint64(to))
}

// addLocked changes the number of permits in use, whatever the limit.
func (g *Gate) addLocked(d int) {
	for {
		s := g.load()
		if g.swap(s, s.plus(d)) {
			g.sawInFlight(s.inFlight() + d)
			return
		}
	}
}
