// Package pressure tells how close the process is to its end: to the kernel that kills it
// for its memory, to a collector that leaves no processor for the work, to processors that
// everything waits for. Gates refuse calls by class while it is close.
//
// A limit on calls does not see memory. gRPC reads and decodes a request before an
// interceptor runs, and an answer stays in memory after its handler has returned. Use a
// [Monitor] in every server that has a memory limit. Do without it where nothing but the
// gate's own limit can run out.
//
//	monitor, err := pressure.New()
//	if err != nil {
//		return err
//	}
//	monitor.Start()
//	defer monitor.Stop()
//	gate, err := admit.New(admit.WithPressure(monitor))
//
// A [Signal] is one resource, read as a number from 0 (plenty is left) to 1 (the end).
// [Memory], [GC] and [Processors] are there from the start. A connection pool, a disk or a
// queue is a signal that the program writes itself. The monitor reads all of them every
// 100 ms. The worst one decides on the [Level]:
//
//	level     from   until below  gates refuse
//	Calm                          nothing
//	Elevated  0.85   0.75         classes below Default: Sheddable and Background
//	High      0.92   0.85         classes below Critical: Default, too
//	Extreme   0.97   0.92         every call that is not exempt
//
// A level ends where the one before it begins, and Elevated ends at 0.75. So a level does
// not flicker, and a server that recovers serves its most important calls first.
//
// # What the memory signal counts
//
// Usage is what the kernel charges to the process, less file cache that the kernel can drop
// (inactive_file) and less pages that Go has free and would use before it asks for more.
// The limit is the first of these that there is:
//
//   - MemoryConfig.Limit;
//   - on Linux the lowest memory.max or memory.high (cgroup v2), or memory.limit_in_bytes
//     (v1), from the cgroup of the process up to the root;
//   - GOMEMLIMIT. Then usage is what the last collection has found alive, because the
//     heap reaches this limit in good health, too;
//   - on Linux the memory that the machine has available, together with what the process has.
//
// Elsewhere and without a limit the signal has nothing to say. [Stats] reports that as the
// signal's error, and it counts as 0.
//
// A Go heap grows to twice what is alive before it is collected, so a healthy server in a
// container would come close to the container's limit. While a monitor with the memory
// signal runs it therefore sets Go's memory limit to 75 % of the first two limits above,
// unless GOMEMLIMIT or debug.SetMemoryLimit has set one: see MemoryConfig.KeepGoLimit. A
// GOMEMLIMIT of one's own should be below the first mark, or garbage counts as pressure.
//
// # Signals that fail
//
// A signal that panics, returns an error, NaN or a number below 0, or does not return
// fails. Its last value counts for one second more (five samples, if that is longer), then
// it counts as 0: what is not known must not refuse calls. It fails alone: the others are
// read as before. A signal that never returns costs one goroutine, for ever.
package pressure
