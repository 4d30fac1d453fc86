package pressure_test

import (
	"fmt"
	"io/fs"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/pressure"
)

// A climber is a cgroup of 1,000 MiB whose usage is a function of the time.
type climber struct {
	machine
	began time.Time
	used  func(time.Duration) float64 // share of the limit
	reads atomic.Int64
}

func climb(used func(time.Duration) float64) *climber {
	return &climber{machine: v2, began: time.Now(), used: used}
}

func (c *climber) now() float64 { return c.used(time.Since(c.began)) }

func (c *climber) Open(name string) (fs.File, error) {
	const box, limit = "sys/fs/cgroup/kube/pod/box/", 1000 * mib
	if name == box+"memory.current" {
		c.reads.Add(1)
	}
	return c.with(machine{
		box + "memory.current": fmt.Sprint(int64(c.now() * limit)),
		box + "memory.stat":    "inactive_file 0\n",
		box + "memory.max":     fmt.Sprint(limit),
	}).files().Open(name)
}

func (c *climber) signal() pressure.Signal {
	return pressure.MemoryIn(c, noHeap, pressure.MemoryConfig{KeepGoLimit: true})
}

// steady rises by so many limits a second.
func steady(from, pace float64) func(time.Duration) float64 {
	return func(at time.Duration) float64 { return from + pace*at.Seconds() }
}

// begin waits for a level and returns the usage at that moment.
func begin(t *testing.T, c *climber, m *pressure.Monitor, level pressure.Level) float64 {
	t.Helper()
	for m.Level() < level {
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if c.now() >= 1 {
			t.Errorf("got a dead process, want %v before", level)
			break
		}
	}
	return c.now()
}

// However fast the memory rises, Elevated begins soon after its mark. High begins so early that
// the calls of another 80 ms take the memory to its mark and not beyond.
func TestMemoryThatRisesFast(t *testing.T) {
	for _, pace := range []float64{0.1, 0.2, 0.3, 0.5, 1, 1.5} {
		for _, phase := range []float64{0, 0.013, 0.02, 0.027} {
			synctest.Test(t, func(t *testing.T) {
				c := climb(steady(0.6+phase, pace))
				m := run(t, pressure.WithSignals(c.signal()))
				atRead := 0.012 + pace*0.012 // a read for each 1 % of the limit, or every 10 ms
				if got := begin(t, c, m, pressure.Elevated); got < 0.85 || got > 0.85+atRead {
					t.Errorf("%.1f a second from %.3f: got elevated at %.3f, want 0.85 to %.3f", pace, 0.6+phase, got, 0.85+atRead)
				}
				most := max(0.92-pace*0.08, 0.88+atRead) // a rise counts up to 4 %
				if got := begin(t, c, m, pressure.High); got < 0.88 || got > most {
					t.Errorf("%.1f a second from %.3f: got high at %.3f, want 0.88 to %.3f", pace, 0.6+phase, got, most)
				}
			})
		}
	}
}

// Collections between two reads hide the rise of such a moment. High still begins in time.
func TestMemoryThatRisesBetweenCollections(t *testing.T) {
	const ms = time.Millisecond
	for _, every := range []time.Duration{25 * ms, 35 * ms, 45 * ms, 80 * ms, 110 * ms} {
		synctest.Test(t, func(t *testing.T) {
			rises := steady(0.6, 0.3)
			c := climb(func(at time.Duration) float64 {
				garbage := 0.5 * (at % every).Seconds()
				return rises(at) + min(garbage, 0.01)
			})
			m := run(t, pressure.WithSignals(c.signal()))
			if got := begin(t, c, m, pressure.High); got < 0.88 || got > 0.9 {
				t.Errorf("a collection each %v: got high at %.3f, want 0.88 to 0.9", every, got)
			}
		})
	}
}

// A collection that takes long does not delay a read of memory that rises fast.
func TestMemoryThatRisesDuringACollection(t *testing.T) {
	for _, takes := range []time.Duration{20 * time.Millisecond, 200 * time.Millisecond, 2 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			c := climb(steady(0, 1))
			collect := func() { time.Sleep(takes) }
			m := run(t, pressure.WithSignals(pressure.CollectingIn(c, noHeap, collect, pressure.MemoryConfig{KeepGoLimit: true})))
			if got := begin(t, c, m, pressure.High); got > 0.9 {
				t.Errorf("a collection of %v: got high at %.3f, want at most 0.9", takes, got)
			}
			m.Stop()
			time.Sleep(2 * time.Second) // for the collection
		})
	}
}

// A rise counts only after a read that found one. So Extreme ends with the first read that finds
// the memory below its end, however fast the memory rose before.
func TestMemoryThatFalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Int64 // when Extreme began, since the start
		rises := steady(0.5, 0.5)
		c := climb(func(at time.Duration) float64 {
			if top := full.Load(); top > 0 && at > time.Duration(top) {
				return 0.9
			}
			return rises(at)
		})
		m := run(t, pressure.WithSignals(c.signal()))
		begin(t, c, m, pressure.Extreme)
		full.Store(int64(time.Since(c.began)))
		for before := c.reads.Load(); m.Level() == pressure.Extreme; synctest.Wait() {
			if n := c.reads.Load() - before; n > 0 {
				t.Fatalf("Extreme after %d reads at 0.9: got it still, want its end", n)
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// A rise that counts before it has happened never ends Calm, and neither does one jump begin
// High: also a healthy server takes memory for a moment.
func TestForecastDoesNoHarm(t *testing.T) {
	for name, c := range map[string]struct {
		used  func(time.Duration) float64
		level pressure.Level
	}{
		"fast, and then still":   {func(at time.Duration) float64 { return min(0.5+0.5*at.Seconds(), 0.845) }, pressure.Calm},
		"faster, and then still": {func(at time.Duration) float64 { return min(0.2+2*at.Seconds(), 0.845) }, pressure.Calm},
		"up and down": {func(at time.Duration) float64 {
			return 0.6 + 0.24*math.Abs(math.Sin(3*at.Seconds()))
		}, pressure.Calm},
		"one jump": {func(at time.Duration) float64 {
			if at > time.Second {
				return 0.9
			}
			return 0.8
		}, pressure.Elevated},
		"slow": {steady(0.85, 0.001), pressure.Elevated}, // up to 0.91
	} {
		synctest.Test(t, func(t *testing.T) {
			cl, worst := climb(c.used), pressure.Calm
			m := run(t, pressure.WithSignals(cl.signal()))
			for range 6000 {
				time.Sleep(10 * time.Millisecond)
				worst = max(worst, m.Level())
			}
			if worst != c.level {
				t.Errorf("%s: got %v, want at most %v", name, worst, c.level)
			}
		})
	}
}

// Only the memory is read more often, only while it rises, and never beyond the interval of
// the monitor.
func TestReadsWhileMemoryRises(t *testing.T) {
	for name, c := range map[string]struct {
		used        func(time.Duration) float64
		least, most int64 // reads of the memory in a second
	}{
		"still":         {steady(0.9, 0), 10, 12}, // one is checked after a collection
		"far away":      {steady(0.1, 0.1), 10, 10},
		"close":         {steady(0.8, 0.05), 10, 13},
		"fast, close":   {steady(0.5, 0.25), 15, 40},
		"as fast as is": {steady(0.2, 0.6), 20, 110},
	} {
		synctest.Test(t, func(t *testing.T) {
			cl := climb(c.used)
			var others atomic.Int64
			run(t, pressure.WithSignals(cl.signal(), pressure.NewSignal("other", func() (float64, error) {
				others.Add(1)
				return 0, nil
			})))
			time.Sleep(time.Second + 5*time.Millisecond)
			synctest.Wait()
			before, othersBefore := cl.reads.Load(), others.Load()
			time.Sleep(time.Second)
			synctest.Wait()
			if got := cl.reads.Load() - before; got < c.least || got > c.most {
				t.Errorf("%s: got %d reads in a second, want %d to %d", name, got, c.least, c.most)
			}
			if got := others.Load() - othersBefore; got < 9 || got > 11 {
				t.Errorf("%s: got %d reads of another signal in a second, want 10", name, got)
			}
		})
	}
}

// A signal that does not answer does not keep the monitor from the memory.
func TestMemoryBesideASignalThatBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, over := climb(steady(0.6, 0.3)), make(chan struct{})
		m := run(t, pressure.WithSignals(pressure.NewSignal("slow", func() (float64, error) {
			<-over
			return 0, nil
		}), c.signal()))
		if got := begin(t, c, m, pressure.High); got > 0.91 {
			t.Errorf("got high at %.3f, want at most 0.91", got)
		}
		close(over)
	})
}
