package admit_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
)

// switches has goroutines wait for a processor, so that the runtime counts some waits.
func switches() {
	var all sync.WaitGroup
	for range 1000 {
		all.Go(runtime.Gosched)
	}
	all.Wait()
}

// Gates of a process share a reading of the scheduler's histogram, and each window of a
// gate has a newer one.
func TestGatesShareAReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Hour) // away from what other tests have read
		gates := make([]admit.SchedulerWaits, 20)
		last := 0.0
		for window := range 10 {
			for i := range gates {
				gates[i].Mean()
				switches()
				if got, want := gates[i].Counted(), gates[0].Counted(); got != want {
					t.Errorf("window %d of gate %d: got a reading of its own of %v waits, want that of the first, %v", window, i, got, want)
				}
			}
			if got := gates[0].Counted(); got <= last {
				t.Errorf("window %d: got a reading of %v waits, want more than the %v of the window before", window, got, last)
			}
			last = gates[0].Counted()
			time.Sleep(limit.WindowLength)
		}
	})
}

// The mean is that of the waits between two readings.
func TestSchedulerWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(2 * time.Hour)
		var w admit.SchedulerWaits
		switches()
		if got := w.Mean(); got != 0 {
			t.Errorf("first mean: got %v, want 0: there is nothing to compare with", got)
		}
		if got := w.Mean(); got != 0 {
			t.Errorf("mean of the same reading: got %v, want 0", got)
		}
		switches()
		time.Sleep(limit.WindowLength)
		if got := w.Mean(); got <= 0 || got > time.Minute {
			t.Errorf("mean after a thousand waits: got %v, want one", got)
		}
	})
}

// BenchmarkSchedulerWaits is what the gates of a process pay to learn how long goroutines
// wait for a processor. core-% is the share of one processor if each gate closes a window
// as often as it may.
func BenchmarkSchedulerWaits(b *testing.B) {
	const most = int(time.Second / limit.WindowLength) // windows of a gate in a second
	for _, goroutines := range []int{10, 10_000} {
		for _, procs := range []int{1, 2, 8, 64} {
			for _, gates := range []int{1, 20} {
				b.Run(fmt.Sprintf("goroutines=%d/procs=%d/gates=%d", goroutines, procs, gates), func(b *testing.B) {
					defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
					stop := make(chan struct{})
					var begun, idle sync.WaitGroup
					begun.Add(goroutines)
					for range goroutines {
						idle.Go(func() { begun.Done(); <-stop })
					}
					begun.Wait()
					defer idle.Wait()
					defer close(stop)
					waits := make([]admit.SchedulerWaits, gates)
					b.ReportAllocs()
					for b.Loop() {
						admit.ForgetReading()
						for i := range waits {
							waits[i].Mean()
						}
					}
					round := b.Elapsed().Seconds() / float64(b.N)
					b.ReportMetric(100*round*float64(most), "core-%")
				})
			}
		}
	}
}
