package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// mostBusy is the share of the processors that other programs may use. With more, a rate
// or a latency says more about them than about weir.
const mostBusy = 0.15

// busy returns the share of the machine's processors that was in use for a moment. It
// reports false where that is not known.
func busy(ctx context.Context, moment time.Duration) (share float64, known bool) {
	before, ok1 := processorTimes()
	select {
	case <-time.After(moment):
	case <-ctx.Done():
	}
	after, ok2 := processorTimes()
	all := after.all - before.all
	if !ok1 || !ok2 || all <= 0 {
		return 0, false
	}
	return min(max(1-float64(after.idle-before.idle)/float64(all), 0), 1), true
}

// times are of all processors together, in ticks since the machine started.
type times struct{ idle, all int64 }

// processorTimes reads the times from the first line of /proc/stat, which Linux has: user,
// nice, system, idle, waiting for input or output, and more.
func processorTimes() (t times, ok bool) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return t, false
	}
	return timesOf(string(data))
}

func timesOf(stat string) (t times, ok bool) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 6 || fields[0] != "cpu" {
		return t, false
	}
	for i, f := range fields[1:min(len(fields), 9)] { // user and nice contain the later fields
		var n int64
		if _, err := fmt.Sscan(f, &n); err != nil {
			return t, false
		}
		t.all += n
		if i == 3 || i == 4 {
			t.idle += n
		}
	}
	return t, true
}

// describe returns a sentence with the machine and the date of the measurement. share is
// the share of the processors that other processes use, if that is known. If it is above
// mostBusy, describe returns an error unless o.busy is set.
func describe(o options, share float64, known bool) (string, error) {
	if known && share > mostBusy && !o.busy {
		return "", fmt.Errorf("the machine is busy: %.0f %% of its processors are in use, want at most %.0f %%; wait, or go on with -busy",
			100*share, 100*mostBusy)
	}
	others := ""
	if known {
		others = fmt.Sprintf(", %.0f %% of them in use by others before the run", 100*share)
	}
	today, system := time.Now().UTC().Format(time.DateOnly), runtime.GOOS+"/"+runtime.GOARCH
	return fmt.Sprintf("%s, %s, %s, %d processors%s. Rounds: %d, of %g s.\n",
		today, runtime.Version(), system, runtime.NumCPU(), others, o.rounds, o.seconds), nil
}
