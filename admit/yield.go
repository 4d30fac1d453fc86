package admit

import (
	"runtime"
	"sync/atomic"
	"time"
)

// A yielder lets calls that are on their way reach the gate. It is safe for concurrent use.
//
// Where handlers only compute, running handlers occupy all processors, and other calls
// wait in the Go scheduler before they reach the gate. In flight would never exceed the
// number of processors, and nothing would seem to wait. So a call that brings in flight to
// that number yields once, with its clock running. The others reach the gate meanwhile, and
// wait where they are counted.
type yielder struct {
	processors int // GOMAXPROCS
	on         atomic.Bool
}

// worthYielding is the shortest mean latency with which calls yield. A yield takes some
// hundred nanoseconds.
const worthYielding = 100 * time.Microsecond

func (y *yielder) init() {
	y.processors = runtime.GOMAXPROCS(0)
	y.on.Store(true)
}

// maybe yields if as many calls are in flight as there are processors.
func (y *yielder) maybe(inFlight int) {
	if inFlight >= y.processors && y.on.Load() {
		runtime.Gosched()
	}
}

// learn stops yields where the mean latency is too short for them.
func (y *yielder) learn(mean time.Duration) { y.on.Store(mean >= worthYielding) }
