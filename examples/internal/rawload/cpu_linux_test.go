package rawload_test

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// A cpuSet is the kernel's mask of processors.
type cpuSet [16]uint64

// processors returns the processors that this process might use when it began.
var processors = sync.OnceValue(func() (cpus []int) {
	var set cpuSet
	_, _, failed := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(set), uintptr(unsafe.Pointer(&set)))
	for i := range len(set) * 64 {
		if failed == 0 && set[i/64]&(1<<(i%64)) != 0 {
			cpus = append(cpus, i)
		}
	}
	return cpus
})

// pin has a thread, 0 for the calling one, run on these processors alone.
func pin(thread int, cpus ...int) error {
	var set cpuSet
	for _, i := range cpus {
		set[i/64] |= 1 << (i % 64)
	}
	_, _, failed := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(thread), unsafe.Sizeof(set), uintptr(unsafe.Pointer(&set)))
	if failed != 0 {
		return fmt.Errorf("rawload: pin thread %d to processors %v: %w", thread, cpus, failed)
	}
	return nil
}

// pinAll pins every thread of this process. Threads that start later inherit it.
func pinAll(cpus ...int) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err == nil {
			err = pin(id, cpus...)
		}
		if !errors.Is(err, syscall.ESRCH) { // the thread has ended
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// tick is the unit of /proc/PID/stat on Linux, whatever the kernel's own is.
const tick = time.Second / 100

// cpuTime returns how long a process has run on processors.
func cpuTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(after) // from the third on
	if len(fields) < 13 {
		return 0, fmt.Errorf("rawload: /proc/%d/stat: got %q, want at least 15 fields", pid, data)
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}
