package limit

import "time"

// An Explanation says why an algorithm changed its limit, and on which measurements.
type Explanation struct {
	// Why is the reason as a clause, such as "latency did not rise". It is empty if the
	// algorithm gives none.
	Why string
	// Period is the length of the time that the algorithm looked at. The fields below cover it.
	Period time.Duration
	// Arrived counts the calls that asked for a permit, and Pressed the ones among them that
	// found none free.
	Arrived, Pressed int
	// Throughput is the number of successful calls a second. Overloaded counts the calls that
	// were overloaded.
	Throughput float64
	Overloaded int
	// InFlight is the mean number of calls in flight.
	InFlight float64
	// Latency is the mean latency of the calls that ran. Base is the latency without queueing
	// inside the server. Both are 0 if they are not known.
	Latency, Base time.Duration
}

// An Explainer is an Algorithm that explains its changes.
type Explainer interface {
	Algorithm
	// Explain explains the last change of the limit. A gate calls it after an Update that
	// changed the limit, with its lock held, so Explain must not block.
	Explain() Explanation
}

// Explain explains the change of a limit by the last Update of an algorithm. w is the window
// that Update got. For an algorithm that is no [Explainer] the measurements come from w.
func Explain(a Algorithm, w Window) Explanation {
	if e, ok := a.(Explainer); ok {
		return e.Explain()
	}
	return w.explain("")
}

// explain returns an explanation with the measurements of a window.
func (w Window) explain(why string) Explanation {
	e := Explanation{
		Why: why, Period: w.Duration, Arrived: w.Arrived, Pressed: w.Pressed, Overloaded: w.Overloaded,
		InFlight: w.InFlight, Latency: w.MeanLatency,
	}
	if w.Duration > 0 {
		e.Throughput = float64(w.Succeeded) / w.Duration.Seconds()
	}
	return e
}

// A why is a reason of Adaptive.
type why uint8

const (
	unexplained why = iota
	latencySteady
	latencyUnknown
	measuring
	suspecting
	measured
	loadGone
	queues
	jams
	failing
	wasBetter
	climbing
	climbed
	fellBack
)

// String returns the reason as a clause.
func (w why) String() string {
	return [...]string{
		unexplained:    "",
		latencySteady:  "calls found no permit free, and latency did not rise",
		latencyUnknown: "calls wait, and too few have ended to know their latency",
		measuring:      "newcomers are held back for a moment, to measure latency without queueing",
		suspecting:     "latency may have risen, so newcomers are held back to measure it without queueing",
		measured:       "latency without queueing is measured",
		loadGone:       "no call waits any more",
		queues:         "calls queue inside the server, and latency has risen",
		jams:           "goroutines wait for a processor for most of the latency",
		failing:        "no call succeeds",
		wasBetter:      "far more calls succeeded at this limit",
		climbing:       "many calls are overloaded, so limits are tried for the most successes",
		climbed:        "the limit with the most successes is found",
		fellBack:       "few calls are overloaded now, so latency decides again",
	}[w]
}

// A note holds the reason and the measurements of the last change of an Adaptive.
type note struct {
	why  why
	seen segment
	base float64
}

// because notes the reason and the measurements of a change.
func (a *Adaptive) because(w why, seen *segment) { a.told = note{w, *seen, a.base.value} }

// Explain implements Explainer.
func (a *Adaptive) Explain() Explanation {
	s := &a.told.seen
	e := Explanation{
		Why: a.told.why.String(), Period: seconds(s.time), Arrived: int(s.arrived), Pressed: int(s.pressed),
		Overloaded: int(s.overloaded), InFlight: s.all.among.value,
		Latency: seconds(s.all.latency.value), Base: seconds(a.told.base),
	}
	if s.time > 0 {
		e.Throughput = s.succeeded / s.time
	}
	return e
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
