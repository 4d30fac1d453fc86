package pressure

import (
	"io/fs"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
)

// A system is where the signals of this package read.
type system struct {
	files fs.FS // that begins at /
	heap  func() heap
}

var thisSystem = system{files: os.DirFS("/"), heap: readHeap}

// A heap is what the Go runtime knows of its memory, in bytes.
type heap struct {
	mapped  int64 // from the operating system, less what was given back
	free    int64 // of that, in no use: the next allocations take it
	garbage int64 // at most: objects less what the last collection found alive
	cycles  uint64
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
		if s[i].Value.Kind() != metrics.KindUint64 { // a runtime that does not know it
			return 0
		}
		return int64(s[i].Value.Uint64())
	}
	return heap{
		mapped:  max(n(0)-n(1), 0),
		free:    n(2),
		garbage: max(n(3)-n(4), 0),
		cycles:  uint64(n(5)),
	}
}

// resident returns how many bytes of memory the process has. Where the system does not
// say, that is what Go has mapped.
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
