package streamcredit_test

import (
	"testing"

	"github.com/weir-go/weir/streamcredit"
)

// A look at a meter holds its lock for eight streams at most, however many are open. Streams open
// and end in between, and the look counts each stream that was there once.
func TestALookAtAMeterRests(t *testing.T) {
	const streams, batch = 1000, 8
	m := streamcredit.NewMeter("feed")
	steps, longest := 0, 0 // streams measured since the last rest, and the most of them
	open := make([]*streamcredit.Counted, streams)
	for i := range open {
		open[i] = &streamcredit.Counted{Sent: 1, Looked: func() { steps++; longest = max(longest, steps) }}
		m.Join(open[i])
	}
	rests := 0
	defer streamcredit.OnRest(func() {
		rests++
		steps = 0
		m.Join(&streamcredit.Counted{}) // takes the lock
		m.Leave(open[7*rests%streams])  // measured or not
		steps = 0
	})()
	s := m.Stats()
	if s.Sent != streams {
		t.Errorf("elements of %d streams, of which some ended meanwhile: got %d, want %d", streams, s.Sent, streams)
	}
	if longest > batch || rests < streams/batch/2 {
		t.Errorf("a look at %d streams: got %d at once and %d rests, want at most %d at once and a rest after each batch", streams, longest, rests, batch)
	}
	if int(s.Opened) != streams+rests || s.Streams != streams {
		t.Errorf("after the look: got %d opened and %d open, want %d and %d", s.Opened, s.Streams, streams+rests, streams)
	}
	before := rests
	if got := len(m.Streams(10)); got != 10 || rests-before < streams/batch/2 {
		t.Errorf("a list of streams: got %d streams after %d rests, want 10, and a rest after each batch", got, rests-before)
	}
}

// The counters of a meter never fall from one look to the next, whichever streams end meanwhile.
func TestCountersOfAMeterNeverFall(t *testing.T) {
	m := streamcredit.NewMeter("feed")
	var open []*streamcredit.Counted
	join := func() {
		c := &streamcredit.Counted{Sent: 1}
		open = append(open, c)
		m.Join(c)
	}
	for range 200 {
		join()
	}
	n := 0
	defer streamcredit.OnRest(func() {
		n++
		at := 31 * n % len(open)
		m.Leave(open[at])
		m.Leave(open[at]) // a second time changes nothing
		join()
	})()
	last := uint64(0)
	for range 50 {
		s := m.Stats()
		if s.Sent < last || s.Sent > s.Opened {
			t.Fatalf("elements of streams that sent one each: got %d after %d, with %d opened, want no less, and one for each", s.Sent, last, s.Opened)
		}
		last = s.Sent
	}
}

// A stream that ends during a look is not open any more, so its window does not count.
func TestAStreamThatEndsDuringALook(t *testing.T) {
	const streams, window = 16, 64
	m := streamcredit.NewMeter("feed")
	measured := map[*streamcredit.Counted]bool{}
	for range streams {
		c := &streamcredit.Counted{Sent: 1, Window: window}
		c.Looked = func() { measured[c] = true }
		m.Join(c)
		measured[c] = false
	}
	defer streamcredit.OnRest(func() {
		for c, done := range measured {
			if !done {
				m.Leave(c)
			}
		}
	})()
	s := m.Stats()
	if s.Window != int64(s.Streams)*window || s.Streams == streams || s.Sent != streams {
		t.Errorf("got %d open streams with a window of %d and %d elements, want some of %d, %d each, and all elements",
			s.Streams, s.Window, s.Sent, streams, window)
	}
}
