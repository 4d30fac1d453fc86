package latency

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/interceptors/internal/places"
)

const (
	// LearnOneIn is how many calls that went well there are for each that a Estimate learns from,
	// so that the others need not read the clock.
	LearnOneIn = 16
	// curiosity is how many calls in a row are learned from after one that was late.
	curiosity = 64
	// slowMean is over how many calls the mean goes whose lowest value is kept.
	slowMean = 64
	// baseTurn is how long a minimum of the mean is kept, at least; at most twice that.
	baseTurn = 30 * time.Second
)

// A Estimate is how long the calls of one method take. It learns from calls that went well,
// and judges whether one that ended without an answer had a fair time. The estimator is
// that of TCP's retransmission timer (Jacobson, "Congestion Avoidance and Control", 1988):
// a mean and a mean deviation. Updates take no lock, and one that gets lost does no harm.
// The zero Estimate knows nothing. Times are on any clock that starts above zero.
type Estimate struct {
	mean, dev atomic.Int64 // of calls that went well; mean is 0 while there were none
	dry       atomic.Int64 // when the first call without an answer since the last answer ended, or 0
	longest   atomic.Int64 // the longest time that a caller gave a call before anything was known

	// What a call takes without congestion: the lowest values, of this turn and of the last,
	// of a mean over so many calls that chance does not make it low.
	seen, slow, low, lastLow, turned atomic.Int64
}

// Known reports whether the Estimate knows what a call takes and has seen an answer since
// the last call without one.
func (p *Estimate) Known() bool { return p.mean.Load() > 0 && p.dry.Load() == 0 }

// Learned reports whether the estimate has seen a call that went well.
func (p *Estimate) Learned() bool { return p.mean.Load() != 0 }

// Longest returns the longest time that a caller gave a call before the first one went well.
func (p *Estimate) Longest() time.Duration { return time.Duration(p.longest.Load()) }

// Answered notes that the server answers, whatever it says.
func (p *Estimate) Answered() {
	if p.dry.Load() != 0 {
		p.dry.Store(0)
	}
}

// Saw learns from a call that went well.
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

// Gave notes how long a caller gives a call. It matters only while nothing is known.
func (p *Estimate) Gave(d time.Duration) {
	if p.mean.Load() == 0 && int64(d) > p.longest.Load() {
		p.longest.Store(int64(d))
	}
}

// Late notes a call that ended without an answer, and returns for how long there was none.
func (p *Estimate) Late(now time.Duration) (dry time.Duration) {
	p.dry.CompareAndSwap(0, max(int64(now), 1))
	return now - time.Duration(p.dry.Load())
}

// Unloaded is what a call takes, with its deviation, while there is no congestion.
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

// Usual is what a call takes now, with its deviation.
func (p *Estimate) Usual() (mean, dev time.Duration) {
	return time.Duration(p.mean.Load()), time.Duration(p.dev.Load())
}

// Fair reports whether a call that lasted for had was given the time that a call of this
// mean and deviation takes. Once nothing was answered for longer than patience, the mean
// alone is enough: there is nothing left that would tell a slow call from a dead server.
func Fair(had, mean, dev, dry, patience time.Duration) bool {
	if dry >= patience {
		return had >= mean
	}
	return mean > 0 && had >= max(2*mean, mean+4*dev)
}

// Methods are those of the methods that one gate's interceptor sees.
type Methods struct {
	epoch   time.Time
	methods *places.Table[*Estimate]
	curious atomic.Int64 // how many calls to learn from, whatever the dice say
}

func NewMethods() *Methods {
	// The clock starts above zero, which is no time.
	return &Methods{epoch: time.Now().Add(-1), methods: places.New(func(places.Place) *Estimate { return &Estimate{} })}
}

func (p *Methods) Now() time.Duration { return time.Since(p.epoch) }

// Learns reports whether to learn from a call that went well.
func (p *Methods) Learns() bool {
	if p.curious.Load() > 0 {
		p.curious.Add(-1)
		return true
	}
	return rand.Uint32()%LearnOneIn == 0
}

// Wonder has the next calls that go well be learned from.
func (p *Methods) Wonder() { p.curious.Store(curiosity) }

func (p *Methods) Of(cc *grpc.ClientConn, method string) *Estimate { return p.methods.At(cc, method) }
