package streamcredit_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/streamcredit"
)

// A strain is a pressure that is set by hand.
type strain struct{ level atomic.Uint32 }

func (s *strain) Pressure() (level uint8, signal string) {
	if s.level.Load() == 99 {
		panic("wild")
	}
	return uint8(s.level.Load()), "memory"
}

// A budget shrinks with the pressure, and grows back when it has passed, even if nothing
// else happens then.
func TestBudgetFollowsPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams, bound = 4, 400
		p := &strain{}
		b := newBudget(t, streamcredit.BudgetConfig{Messages: bound, Pressure: p})
		client := spring(t)
		var ins []*subscription
		for range streams {
			ins = append(ins, tap(t, client, 0, 10, streamcredit.WithBudget(b), streamcredit.WithWindow(200)))
		}
		// drain consumes what has arrived, round after round, and returns what is left of
		// what was asked for.
		drain := func() int64 {
			for range 40 {
				for _, in := range ins {
					for range in.Stats().Buffered {
						if _, err := in.Recv(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
				}
				time.Sleep(10 * time.Millisecond)
				synctest.Wait()
			}
			return held(ins)
		}
		calm := drain()
		if calm <= bound/2 || calm > bound {
			t.Fatalf("without pressure: got %d held, want more than half of %d", calm, bound)
		}
		for _, c := range []struct {
			level       uint32
			least, most int64
		}{{1, bound / 4, bound / 2}, {2, bound / 8, bound / 4}, {3, streams, streams}, {99, bound / 2, bound}} {
			p.level.Store(c.level)
			if got := drain(); got < c.least || got > c.most {
				t.Errorf("at level %d: got %d held, want %d to %d", c.level, got, c.least, c.most)
			}
		}
		p.level.Store(3)
		drain()
		p.level.Store(0)
		time.Sleep(time.Second) // nobody consumes anything
		synctest.Wait()
		if got := held(ins); got <= bound/2 {
			t.Errorf("a second after the pressure: got %d held, want more than half of %d", got, bound)
		}
	})
}
