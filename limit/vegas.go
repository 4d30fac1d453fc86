package limit

import (
	"cmp"
	"math"
	"time"

	"github.com/weir-go/weir/internal/check"
)

// VegasConfig configures [NewVegas]. Every zero field means its default.
type VegasConfig struct {
	// Initial, Min and Max bound the limit; defaults 20, 1 and the constant Max.
	Initial, Min, Max int
	// Alpha and Beta are how many calls may queue in the server before the
	// limit stops growing, and before it shrinks, as multiples of the decimal
	// logarithm of the limit (at least 1); defaults 3 and 6, 0.1 to 100.
	Alpha, Beta float64
	// ProbeWindows is after how many windows the base latency is measured anew;
	// default 1000.
	ProbeWindows int
}

// Vegas estimates how many calls queue inside the server, limit x (1 - base /
// latency), and keeps that between Alpha and Beta (Brakmo, O'Malley and
// Peterson, "TCP Vegas: New Techniques for Congestion Detection and Avoidance",
// SIGCOMM 1994, section 5; with the logarithmic bounds of Netflix's
// concurrency-limits). The base is the lowest mean latency of a window. The lowest
// single latency would be near zero if service times vary.
//
// It is weak where the first windows are already overloaded (the base is then
// too high, and the limit stays too high until the next probe), and where calls
// become slower for good. It takes that for queueing until the next probe.
type Vegas struct {
	cfg    VegasConfig
	limit  float64
	base   time.Duration
	probed int // windows since base was last forgotten
}

// NewVegas returns a Vegas. It returns an error that wraps ErrConfig and names
// every field that is out of range.
func NewVegas(c VegasConfig) (*Vegas, error) {
	c.Min, c.Max = cmp.Or(c.Min, 1), cmp.Or(c.Max, Max)
	c.Initial = cmp.Or(c.Initial, min(max(20, c.Min), c.Max))
	c.Alpha, c.Beta = cmp.Or(c.Alpha, 3), cmp.Or(c.Beta, 6)
	c.ProbeWindows = cmp.Or(c.ProbeWindows, 1000)
	var bad check.Errors
	bounds(&bad, c.Initial, c.Min, c.Max)
	check.Between(&bad, "Alpha", c.Alpha, 0.1, 100)
	check.Between(&bad, "Beta", c.Beta, 0.1, 100)
	bad.That(!(c.Beta < c.Alpha), "Beta: got %v, want at least Alpha (%v)", c.Beta, c.Alpha)
	bad.That(c.ProbeWindows > 0, "ProbeWindows: got %d, want more than 0", c.ProbeWindows)
	if err := bad.Err(ErrConfig); err != nil {
		return nil, err
	}
	return &Vegas{cfg: c, limit: float64(c.Initial)}, nil
}

// Limit implements Algorithm.
func (v *Vegas) Limit() int { return int(v.limit) }

// Min implements Floored.
func (v *Vegas) Min() int { return v.cfg.Min }

// Update implements Algorithm.
func (v *Vegas) Update(w Window) int {
	if w.Succeeded+w.Overloaded == 0 {
		return v.Limit()
	}
	if v.probed++; v.probed > v.cfg.ProbeWindows {
		v.probed, v.base = 0, 0
	}
	if w.Succeeded > 0 && (v.base == 0 || w.MeanLatency < v.base) {
		v.base = w.MeanLatency
	}
	unit := max(1, math.Log10(v.limit))
	switch {
	case w.Overloaded > 0:
		v.limit -= unit
	case !w.pressed():
	default:
		queued := v.limit * (1 - float64(v.base)/float64(w.MeanLatency))
		switch {
		case queued < unit:
			v.limit += v.cfg.Beta * unit
		case queued < v.cfg.Alpha*unit:
			v.limit += unit
		case queued > v.cfg.Beta*unit:
			v.limit -= unit
		}
	}
	v.limit = min(max(v.limit, float64(v.cfg.Min)), float64(v.cfg.Max))
	return v.Limit()
}
