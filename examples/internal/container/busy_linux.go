package container

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// times returns the times until now. The times of ended children are ours, too.
func times() processorTimes {
	const perSecond = 100 // USER_HZ, the unit of /proc/stat
	now := processorTimes{at: time.Now(), count: runtime.NumCPU()}
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return now
	}
	line, _, _ := strings.Cut(string(data), "\n")
	for i, field := range strings.Fields(line) {
		switch i { // user, nice, system, irq, softirq and steal, as proc_stat(5) has them
		case 1, 2, 3, 6, 7, 8:
			n, _ := strconv.ParseFloat(field, 64)
			now.all += n / perSecond
		}
	}
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			now.ours += time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
		}
	}
	return now
}
