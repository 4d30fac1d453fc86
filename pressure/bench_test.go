package pressure_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/weir-go/weir/pressure"
)

func BenchmarkLevel(b *testing.B) {
	m, err := pressure.New()
	if err != nil {
		b.Fatal(err)
	}
	m.Start()
	defer m.Stop()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if m.Level() > pressure.Extreme {
				b.Error("got a level beyond the last")
			}
		}
	})
}

// What one sample of each signal costs.
func BenchmarkRead(b *testing.B) {
	for _, s := range []pressure.Signal{pressure.Memory(pressure.MemoryConfig{}), pressure.GC(), pressure.Processors()} {
		b.Run(s.Name(), func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Read(); err != nil {
					b.Skip(err)
				}
			}
		})
	}
}

// The memory of a monitor that has sampled is B/monitor.
func BenchmarkFootprint(b *testing.B) {
	const monitors = 100
	inUse := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for b.Loop() {
		before := inUse()
		var all []*pressure.Monitor
		for range monitors {
			m, err := pressure.New()
			if err != nil {
				b.Fatal(err)
			}
			m.Start()
			all = append(all, m)
		}
		for _, m := range all {
			for m.Stats().Samples < 12 { // the window of a second is full
				time.Sleep(time.Millisecond)
			}
		}
		b.ReportMetric(float64(inUse()-before)/monitors, "B/monitor")
		for _, m := range all {
			m.Stop()
		}
	}
}
