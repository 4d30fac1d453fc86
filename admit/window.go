package admit

import (
	"math"
	"time"

	"github.com/weir-go/weir/limit"
)

// A window is what has been collected for the algorithm since the last one, and
// what the last one taught. The gate's lock guards it.
type window struct {
	tally
	start   time.Duration
	limit   int
	pressed int
	bounded int
	waits   schedulerWaits
}

func (w *window) clear(now time.Duration) {
	w.tally, w.start, w.pressed, w.bounded = tally{}, now, 0, 0
}

// worthYielding is the latency from which on a yield, some hundred nanoseconds,
// is nothing.
const worthYielding = 100 * time.Microsecond

// closeLocked ends the window and returns it as the algorithm sees it.
func (g *Gate) closeLocked(now time.Duration, probes bool) limit.Window {
	w := &g.window
	length := now - w.start
	out := limit.Window{
		Duration:    length,
		Limit:       w.limit,
		MaxInFlight: int(g.peak.Swap(int64(g.load().inFlight()))),
		Arrived:     int(w.unpressed) + w.pressed,
		Pressed:     w.pressed,
		Bounded:     w.bounded,
		Succeeded:   int(w.ended[Success]),
		Overloaded:  int(w.ended[Overload]),
		Ignored:     int(w.ended[Ignored]),
		InFlight:    w.residence / length.Seconds(),
		Ran:         w.ran.latencies(),
		Low:         w.low.latencies(),
	}
	if probes {
		out.SchedulerDelay = w.waits.mean()
	}
	if n := w.weight; n > 0 {
		mean := w.sum / n
		out.MeanLatency = seconds(mean)
		out.MinLatency = w.fastest
		out.LatencyDeviation = seconds(math.Sqrt(max(0, w.squares/n-mean*mean)))
		g.pace = out.MeanLatency / time.Duration(w.limit)
		g.yields.Store(out.MeanLatency >= worthYielding)
	}
	g.refusals.learn(min(g.cfg.places(), max(2, w.limit))+1, g.pace, g.cfg.maxWait(), out.Arrived, out.Completed())
	w.clear(now)
	return out
}
