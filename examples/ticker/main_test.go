package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWithCreditNoMoreIsInFlightThanTheWindow(t *testing.T) {
	s := settings{duration: 500 * time.Millisecond, slow: 4, every: 10 * time.Millisecond, window: 8, bytes: 1024}
	r, err := run(t.Context(), s, true)
	if err != nil {
		t.Fatal(err)
	}
	// One more than the window: an element makes room when Recv returns it, and is counted after that.
	if r.inFlight > int64(s.window)+1 || r.inFlight == 0 {
		t.Errorf("in flight = %d, want 1 to %d", r.inFlight, s.window+1)
	}
	if r.consumed == 0 || r.consumed > r.sent {
		t.Errorf("consumed = %d of %d sent, want some, and no more than that", r.consumed, r.sent)
	}
}

func TestTheTableHasBothRuns(t *testing.T) {
	var out bytes.Buffer
	s := settings{duration: 300 * time.Millisecond, slow: 4, every: 10 * time.Millisecond, window: 8, bytes: 1024}
	if err := show(t.Context(), &out, s); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"bare ", "weir ", "window of 8"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output = %q, want %q in it", out.String(), want)
		}
	}
}
