package overload

import (
	"crypto/sha256"
	"runtime"
	"time"
)

// Rounds returns how many rounds of [Burn] take d on a processor that nobody else
// uses. It takes some ten milliseconds to find out.
func Rounds(d time.Duration) int {
	const rounds, tries = 1000, 200
	quickest := time.Duration(1<<63 - 1) // whatever interrupts makes it longer, never shorter
	for range tries {
		begin := time.Now()
		Burn(rounds)
		quickest = min(quickest, time.Since(begin))
	}
	return int(float64(d) / float64(quickest) * rounds)
}

// Burn computes: it hashes so many times.
func Burn(rounds int) {
	var sum [sha256.Size]byte
	for range rounds {
		sum = sha256.Sum256(sum[:])
	}
	runtime.KeepAlive(sum)
}
