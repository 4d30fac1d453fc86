package pressure

import "time"

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
	now   float64 // between the last two readings, 0 if the usage fell
	twice float64 // now, but at most twice the pace before it, since one jump makes no pace
	top   float64 // the highest pace, which counts less until it is forgotten
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
		before := p.now
		p.now = max(u.share()-p.last.share(), 0) / took.Seconds()
		p.twice = min(p.now, 2*before)
		p.top = max(p.now, p.top*(1-took.Seconds()/paceMemory.Seconds()))
	}
	p.at, p.last = at, u
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
	return min(p.twice*(within+underWay).Seconds(), ahead), within
}
