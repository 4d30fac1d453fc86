package pressure

import (
	"io/fs"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
)

// A system is the source of the readings, which tests replace.
type system struct {
	files   fs.FS // of the root directory
	heap    func() heap
	collect func() // runs the collector and waits for it
}

var thisSystem = system{files: os.DirFS("/"), heap: readHeap, collect: runtime.GC}

// A heap is the memory statistics of the Go runtime, in bytes.
type heap struct {
	mapped  int64 // mapped memory that was not returned to the operating system
	free    int64 // mapped and unused, for the next allocations
	garbage int64 // objects beyond the live heap of the last collection, an upper bound
	cycles  uint64
	// released was returned to the operating system and keeps its addresses. Go maps it again
	// before it asks for more.
	released int64
}

func readHeap() heap {
	s := []metrics.Sample{
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/gc/cycles/total:gc-cycles"},
	}
	metrics.Read(s)
	n := func(i int) int64 {
		if s[i].Value.Kind() != metrics.KindUint64 { // this runtime has no such metric
			return 0
		}
		return int64(s[i].Value.Uint64())
	}
	return heap{
		mapped:   max(n(0)-n(1), 0),
		released: n(1),
		free:     n(2),
		garbage:  max(n(3)-n(4), 0),
		cycles:   uint64(n(5)),
	}
}

// resident returns the resident memory of the process in bytes. Without /proc it returns the
// memory that Go has mapped.
func (s *system) resident(h heap) int64 {
	data, err := fs.ReadFile(s.files, "proc/self/statm")
	if err != nil {
		return h.mapped
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return h.mapped
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return h.mapped
	}
	return pages * int64(os.Getpagesize())
}
