package admit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
)

// A decision about many calls names them with digits, as a person would.
func TestADecisionHasNoExponents(t *testing.T) {
	for inFlight, want := range map[float64]string{0: "0", 0.0388: "0.0388", 2.5: "2.5", 999.4: "999", 999.6: "1000", 12345.6: "12346"} {
		d := admit.Decision{From: 1000, To: 2000, Explanation: limit.Explanation{
			Period: time.Second, Throughput: 2e6, InFlight: inFlight, Latency: 999_999 * time.Nanosecond,
		}}
		if got := d.Seen(); !strings.Contains(got, ", "+want+" in flight") || !strings.Contains(got, "2000000 calls/s") {
			t.Errorf("%v in flight: got %q, want %q in flight at 2000000 calls/s", inFlight, got, want)
		}
	}
}
