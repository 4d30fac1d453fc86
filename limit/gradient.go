package limit

import (
	"cmp"
	"math"

	"github.com/weir-go/weir/internal/check"
)

// GradientConfig configures [NewGradient]. Every zero field means its default.
type GradientConfig struct {
	// Initial, Min and Max bound the limit; defaults 20, 1 and the constant Max.
	Initial, Min, Max int
	// Tolerance is how much slower than its long-term average the latency may
	// become before the limit shrinks; default 1.5, 1 to 10.
	Tolerance float64
	// Smoothing is how much of a new limit is taken at once; default 0.2, more
	// than 0 and at most 1.
	Smoothing float64
	// LongWindows is over how many windows the long-term average forgets;
	// default 600.
	LongWindows int
}

// Gradient compares each window's latency with its long-term average and
// shrinks the limit by their ratio (Netflix concurrency-limits, Gradient2).
// One flaw of that law is mended. The allowance for a queue is added only while the
// ratio is 1. Added always, it makes the limit grow without end under a modest
// overload, because it outweighs the effect of the ratio.
//
// It is weak under an overload that lasts. The long-term average follows, and slow
// calls become normal.
type Gradient struct {
	cfg   GradientConfig
	limit float64
	long  float64 // seconds
}

// NewGradient returns a Gradient. It returns an error that wraps ErrConfig and
// names every field that is out of range.
func NewGradient(c GradientConfig) (*Gradient, error) {
	c.Min, c.Max = cmp.Or(c.Min, 1), cmp.Or(c.Max, Max)
	c.Initial = cmp.Or(c.Initial, min(max(20, c.Min), c.Max))
	c.Tolerance, c.Smoothing = cmp.Or(c.Tolerance, 1.5), cmp.Or(c.Smoothing, 0.2)
	c.LongWindows = cmp.Or(c.LongWindows, 600)
	var bad check.Errors
	bounds(&bad, c.Initial, c.Min, c.Max)
	check.Between(&bad, "Tolerance", c.Tolerance, 1, 10)
	check.Between(&bad, "Smoothing", c.Smoothing, math.SmallestNonzeroFloat64, 1)
	bad.That(c.LongWindows > 0, "LongWindows: got %d, want more than 0", c.LongWindows)
	if err := bad.Err(ErrConfig); err != nil {
		return nil, err
	}
	return &Gradient{cfg: c, limit: float64(c.Initial)}, nil
}

// Limit implements Algorithm.
func (g *Gradient) Limit() int { return int(g.limit) }

// Min implements Floored.
func (g *Gradient) Min() int { return g.cfg.Min }

// Update implements Algorithm.
func (g *Gradient) Update(w Window) int {
	if w.Succeeded == 0 {
		return g.Limit()
	}
	short := w.MeanLatency.Seconds()
	if g.long == 0 {
		g.long = short
	}
	g.long += (short - g.long) / float64(g.cfg.LongWindows)
	if g.long > 2*short {
		g.long *= 0.95 // the overload is over, so forget it sooner
	}
	if !w.pressed() {
		return g.Limit()
	}
	slope := min(max(g.cfg.Tolerance*g.long/short, 0.5), 1)
	next := g.limit * slope
	if slope == 1 {
		next += math.Sqrt(g.limit)
	}
	g.limit += (next - g.limit) * g.cfg.Smoothing
	g.limit = min(max(g.limit, float64(g.cfg.Min)), float64(g.cfg.Max))
	return g.Limit()
}
