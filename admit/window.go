package admit

import (
	"math"
	"time"

	"github.com/weir-go/weir/limit"
)

// A window sums up the calls since the algorithm was last asked. The gate's lock guards
// it.
type window struct {
	tally
	start   time.Duration
	pressed int // calls that found no permit free
	bounded int // calls that found permits free, which their class or tenant may not take
	waits   schedulerWaits
}

// begin begins the first window.
func (w *window) begin() { w.waits.mean() }

// clear begins a new window.
func (w *window) clear(now time.Duration) {
	w.tally, w.start, w.pressed, w.bounded = tally{}, now, 0, 0
}

// press counts a call that cannot run at once. It is pressed if it found no permit free.
func (w *window) press(pressed bool) {
	if pressed {
		w.pressed++
	} else {
		w.bounded++
	}
}

// ready reports whether the algorithm is to be asked. A prober is asked after
// [limit.WindowPatience] even if few calls ended, as long as calls find no permit.
func (w *window) ready(now time.Duration, probes bool) bool {
	length := now - w.start
	if length >= limit.WindowLength && w.calls() >= limit.WindowCalls {
		return true
	}
	return probes && w.pressed > 0 && length >= limit.WindowPatience
}

// close returns the window as the algorithm sees it and begins a new one. Peak is the
// largest number of permits in use.
func (w *window) close(now time.Duration, limitNow, peak int, probes bool) limit.Window {
	length := now - w.start
	out := limit.Window{
		Duration:    length,
		Limit:       limitNow,
		MaxInFlight: peak,
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
	}
	w.clear(now)
	return out
}
