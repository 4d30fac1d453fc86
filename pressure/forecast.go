package pressure

import (
	"slices"
	"time"
)

// A forecaster is a signal that says how its value may go on. The monitor calls forecast after
// each Read that succeeded, in the same goroutine.
type forecaster interface {
	// forecast returns by how much the value may rise until a decision about the last Read
	// takes effect, and when the next Read is due. It is due after the usual interval if
	// within is 0 or longer than that.
	forecast() (rise float64, within time.Duration)
}

const (
	// stride is the part of a limit by which the memory may rise between two reads close to
	// the limit.
	stride = 0.01
	// ahead is the largest rise that counts before it has happened.
	ahead = 4 * stride
	// underWay is for how long calls that are already admitted take more memory.
	underWay = 100 * time.Millisecond
	// paceMemory is how long a pace counts for the time of the next read.
	paceMemory = time.Second
)

// A pace is how fast the used part of a limit rises, as a share a second. The zero pace has no
// reading.
type pace struct {
	at    time.Time // of the last reading
	last  usage
	rises [3]float64 // between the last four readings, newest first, 0 where the usage fell
	top   float64    // the highest of all rises, which counts less until it is forgotten
}

// add adds a reading. A pace begins anew with another limit.
func (p *pace) add(at time.Time, u usage) {
	took := at.Sub(p.at)
	switch {
	case !u.kills || u.limit != p.last.limit:
		*p = pace{}
	case took <= 0:
		return
	default:
		now := max(u.share()-p.last.share(), 0) / took.Seconds()
		p.rises = [...]float64{now, p.rises[0], p.rises[1]}
		p.top = max(now, p.top*(1-took.Seconds()/paceMemory.Seconds()))
	}
	p.at, p.last = at, u
}

// steady returns the pace that counts for the level. One jump makes no pace, and one
// collection between two reads does not hide one.
func (p *pace) steady() float64 {
	if p.rises[0] == 0 {
		return 0
	}
	r := p.rises
	slices.Sort(r[:])
	return r[1]
}

// forecast returns the rise until the next read and for as long as admitted calls take memory
// after it, at most ahead. Far from the first mark, a read may miss half of the way to it.
func (p *pace) forecast() (rise float64, within time.Duration) {
	if p.top == 0 {
		return 0, 0
	}
	step := max(stride, (checkAt-p.last.share())/2)
	within = time.Duration(min(step/p.top, longestEvery.Seconds()) * float64(time.Second))
	within = max(within, shortestEvery)
	return min(p.steady()*(within+underWay).Seconds(), ahead), within
}
