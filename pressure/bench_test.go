package pressure_test

import (
	"testing"

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
