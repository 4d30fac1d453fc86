// Package pressure measures how close the process is to its end. The kernel kills a process
// that takes too much memory, the collector can take all processors, and calls can wait too
// long for a processor. Gates refuse calls by class while the process is close to that.
//
// A limit on calls does not see memory. gRPC reads and decodes a request before an
// interceptor runs, and a response stays in memory after its handler has returned. Use a
// [Monitor] in a server with a memory limit. Do not use one if only the capacity that the
// gate limits can run out.
//
//	monitor, err := pressure.New()
//	if err != nil {
//		return err
//	}
//	monitor.Start()
//	defer monitor.Stop()
//	gate, err := admit.New(admit.WithPressure(monitor))
//
// A [Signal] is a resource, read as a number from 0 (unused) to 1 (used up). [Memory], [GC]
// and [Processors] are the default. A connection pool, a disk or a queue is a signal that
// the program adds. The monitor reads all signals every 100 ms, and the memory more often
// while it rises fast. The highest value decides on the [Level]:
//
//	level     from   until below  gates refuse
//	Calm                          nothing
//	Elevated  0.85   0.75         classes below Default, so Sheddable and Background
//	High      0.92   0.85         classes below Critical, so also Default
//	Extreme   0.97   0.92         every call that is not exempt
//
// A level ends where the level before it begins, and Elevated ends at 0.75. So a level does
// not flicker, and a recovering server first admits its most important calls. To hold High
// and Extreme for longer, lower Elevated and High in [Marks].
//
// # The memory signal
//
// Usage is the memory that the kernel charges to the process. It does not include the file
// cache that the kernel can drop (inactive_file), or free pages of the Go heap, because Go
// uses these before it asks for more. The limit is the first of these that exists:
//
//   - MemoryConfig.Limit;
//   - on Linux the lowest memory.max or memory.high (cgroup v2), or memory.limit_in_bytes
//     (v1), from the cgroup of the process up to the root;
//   - on Linux the limit of the data segment (prlimit --data, ulimit -d), if it is lower than
//     that of the cgroup. Usage is then the data segment without the parts that Go uses again;
//   - GOMEMLIMIT. Usage then counts the heap as it was after the last collection, because
//     also a healthy heap grows up to this limit;
//   - on Linux the available memory of the machine and the memory of the process together.
//
// On other systems without a limit the signal fails. [Stats] has the error, and the signal
// counts as 0.
//
// A Go heap grows to twice its live size before it is collected. So a healthy server would
// come close to the limit of its container. While a monitor with the memory signal runs, it
// sets Go's memory limit to 75 % of the first three limits above, unless GOMEMLIMIT or
// debug.SetMemoryLimit has set one. MemoryConfig.KeepGoLimit turns that off. A GOMEMLIMIT
// that you set should be below the mark of Elevated, or garbage counts as pressure.
//
// # Signals that fail
//
// A signal fails if it panics, returns an error, NaN, an infinity or a negative number, or
// does not return. Its last value counts for one more second, or for five samples if they take
// longer. Then it counts as 0, because an unknown value must not refuse calls. The other
// signals are read as before. A signal that never returns costs one goroutine, for ever.
package pressure
