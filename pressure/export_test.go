package pressure

import (
	"io/fs"
	"runtime"
)

// HeapIn is what the Go runtime is said to know of its memory.
type HeapIn struct {
	Mapped, Free, Garbage int64
	Cycles                uint64
	Released              int64
}

// MemoryIn is Memory on a machine with other files and another heap.
func MemoryIn(files fs.FS, h func() HeapIn, c MemoryConfig) Signal {
	return CollectingIn(files, h, runtime.GC, c)
}

// CollectingIn is MemoryIn with another collector.
func CollectingIn(files fs.FS, h func() HeapIn, collect func(), c MemoryConfig) Signal {
	return &memory{cfg: c, sys: &system{files: files, collect: collect, heap: func() heap {
		got := h()
		return heap{got.Mapped, got.Free, got.Garbage, got.Cycles, got.Released}
	}}}
}

// GCIn is GC with other counters, in seconds.
func GCIn(read func() (gc, total float64, err error)) Signal { return &collector{read: read} }

// ProcessorsIn is Processors on a machine with other files and other waits.
func ProcessorsIn(files fs.FS, latencies func() ([]uint64, []float64, error)) Signal {
	return &processors{sys: &system{files: files}, latencies: latencies}
}

// Next is the level after now.
func Next(m Marks, now Level, worst float64) Level { return m.next(now, worst) }
