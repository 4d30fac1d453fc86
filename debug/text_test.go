package debug_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/debug"
)

// The page says durations as a person would, also just below the next unit.
func TestDurationsInWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                          "0 ns",
		999:                        "999 ns",
		1000:                       "1 µs",
		999_499:                    "999 µs",
		999_500:                    "1 ms",
		12_345 * time.Microsecond:  "12.3 ms",
		999_499_999:                "999 ms",
		999_600 * time.Microsecond: "1 s",
		119_960 * time.Millisecond: "120 s",
		2 * time.Minute:            "2 min",
		119 * time.Minute:          "119 min",
		49 * time.Hour:             "49 h",
		-1500 * time.Millisecond:   "-1.5 s",
	} {
		if got := debug.InWords(d); got != want {
			t.Errorf("%d ns: got %q, want %q", int64(d), got, want)
		}
	}
}

// A rate above a thousand is a number without an exponent.
func TestAHighRateOfAFinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := must(admit.New(admit.WithFixedLimit(1), admit.WithoutQueue()))(t)
		h := must(debug.NewHandler(g))(t)
		p := must(g.Acquire(t.Context(), admit.Call{}))(t)
		defer p.Release(admit.Ignored)
		look(t, h)
		for range 12_345 {
			_, _ = g.Acquire(t.Context(), admit.Call{})
		}
		time.Sleep(10 * time.Second)
		if got := finding(t, h, "gate default"); !strings.Contains(got, "refuses 1234 a second") && !strings.Contains(got, "refuses 1235 a second") {
			t.Errorf("12,345 refusals in 10 s: got the finding %q, want 1234 or 1235 a second", got)
		}
	})
}
