package admit

import (
	"runtime"

	"github.com/weir-go/weir/limit"
)

// A crowd tells whether the goroutines of the process wait for processors for a good part of
// the latency of calls. The gate's lock guards it.
type crowd struct {
	waits float64 // mean wait for a processor, as a part of the latency
	is    bool
	bare  bool // a queue that stands needs no waiters
}

const (
	crowdMemory = 8    // windows
	crowdMuch   = 0.1  // the part from which it is a crowd
	crowdLittle = 0.03 // the part below which it is none any more
)

// see notes a window. It reports whether a queue that stands needs no waiters. It needs some to
// begin with if there are no more permits than processors (later a probe may make them few), and
// if most calls find a permit, because it hardly stands then.
func (c *crowd) see(w limit.Window) (bare bool) {
	if w.MeanLatency > 0 {
		c.waits += (w.SchedulerDelay.Seconds()/w.MeanLatency.Seconds() - c.waits) / crowdMemory
	}
	c.is = c.waits > crowdMuch || c.is && c.waits > crowdLittle
	c.bare = c.is && 3*w.Pressed > w.Arrived && (c.bare || w.Limit > runtime.GOMAXPROCS(0))
	return c.bare
}
