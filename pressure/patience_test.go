package pressure_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/pressure"
)

// A signal that has hung for a second does not delay the answer to another, whichever comes
// first.
func TestASignalThatHangsDelaysNoOther(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprint("first ", first), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				defer close(release)
				hangs := pressure.NewSignal("hangs", func() (float64, error) { <-release; return 0, nil })
				disk := newDial("disk", 0.1)
				signals := []pressure.Signal{disk, hangs}
				if first {
					signals = []pressure.Signal{hangs, disk}
				}
				m := run(t, pressure.WithSignals(signals...))
				wait(12)
				for range 5 {
					for _, want := range []pressure.Level{pressure.Extreme, pressure.Calm} {
						time.Sleep(tick / 2)
						disk.set(map[pressure.Level]float64{pressure.Extreme: 0.98, pressure.Calm: 0.1}[want])
						time.Sleep(tick/2 + time.Millisecond)
						synctest.Wait()
						wantLevel(t, m, "right after a sample", want)
						time.Sleep(tick - time.Millisecond)
					}
				}
			})
		})
	}
}

// A signal that takes longer than an interval is read again as soon as it has answered.
func TestASlowSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		m := run(t, pressure.WithSignals(newDial("disk", 0.1), pressure.NewSignal("slow", func() (float64, error) {
			reads.Add(1)
			time.Sleep(tick * 3 / 2)
			return 0.93, nil
		})))
		wait(20)
		if n := reads.Load(); n < 9 || n > 11 {
			t.Errorf("got %d reads in 2 s, want 10", n)
		}
		wantLevel(t, m, "while it is read", pressure.High)
		if s := m.Stats().Signals[1]; s.Err != nil || s.Failures != 0 {
			t.Errorf("got %v and %d failures, want none", s.Err, s.Failures)
		}
		m.Stop()
		time.Sleep(time.Second) // the last read
	})
}

// A signal that Update keeps is never read twice at a time, and its value still counts.
func TestUpdateKeepsASignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		var hang atomic.Bool
		release := make(chan struct{})
		pool := pressure.NewSignal("pool", func() (float64, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			if hang.Load() {
				<-release
			}
			return 0.93, nil
		})
		m := run(t, pressure.WithSignals(pool))
		wait(2)
		hang.Store(true)
		wait(2)
		for _, signals := range [][]pressure.Signal{{pool}, {newDial("disk", 0.1), pool}, {pool, newDial("queue", 0.1)}} {
			if err := m.Update(pressure.WithSignals(signals...)); err != nil {
				t.Fatal(err)
			}
			wait(2)
			wantLevel(t, m, "after an update", pressure.High)
			if got := len(m.Stats().Signals); got != len(signals) {
				t.Errorf("got %d signals, want %d", got, len(signals))
			}
		}
		if n := most.Load(); n != 1 {
			t.Errorf("got %d reads at a time, want 1", n)
		}
		wait(10)
		wantLevel(t, m, "when it has hung for more than a second", pressure.Calm)
		hang.Store(false)
		close(release)
		wait(3)
		wantLevel(t, m, "when it answers again", pressure.High)
		if n := most.Load(); n != 1 {
			t.Errorf("at the end: got %d reads at a time, want 1", n)
		}
	})
}

// An odd is a signal that cannot be compared with another.
type odd struct{ values []float64 }

func (odd) Name() string             { return "odd" }
func (o odd) Read() (float64, error) { return o.values[0], nil }

// Signals that cannot be compared, and others of the same name, are new ones.
func TestUpdateReplacesASignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := run(t, pressure.WithSignals(odd{[]float64{0.93}}))
		wait(2)
		wantLevel(t, m, "the first", pressure.High)
		for value, want := range map[float64]pressure.Level{0.1: pressure.Calm, 0.99: pressure.Extreme} {
			for name, s := range map[string]pressure.Signal{
				"of a type that cannot be compared": odd{[]float64{value}}, "a dial": newDial("odd", value),
			} {
				if err := m.Update(pressure.WithSignals(s)); err != nil {
					t.Fatal(err)
				}
				wait(2)
				wantLevel(t, m, fmt.Sprint(name, " at ", value), want)
			}
		}
	})
}
