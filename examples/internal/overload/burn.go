package overload

import (
	"crypto/sha256"
	"runtime"
	"time"
)

// Rounds returns the number of rounds of [Burn] that take d on an idle processor. It takes
// some ten milliseconds.
func Rounds(d time.Duration) int {
	const rounds, tries = 1000, 200
	quickest := time.Duration(1<<63 - 1) // interrupts make it longer, never shorter
	for range tries {
		begin := time.Now()
		Burn(rounds)
		quickest = min(quickest, time.Since(begin))
	}
	return int(float64(d) / float64(quickest) * rounds)
}

// Burn hashes rounds times.
func Burn(rounds int) {
	var sum [sha256.Size]byte
	for range rounds {
		sum = sha256.Sum256(sum[:])
	}
	runtime.KeepAlive(sum)
}
