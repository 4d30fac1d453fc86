package pressure

import (
	"io/fs"
	"strconv"
	"strings"
)

// ofDataLimit measures the data segment of the process against its limit, RLIMIT_DATA. When
// the limit is reached, the kernel gives no more memory and the Go runtime ends the process. It
// returns false if there is no limit.
func (s *system) ofDataLimit(h heap) (u usage, known bool) {
	limit := s.dataLimit()
	if limit == 0 {
		return usage{}, false
	}
	size, err := readStat(s.files, "proc/self/status", "VmData")
	if err != nil {
		return usage{}, false
	}
	return usage{
		used: size - h.free - h.released, limit: limit, kills: true,
		other: max(size-h.mapped-h.released, 0), // such as the stacks of threads, of 8 MiB each
	}, true
}

// dataLimit returns the soft limit in bytes, 0 if there is none.
func (s *system) dataLimit() int64 {
	data, err := fs.ReadFile(s.files, "proc/self/limits")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		rest, found := strings.CutPrefix(line, "Max data size")
		if !found {
			continue
		}
		if fields := strings.Fields(rest); len(fields) > 0 {
			if n, err := strconv.ParseInt(fields[0], 10, 64); err == nil && n > 0 && n < unlimited {
				return n
			}
		}
	}
	return 0
}
