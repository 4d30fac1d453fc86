package pressure_test

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/pressure"
)

func wantRead(t *testing.T, s pressure.Signal, when string, want float64) {
	t.Helper()
	if got, err := s.Read(); err != nil || math.Abs(got-want) > 1e-9 {
		t.Errorf("%s: got %v, %v, want %v", when, got, err, want)
	}
}

// The share of the collector is that of the last second, and half of all is the end.
func TestGC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		procs := float64(runtime.GOMAXPROCS(0))
		var gc, total float64
		var err error
		s := pressure.GCIn(func() (float64, float64, error) { return gc, total, err })
		pass := func(share float64) {
			time.Sleep(tick)
			gc += share * tick.Seconds() * procs
			total += tick.Seconds() * procs
		}
		wantRead(t, s, "at the start", 0)
		for range 20 {
			pass(0.1)
			_, _ = s.Read()
		}
		wantRead(t, s, "a tenth", 0.2)
		for range 10 {
			pass(0.5)
			_, _ = s.Read()
		}
		wantRead(t, s, "half, for a second", 1)
		for range 10 {
			pass(0)
			_, _ = s.Read()
		}
		wantRead(t, s, "nothing, for a second", 0)
		// The runtime counts a collection that took 4 s of all processors when it ends.
		time.Sleep(4 * time.Second)
		total += 4 * procs
		gc += procs
		wantRead(t, s, "a long collection at a quarter", 0.5)
		gc, total = 0, 0
		wantRead(t, s, "a counter that went backwards", 0)
		pass(0.25)
		wantRead(t, s, "after that", 0) // there is one reading again
		if err = errors.New("no counter"); err != nil {
			if _, got := s.Read(); !errors.Is(got, err) {
				t.Errorf("got %v, want the error of the counter", got)
			}
		}
	})
}

// waits is a histogram of waits for a processor: below 1 ms, from 1 ms, from 50 ms, from 200 ms.
type waits struct{ counts []uint64 }

func (w *waits) read() ([]uint64, []float64, error) {
	return append([]uint64(nil), w.counts...), []float64{math.Inf(-1), 0.001, 0.05, 0.2, math.Inf(1)}, nil
}

// The median wait counts, and few waits count for nothing.
func TestProcessorLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := waits{[]uint64{1000, 1000, 0, 0}}
		s := pressure.ProcessorsIn(machine{}.files(), w.read)
		wantRead(t, s, "at the start", 0)
		step := func(when string, want float64, add ...uint64) {
			t.Helper()
			for i, n := range add {
				w.counts[i] += n
			}
			time.Sleep(2 * time.Second)
			wantRead(t, s, when, want)
			time.Sleep(2 * time.Second)
			_, _ = s.Read() // what comes now is another second
		}
		step("most below 1 ms", 0, 1000, 10, 10, 10)
		step("most above 1 ms", 0.01, 10, 100, 10, 10)
		step("most above 50 ms", 0.5, 10, 10, 100, 10)
		step("most above 200 ms, which nobody dies of", 0.9, 10, 10, 10, 100)
		step("few above 200 ms", 0, 0, 0, 0, 20)
		w.counts = []uint64{1, 0, 0, 0}
		wantRead(t, s, "counters that went backwards", 0)
	})
}

// What the CPU quota takes away counts, in v1 and v2.
func TestThrottling(t *testing.T) {
	procs := runtime.GOMAXPROCS(0)
	for name, c := range map[string]struct {
		on   machine
		file string
		text func(seconds float64) string
	}{
		"v2": {v2, "sys/fs/cgroup/kube/pod/box/cpu.stat", func(s float64) string {
			return fmt.Sprintf("nr_throttled 3\nthrottled_usec %d\n", int(s*1e6))
		}},
		"v1": {v1, "sys/fs/cgroup/cpu/cpu.stat", func(s float64) string {
			return fmt.Sprintf("nr_periods 9\nthrottled_time %d\n", int(s*1e9))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				files := c.on.files()
				set := func(seconds float64) {
					files[c.file] = machine{c.file: c.text(seconds)}.files()[c.file]
				}
				set(5)
				s := pressure.ProcessorsIn(files, (&waits{make([]uint64, 4)}).read)
				wantRead(t, s, "at the start", 0)
				time.Sleep(time.Second)
				set(5 + 0.5*float64(procs))
				wantRead(t, s, "half of the time", 0.5)
				set(0)
				wantRead(t, s, "a counter that went backwards", 0)
				delete(files, c.file)
				wantRead(t, s, "a file that has vanished", 0)
			})
		})
	}
}

// The counters of this Go runtime are there.
func TestSignalsHere(t *testing.T) {
	for _, s := range []pressure.Signal{pressure.GC(), pressure.Processors()} {
		for range 2 {
			if got, err := s.Read(); err != nil || !(got >= 0) {
				t.Errorf("%s: got %v, %v, want a value", s.Name(), got, err)
			}
		}
	}
}
