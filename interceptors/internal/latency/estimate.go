package latency

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/interceptors/internal/places"
)

const (
	// LearnOneIn is the mean number of successful calls for each one that an estimate learns
	// from. The others need not read the clock.
	LearnOneIn = 16
	// curiosity is how many calls in a row are learned from after a late one.
	curiosity = 64
	// slowMean is the number of calls in the slow mean. Its lowest value is kept.
	slowMean = 64
	// baseTurn is the least time for which a minimum of the mean is kept; the most is twice
	// that.
	baseTurn = 30 * time.Second
)

// An Estimate is how long the calls of one method take. It learns from successful calls,
// and judges whether a call without an answer had a fair time. It keeps a mean and a mean
// deviation, as TCP's retransmission timer does (Jacobson, "Congestion Avoidance and
// Control", 1988). Updates take no lock, and a lost update does no harm. The zero Estimate
// knows nothing. Times are on any clock that starts above zero.
type Estimate struct {
	mean, dev atomic.Int64 // of calls that went well; mean is 0 while there were none
	dry       atomic.Int64 // when the first call without an answer since the last answer ended, or 0
	longest   atomic.Int64 // the longest time that a caller gave a call before anything was known

	// The time without congestion. slow is a mean over enough calls that chance does not
	// make it low. low and lastLow are its lowest values in this turn and in the last one.
	seen, slow, low, lastLow, turned atomic.Int64
}

// Known reports whether the estimate knows how long a call takes, and has seen an answer
// since the last call without one.
func (p *Estimate) Known() bool { return p.mean.Load() > 0 && p.dry.Load() == 0 }

// Learned reports whether the estimate has seen a call that went well.
func (p *Estimate) Learned() bool { return p.mean.Load() != 0 }

// Longest returns the longest time that a caller gave a call before the first one went well.
func (p *Estimate) Longest() time.Duration { return time.Duration(p.longest.Load()) }

// Answered records that the server answers, whatever the answer is.
func (p *Estimate) Answered() {
	if p.dry.Load() != 0 {
		p.dry.Store(0)
	}
}

// Saw learns from a successful call.
func (p *Estimate) Saw(took, now time.Duration) {
	p.Answered()
	t := max(int64(took), 1)
	mean, dev := p.mean.Load(), p.dev.Load()
	if mean == 0 {
		mean, dev = t, t/2
	} else {
		off := t - mean
		mean += off / 8
		dev += (max(off, -off) - dev) / 4
	}
	p.mean.Store(max(mean, 1))
	p.dev.Store(dev)
	p.keepLow(t, int64(now))
}

func (p *Estimate) keepLow(t, now int64) {
	n := p.seen.Add(1)
	slow := p.slow.Load()
	slow += (t - slow) / min(n, slowMean)
	p.slow.Store(slow)
	began, low := p.turned.Load(), p.low.Load()
	switch {
	case n <= slowMean: // there is no mean of so many calls yet
		p.low.Store(slow)
	case now-began >= int64(baseTurn) && p.turned.CompareAndSwap(began, now):
		p.lastLow.Store(low)
		p.low.Store(slow)
	case slow < low:
		p.low.Store(slow)
	}
}

// Gave records how long a caller gives a call. It matters only until the first success.
func (p *Estimate) Gave(d time.Duration) {
	if p.mean.Load() == 0 && int64(d) > p.longest.Load() {
		p.longest.Store(int64(d))
	}
}

// Late records a call that ended without an answer. It returns for how long there was no
// answer.
func (p *Estimate) Late(now time.Duration) (dry time.Duration) {
	p.dry.CompareAndSwap(0, max(int64(now), 1))
	return now - time.Duration(p.dry.Load())
}

// Unloaded returns the time of a call without congestion, with its deviation.
func (p *Estimate) Unloaded() (mean, dev time.Duration) {
	m, low := p.mean.Load(), p.low.Load()
	if last := p.lastLow.Load(); last != 0 && last < low {
		low = last
	}
	if m == 0 {
		return 0, 0
	}
	return time.Duration(low), time.Duration(float64(p.dev.Load()) * float64(low) / float64(m))
}

// Usual returns the current mean time of a call, with its deviation.
func (p *Estimate) Usual() (mean, dev time.Duration) {
	return time.Duration(p.mean.Load()), time.Duration(p.dev.Load())
}

// Fair reports whether a call that lasted for had was given the time that a call of this
// mean and deviation takes. Once nothing was answered for longer than patience, the mean
// alone is enough. Nothing is left then that would tell a slow call from a dead server.
func Fair(had, mean, dev, dry, patience time.Duration) bool {
	if dry >= patience {
		return had >= mean
	}
	return mean > 0 && had >= max(2*mean, mean+4*dev)
}

// Methods are the estimates of the methods that one interceptor sees.
type Methods struct {
	epoch   time.Time
	methods *places.Table[*Estimate]
	curious atomic.Int64 // how many calls to learn from without drawing a number
}

// NewMethods returns no estimates. The clock of Now starts with it.
func NewMethods() *Methods {
	// The clock starts above zero, which is no time.
	return &Methods{epoch: time.Now().Add(-1), methods: places.New(func(places.Place) *Estimate { return &Estimate{} })}
}

// Now returns the time on the clock of the estimates.
func (p *Methods) Now() time.Duration { return time.Since(p.epoch) }

// Learns reports whether to learn from a successful call.
func (p *Methods) Learns() bool {
	if p.curious.Load() > 0 {
		p.curious.Add(-1)
		return true
	}
	return rand.Uint32()%LearnOneIn == 0
}

// Wonder makes the next successful calls be learned from.
func (p *Methods) Wonder() { p.curious.Store(curiosity) }

// Of returns the estimate of a method.
func (p *Methods) Of(cc *grpc.ClientConn, method string) *Estimate { return p.methods.At(cc, method) }
