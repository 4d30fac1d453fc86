package admit

import (
	"fmt"
	"strings"
	"time"

	"github.com/weir-go/weir/limit"
)

// A Decision is a change of the limit.
type Decision struct {
	// At is when the limit changed, From and To are the limits before and after.
	At       time.Time
	From, To int
	// Explanation is the reason, and the measurements behind it.
	limit.Explanation
}

// String describes the decision in one line, such as
//
//	raised 12 -> 14: 60 % of arrivals found no permit free; calls found no permit free, and latency did not rise
func (d Decision) String() string {
	var b strings.Builder
	verb := "raised"
	if d.To < d.From {
		verb = "lowered"
	}
	fmt.Fprintf(&b, "%s %d -> %d", verb, d.From, d.To)
	if d.Why != "" {
		fmt.Fprintf(&b, ": %s", d.Why)
	}
	if seen := d.Seen(); seen != "" {
		fmt.Fprintf(&b, " (%s)", seen)
	}
	return b.String()
}

// Seen describes the measurements behind the decision. It is empty if there were none.
func (d Decision) Seen() string {
	if d.Period <= 0 {
		return ""
	}
	parts := []string{
		fmt.Sprintf("in %v: %.0f calls/s succeeded", rounded(d.Period), d.Throughput),
		digits(d.InFlight) + " in flight",
	}
	if d.Latency > 0 {
		parts = append(parts, fmt.Sprintf("latency %v", rounded(d.Latency)))
	}
	if d.Base > 0 {
		parts = append(parts, fmt.Sprintf("%v without queueing", rounded(d.Base)))
	}
	if d.Arrived > 0 {
		parts = append(parts, fmt.Sprintf("%d %% of %d arrivals found no permit free", 100*min(d.Pressed, d.Arrived)/d.Arrived, d.Arrived))
	}
	if d.Overloaded > 0 {
		parts = append(parts, fmt.Sprintf("%d overloaded", d.Overloaded))
	}
	return strings.Join(parts, ", ")
}

// digits returns a number with three digits, or with all digits before the point. It never has
// an exponent.
func digits(v float64) string {
	if v >= 999.5 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// rounded returns a duration with three digits.
func rounded(d time.Duration) time.Duration {
	for unit := time.Duration(1); ; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit)
		}
	}
}
