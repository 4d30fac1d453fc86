package main

import (
	"strings"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	bare := fate{Died: 10 * time.Second, Peak: memory + 1, Paid: ledger{100, 100}, Committed: 300, Produced: 900, Before: rate}
	weir := fate{Peak: memory / 2, Paid: ledger{901, 900}, Committed: 900, Produced: 900, Before: rate, Recovered: time.Second, WorkOff: 900}
	for name, c := range map[string]struct {
		change func(bare, weir *fate)
		want   string
	}{
		"all is well":     {func(*fate, *fate) {}, "As promised: "},
		"no memory":       {func(b, _ *fate) { b.Peak = 0 }, "No verdict: "},
		"bare survives":   {func(b, _ *fate) { b.Died = 0 }, "No verdict: "},
		"busy machine":    {func(_, w *fate) { w.Before = rate / 2 }, "No verdict: "},
		"weir dies":       {func(_, w *fate) { w.Died = time.Second }, "Not as promised: "},
		"weir loses":      {func(_, w *fate) { w.Paid.Distinct-- }, "Not as promised: "},
		"weir is slow":    {func(_, w *fate) { w.WorkOff = rate }, "Not as promised: "},
		"never recovered": {func(_, w *fate) { w.Recovered = 0 }, "Not as promised: "},
	} {
		t.Run(name, func(t *testing.T) {
			b, w := bare, weir
			c.change(&b, &w)
			if got := judge(b, w); !strings.HasPrefix(got, c.want) {
				t.Errorf("judge = %q, want %q...", got, c.want)
			}
		})
	}
	if got := bare.lost(); got != 200 {
		t.Errorf("lost = %d, want 200", got)
	}
	if got := table(bare, weir); !strings.Contains(got, "10.0 s") || strings.Count(got, "\n") != 10 {
		t.Errorf("table = %q, want ten lines with the time of death", got)
	}
}

func TestSpeed(t *testing.T) {
	for at, want := range map[time.Duration]time.Duration{0: usual, troubleFrom: slowed, troubleTo - 1: slowed, troubleTo: usual} {
		if got := speed(at); got != want {
			t.Errorf("speed(%v) = %v, want %v", at, got, want)
		}
	}
}
