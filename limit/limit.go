// Package limit decides how many calls may run at once.
//
// It is pure arithmetic. An [Algorithm] gets the measurements of a gate, window by
// window, and returns the number of calls that may run from then on. It takes no
// lock, starts no goroutine and reads no clock, so a simulation in virtual time runs
// the same code as production. Package admit owns the windows, the waiting and the
// concurrency.
package limit

import (
	"errors"
	"time"

	"github.com/weir-go/weir/internal/check"
)

// Max is the largest limit that any algorithm accepts or returns. A process
// that runs more calls than this at once is not protected by a limit.
const Max = 1 << 20

// ErrConfig is wrapped by every error that a constructor of this package
// returns. Such an error names each wrong value and the values that are allowed.
var ErrConfig = errors.New("limit: invalid configuration")

// An Algorithm turns the measurements of a gate into the number of calls that may
// run.
//
// An Algorithm belongs to one gate, which serialises its calls. It need not be safe
// for concurrent use, and must not be given to two gates.
type Algorithm interface {
	// Limit returns the current limit, from 1 to Max. A gate calls it once,
	// before the first window.
	Limit() int
	// Update takes the window that just closed and returns the limit to use
	// from now on. The gate clamps a result outside 1..Max. It calls Update with its
	// lock held, so Update must not block.
	Update(w Window) int
}

// A Window holds the measurements of a gate between two moments. Unless a field says
// otherwise, it covers the calls that ended within the window. The zero Window carries
// no information and leaves every algorithm as it was.
type Window struct {
	// Duration is the window's length.
	Duration time.Duration
	// Limit is the limit that was in force.
	Limit int
	// InFlight is the mean number of calls in flight. By Little's law it is the sum of
	// the times spent running, divided by Duration.
	InFlight float64
	// MaxInFlight is the largest number of calls in flight at any moment.
	MaxInFlight int
	// Arrived counts the calls that asked for a permit, and Pressed the ones among them
	// that found none free. The share Pressed/Arrived says how hard demand pushes
	// against the limit.
	Arrived, Pressed int
	// Bounded counts the calls that had to wait although permits were free, because
	// of a bound on their own class or tenant.
	Bounded int

	// Succeeded, Overloaded and Ignored count the calls that ended, by outcome.
	Succeeded, Overloaded, Ignored int
	// MeanLatency, MinLatency and LatencyDeviation (the standard deviation of single
	// latencies) cover the calls that succeeded. They are zero if none did.
	MeanLatency, MinLatency, LatencyDeviation time.Duration
	// Ran sums up the calls that succeeded or were overloaded, and Low the ones among
	// them that began while at most Mark calls were in flight. See Prober.
	Ran, Low Latencies
	// SchedulerDelay is the mean time for which goroutines of the process waited
	// for a processor; zero if it is not known.
	SchedulerDelay time.Duration
}

// Latencies sums up the latencies of some calls.
type Latencies struct {
	// Calls is their number.
	Calls int
	// Mean and Deviation are the mean and the standard deviation of their latencies.
	Mean, Deviation time.Duration
	// StartInFlight is the mean number of calls in flight when one of them began,
	// itself included.
	StartInFlight float64
}

// A Prober is an Algorithm that compares calls that began among few with calls
// that began among many.
type Prober interface {
	Algorithm
	// Mark is the number of calls in flight up to which a call that begins counts
	// for Window.Low.
	Mark() int
	// Probing reports whether the limit is lowered for a moment, to measure calls that begin
	// among few. A queue that grows meanwhile says nothing about the server.
	Probing() bool
}

// A Floored is an Algorithm that tells its smallest limit, for metrics and logs. Every algorithm of
// this package does, except Fixed.
type Floored interface {
	Algorithm
	// Min is the smallest limit that Update returns.
	Min() int
}

// Completed is the number of calls that ended in the window.
func (w Window) Completed() int { return w.Succeeded + w.Overloaded + w.Ignored }

// pressed reports whether demand pushed against the limit. An algorithm may raise the
// limit only then. Otherwise it would drift up while nothing tests it.
func (w Window) pressed() bool { return w.Pressed > 0 || w.MaxInFlight >= w.Limit }

// bounds checks the three limits that every moving algorithm has.
func bounds(bad *check.Errors, initial, lo, hi int) {
	bad.That(lo >= 1 && lo <= Max, "Min: got %d, want 1 to %d", lo, Max)
	bad.That(hi >= lo && hi <= Max, "Max: got %d, want Min (%d) to %d", hi, lo, Max)
	bad.That(initial >= lo && initial <= hi, "Initial: got %d, want Min (%d) to Max (%d)", initial, lo, hi)
}

// A gate closes a window when WindowCalls calls have ended and WindowLength has passed. One quick
// health check is no evidence.
const (
	WindowCalls  = 10
	WindowLength = 10 * time.Millisecond
)

// WindowPatience is the time after which a gate closes a window for a [Prober] if
// calls found no permit free, however few ended.
const WindowPatience = 100 * time.Millisecond
