package limit

import (
	"cmp"
	"math"
	"time"

	"github.com/weir-go/weir/internal/check"
)

// AIMDConfig configures [NewAIMD]. Every zero field means its default.
type AIMDConfig struct {
	// Initial, Min and Max bound the limit; defaults 20, 1 and the constant Max.
	Initial, Min, Max int
	// Timeout is the mean latency beyond which a window counts as overloaded;
	// default 5 s.
	Timeout time.Duration
	// Backoff multiplies the limit after an overloaded window; default 0.9,
	// from 0.5 up to less than 1.
	Backoff float64
}

// AIMD raises the limit by one after a window in which demand reached it, and
// multiplies it by Backoff after one with an overload (Chiu and Jain, "Analysis
// of the Increase and Decrease Algorithms for Congestion Avoidance in Computer
// Networks", Computer Networks and ISDN Systems 17, 1989). It needs the server
// to say when it is overloaded, by an error or by being slower than Timeout.
// It lets latency grow until then.
type AIMD struct {
	cfg   AIMDConfig
	limit float64
}

// NewAIMD returns an AIMD. It returns an error that wraps ErrConfig and names
// every field that is out of range.
func NewAIMD(c AIMDConfig) (*AIMD, error) {
	c.Min, c.Max = cmp.Or(c.Min, 1), cmp.Or(c.Max, Max)
	c.Initial = cmp.Or(c.Initial, min(max(20, c.Min), c.Max))
	c.Timeout, c.Backoff = cmp.Or(c.Timeout, 5*time.Second), cmp.Or(c.Backoff, 0.9)
	var bad check.Errors
	bounds(&bad, c.Initial, c.Min, c.Max)
	bad.That(c.Timeout > 0, "Timeout: got %v, want more than 0", c.Timeout)
	check.Between(&bad, "Backoff", c.Backoff, 0.5, math.Nextafter(1, 0))
	if err := bad.Err(ErrConfig); err != nil {
		return nil, err
	}
	return &AIMD{cfg: c, limit: float64(c.Initial)}, nil
}

// Limit implements Algorithm.
func (a *AIMD) Limit() int { return int(a.limit) }

// Min implements Floored.
func (a *AIMD) Min() int { return a.cfg.Min }

// Update implements Algorithm.
func (a *AIMD) Update(w Window) int {
	switch {
	case w.Overloaded > 0 || w.MeanLatency > a.cfg.Timeout:
		a.limit *= a.cfg.Backoff
	case w.Succeeded > 0 && w.pressed():
		a.limit++
	}
	a.limit = min(max(a.limit, float64(a.cfg.Min)), float64(a.cfg.Max))
	return a.Limit()
}
