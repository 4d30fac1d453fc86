package pressure_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/pressure"
)

const mib = 1 << 20

// A machine is a file system with the files that signals read.
type machine map[string]string

func (m machine) files() fstest.MapFS {
	files := fstest.MapFS{}
	for name, text := range m {
		files[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return files
}

// with returns the machine with other files; an empty text removes one.
func (m machine) with(changes machine) machine {
	all := machine{}
	for _, from := range []machine{m, changes} {
		for name, text := range from {
			if all[name] = text; text == "" {
				delete(all, name)
			}
		}
	}
	return all
}

var (
	v2 = machine{
		"proc/self/cgroup":                          "0::/kube/pod/box\n",
		"proc/self/mountinfo":                       "30 22 0:27 / /sys/fs/cgroup rw shared:1 - cgroup2 none rw,nsdelegate\n",
		"sys/fs/cgroup/kube/pod/box/memory.current": fmt.Sprint(100 * mib),
		"sys/fs/cgroup/kube/pod/box/memory.stat":    fmt.Sprintf("anon 1\ninactive_file %d\nactive_file 7\n", 20*mib),
		"sys/fs/cgroup/kube/pod/box/memory.max":     fmt.Sprint(200 * mib),
		"sys/fs/cgroup/kube/pod/memory.max":         "max\n",
	}
	v1 = machine{
		"proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n",
		"proc/self/mountinfo": "34 30 0:31 /docker/abc /sys/fs/cgroup/memory rw - cgroup none rw,memory\n" +
			"35 30 0:32 / /sys/fs/cgroup/cpu rw - cgroup none rw,cpu,cpuacct\n40 30 0:37 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n",
		"sys/fs/cgroup/memory/memory.usage_in_bytes": fmt.Sprint(100 * mib),
		"sys/fs/cgroup/memory/memory.stat":           fmt.Sprintf("inactive_file 1\ntotal_inactive_file %d\n", 20*mib),
		"sys/fs/cgroup/memory/memory.limit_in_bytes": fmt.Sprint(200 * mib),
	}
)

func noHeap() pressure.HeapIn { return pressure.HeapIn{} }

func TestMemory(t *testing.T) {
	for name, c := range map[string]struct {
		on   machine
		want float64
	}{
		"v2":                        {v2, 0.4},
		"v2, a parent has less":     {v2.with(machine{"sys/fs/cgroup/kube/memory.max": fmt.Sprint(100 * mib)}), 0.8},
		"v2, memory.high is less":   {v2.with(machine{"sys/fs/cgroup/kube/pod/memory.high": fmt.Sprint(160 * mib)}), 0.5},
		"v2, a limit on the parent": {v2.with(machine{"sys/fs/cgroup/kube/pod/box/memory.max": "max", "sys/fs/cgroup/kube/pod/memory.max": fmt.Sprint(400 * mib)}), 0.2},
		"v2, a limit of zero":       {v2.with(machine{"sys/fs/cgroup/kube/pod/memory.max": "0"}), 0.4},
		"v2, a broken limit":        {v2.with(machine{"sys/fs/cgroup/kube/pod/memory.max": "plenty"}), 0.4},
		"v2, the root of a namespace": {machine{
			"proc/self/cgroup":             "0::/\n",
			"proc/self/mountinfo":          v2["proc/self/mountinfo"],
			"sys/fs/cgroup/memory.current": "75", "sys/fs/cgroup/memory.max": "100", "sys/fs/cgroup/memory.stat": "inactive_file 0",
		}, 0.75},
		"v2, a path of the host": {machine{
			"proc/self/cgroup":             "0::/../../host/pod\n",
			"proc/self/mountinfo":          v2["proc/self/mountinfo"],
			"sys/fs/cgroup/memory.current": "75", "sys/fs/cgroup/memory.max": "100", "sys/fs/cgroup/memory.stat": "inactive_file 5",
		}, 0.7},
		"v2, over the limit":  {v2.with(machine{"sys/fs/cgroup/kube/pod/box/memory.current": fmt.Sprint(420 * mib)}), 2},
		"v2, all of it cache": {v2.with(machine{"sys/fs/cgroup/kube/pod/box/memory.current": fmt.Sprint(5 * mib)}), 0},
		"v1":                  {v1, 0.4},
		"v1, a parent outside the container has less": {v1.with(machine{
			"sys/fs/cgroup/memory/memory.stat": fmt.Sprintf("hierarchical_memory_limit %d\ntotal_inactive_file %d\n", 160*mib, 20*mib),
		}), 0.5},
		"v1, only a parent outside the container has a limit": {v1.with(machine{
			"sys/fs/cgroup/memory/memory.stat":           fmt.Sprintf("hierarchical_memory_limit %d\ntotal_inactive_file %d\n", 400*mib, 20*mib),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}), 0.2},
		"v1, no parent has a limit": {v1.with(machine{
			"sys/fs/cgroup/memory/memory.stat": fmt.Sprintf("hierarchical_memory_limit 9223372036854771712\ntotal_inactive_file %d\n", 20*mib),
		}), 0.4},
		"v1, no limit": {v1.with(machine{
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
			"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    307200 kB\n", "proc/self/statm": fmt.Sprintf("9 %d 1", 100*mib/os.Getpagesize()),
		}), 0.25},
		"no cgroup, but a machine": {machine{"proc/meminfo": "MemAvailable: 307200 kB\n", "proc/self/statm": fmt.Sprintf("9 %d 1", 100*mib/os.Getpagesize())}, 0.25},
	} {
		t.Run(name, func(t *testing.T) {
			s := pressure.MemoryIn(c.on.files(), noHeap, pressure.MemoryConfig{})
			got, err := s.Read()
			if err != nil || math.Abs(got-c.want) > 1e-9 {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
		})
	}
}

// dataLimit is a machine where a process has a limit for its data segment.
func dataLimit(limit string, size int) machine {
	return machine{
		"proc/self/limits": "Limit                     Soft Limit           Hard Limit           Units     \n" +
			"Max cpu time              7200                 unlimited            seconds   \n" +
			"Max data size             " + limit + "            unlimited            bytes     \n",
		"proc/self/status": fmt.Sprintf("Name:\tx\nVmPeak:\t 9 kB\nVmData:\t  %d kB\n", size/1024),
	}
}

// The limit of the data segment counts if it is lower than that of the cgroup. Parts that Go
// uses again are not used up.
func TestDataLimit(t *testing.T) {
	setGoLimit(t, math.MaxInt64)
	heap := func() pressure.HeapIn { return pressure.HeapIn{Mapped: 100 * mib, Free: 10 * mib, Released: 40 * mib} }
	for name, c := range map[string]struct {
		on   machine
		want float64
	}{
		"alone":                  {dataLimit(fmt.Sprint(200*mib), 150*mib), 0.5},
		"lower than the cgroup":  {v2.with(dataLimit(fmt.Sprint(125*mib), 150*mib)), 0.8},
		"higher than the cgroup": {v2.with(dataLimit(fmt.Sprint(900*mib), 150*mib)), 0.35},
		"none":                   {v2.with(dataLimit("unlimited", 150*mib)), 0.35},
		"nonsense":               {v2.with(dataLimit("much", 150*mib)), 0.35},
		"zero":                   {v1.with(dataLimit("0", 150*mib)), 0.35},
		"no size":                {v2.with(dataLimit(fmt.Sprint(125*mib), 150*mib)).with(machine{"proc/self/status": ""}), 0.35},
	} {
		got, err := pressure.MemoryIn(c.on.files(), heap, pressure.MemoryConfig{}).Read()
		if err != nil || math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, c.want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		run(t, pressure.WithSignals(pressure.MemoryIn(dataLimit(fmt.Sprint(200*mib), 150*mib).files(), heap, pressure.MemoryConfig{})))
		wait(1)
		if got := debug.SetMemoryLimit(-1); got != 140*mib {
			t.Errorf("got a Go limit of %d, want 75 %% of the limit without the 10 MiB that are not Go's", got)
		}
	})
}

// Memory that Go has free is not used up.
func TestFreeHeapIsRoom(t *testing.T) {
	s := pressure.MemoryIn(v2.files(), func() pressure.HeapIn { return pressure.HeapIn{Free: 40 * mib} }, pressure.MemoryConfig{})
	if got, err := s.Read(); err != nil || got != 0.2 {
		t.Errorf("got %v, %v, want 0.2", got, err)
	}
}

// A limit of one's own comes first.
func TestMemoryLimitOfTheConfiguration(t *testing.T) {
	on := v2.with(machine{"proc/self/statm": fmt.Sprintf("9 %d 1", 100*mib/os.Getpagesize())})
	s := pressure.MemoryIn(on.files(), noHeap, pressure.MemoryConfig{Limit: 125 * mib})
	if got, err := s.Read(); err != nil || math.Abs(got-0.8) > 1e-9 {
		t.Errorf("got %v, %v, want 0.8", got, err)
	}
	s = pressure.MemoryIn(machine{}.files(), func() pressure.HeapIn { return pressure.HeapIn{Mapped: 50 * mib} }, pressure.MemoryConfig{Limit: 100 * mib})
	if got, err := s.Read(); err != nil || got != 0.5 {
		t.Errorf("without files: got %v, %v, want 0.5", got, err)
	}
}

// Without a cgroup GOMEMLIMIT is the limit, and only what is alive counts.
func TestGoMemoryLimit(t *testing.T) {
	setGoLimit(t, 1000*mib)
	heap := func() pressure.HeapIn {
		return pressure.HeapIn{Mapped: 990 * mib, Free: 100 * mib, Garbage: 390 * mib}
	}
	s := pressure.MemoryIn(machine{}.files(), heap, pressure.MemoryConfig{})
	if got, err := s.Read(); err != nil || got != 0.5 {
		t.Errorf("got %v, %v, want 0.5", got, err)
	}
}

// setGoLimit sets Go's memory limit for a test.
func setGoLimit(t *testing.T, n int64) {
	t.Helper()
	before := debug.SetMemoryLimit(n)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
}

func TestMemoryUnknown(t *testing.T) {
	setGoLimit(t, math.MaxInt64)
	for name, on := range map[string]machine{
		"no files":          {},
		"a cgroup only":     {"proc/self/cgroup": "0::/\n"},
		"nonsense":          {"proc/self/cgroup": "x\n\n:::\n", "proc/self/mountinfo": "a b c\n - \n1 2 3 4 5 - cgroup\n"},
		"a broken meminfo":  {"proc/meminfo": "MemAvailable: lots\n"},
		"a meminfo without": {"proc/meminfo": "MemFree: 3 kB\n"},
	} {
		s := pressure.MemoryIn(on.files(), noHeap, pressure.MemoryConfig{})
		if got, err := s.Read(); !errors.Is(err, pressure.ErrUnknown) {
			t.Errorf("%s: got %v, %v, want an error that wraps ErrUnknown", name, got, err)
		}
	}
}

// Limits change while the process runs, files vanish and come back, and the Go limit
// follows. It is taken back at the end.
func TestMemoryChangesWhileItRuns(t *testing.T) {
	setGoLimit(t, math.MaxInt64)
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range v2 {
		write(name, text)
	}
	const box = "sys/fs/cgroup/kube/pod/box/"
	synctest.Test(t, func(t *testing.T) {
		m := run(t, pressure.WithSignals(pressure.MemoryIn(os.DirFS(root), noHeap, pressure.MemoryConfig{})))
		// The test writes while the monitor sleeps, so a read finds a whole file.
		expect := func(when string, samples int, level pressure.Level, goLimit int64) {
			t.Helper()
			wait(samples)
			wantLevel(t, m, when, level)
			if got := debug.SetMemoryLimit(-1); got != goLimit {
				t.Errorf("%s: got a Go limit of %d, want %d", when, got, goLimit)
			}
		}
		expect("at the start", 1, pressure.Calm, 150*mib)
		write(box+"memory.max", fmt.Sprint(90*mib))
		expect("with a lower limit", 2, pressure.Elevated, 67.5*mib)
		write(box+"memory.current", "a while ago")
		expect("with a broken file", 2, pressure.Elevated, 67.5*mib)
		if err := m.Stats().Signals[0].Err; err == nil || !strings.Contains(err.Error(), `memory.current: got "a while ago", want a number`) {
			t.Errorf("got the error %v, want it to name the file", err)
		}
		if err := os.Remove(filepath.Join(root, box, "memory.current")); err != nil {
			t.Fatal(err)
		}
		expect("a second after a file has vanished", 12, pressure.Calm, 67.5*mib)
		write(box+"memory.current", fmt.Sprint(115*mib))
		expect("when it has come back", 2, pressure.Extreme, 67.5*mib)
		write(box+"memory.max", fmt.Sprint(400*mib))
		expect("with a higher limit", 2, pressure.Calm, 300*mib)
		debug.SetMemoryLimit(123 * mib)
		expect("when the program sets a limit", 2, pressure.Calm, 123*mib)
		m.Stop()
		if got := debug.SetMemoryLimit(-1); got != 123*mib {
			t.Errorf("after Stop: got a Go limit of %d, want the program's", got)
		}
		debug.SetMemoryLimit(math.MaxInt64)
		m.Start()
		expect("after another Start", 2, pressure.Calm, 300*mib)
		m.Stop()
		if got := debug.SetMemoryLimit(-1); got != math.MaxInt64 {
			t.Errorf("after Stop: got a Go limit of %d, want none", got)
		}
		if err := m.Update(pressure.WithSignals(pressure.MemoryIn(os.DirFS(root), noHeap, pressure.MemoryConfig{KeepGoLimit: true}))); err != nil {
			t.Fatal(err)
		}
		m.Start()
		expect("with KeepGoLimit", 2, pressure.Calm, math.MaxInt64)
	})
}

// Much garbage above the mark is collected, at most once a second.
func TestGarbageIsCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var before, after debug.GCStats
		on := v2.with(machine{"sys/fs/cgroup/kube/pod/box/memory.max": fmt.Sprint(100 * mib)})
		m := run(t, pressure.WithSignals(pressure.MemoryIn(on.files(), func() pressure.HeapIn {
			return pressure.HeapIn{Garbage: 50 * mib}
		}, pressure.MemoryConfig{KeepGoLimit: true})))
		wait(1)
		debug.ReadGCStats(&before)
		wait(50)
		debug.ReadGCStats(&after)
		if n := after.NumGC - before.NumGC; n < 4 || n > 7 {
			t.Errorf("got %d collections in 5 s, want about one a second", n)
		}
		wantLevel(t, m, "above 0.75 and below 0.85", pressure.Calm)
	})
}

// Near the end the collector runs also if nothing seems to be garbage, because memory that the
// program has let go of looks alive until it has run. Below it does not.
func TestMemoryThatLooksAliveIsChecked(t *testing.T) {
	for limit, want := range map[int][2]int64{100 * mib: {0, 1}, 92 * mib: {8, 12}} { // at 0.8 and 0.87
		synctest.Test(t, func(t *testing.T) {
			var before, after debug.GCStats
			on := v2.with(machine{"sys/fs/cgroup/kube/pod/box/memory.max": fmt.Sprint(limit)})
			run(t, pressure.WithSignals(pressure.MemoryIn(on.files(), noHeap, pressure.MemoryConfig{KeepGoLimit: true})))
			wait(1)
			debug.ReadGCStats(&before)
			wait(50)
			debug.ReadGCStats(&after)
			if n := after.NumGC - before.NumGC; n < want[0] || n > want[1] {
				t.Errorf("at %.2f: got %d collections in 5 s, want %d to %d", 80*mib/float64(limit), n, want[0], want[1])
			}
		})
	}
}

// While a long collection runs, the memory is still measured, and no other collection begins.
func TestMemoryIsMeasuredWhileItIsCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := v2.with(machine{"sys/fs/cgroup/kube/pod/box/memory.max": fmt.Sprint(85 * mib)}).files() // 0.94 is used
		var freed, now, most, all atomic.Int64
		m := run(t, pressure.WithSignals(pressure.CollectingIn(files, func() pressure.HeapIn {
			return pressure.HeapIn{Free: freed.Load()}
		}, func() {
			all.Add(1)
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(4 * time.Second)
			now.Add(-1)
		}, pressure.MemoryConfig{KeepGoLimit: true})))
		for range 30 {
			wait(1)
			wantLevel(t, m, "during the collection", pressure.High)
		}
		freed.Store(40 * mib)
		wait(2)
		wantLevel(t, m, "when the memory is free", pressure.Calm)
		freed.Store(0)
		wait(2)
		wantLevel(t, m, "when it is used again", pressure.High)
		wait(100)
		s := m.Stats().Signals[0]
		if s.Err != nil || s.Failures != 0 || math.Abs(s.Value-80.0/85) > 1e-9 {
			t.Errorf("got %v, %d failures and %v, want 0.94", s.Err, s.Failures, s.Value)
		}
		if most.Load() != 1 || all.Load() > 2 {
			t.Errorf("got %d collections, %d at a time, want at most one in 20 s", all.Load(), most.Load())
		}
		m.Stop()
		time.Sleep(5 * time.Second)
	})
}

// The signal of this process, on this machine, has a value.
func TestMemoryHere(t *testing.T) {
	got, err := pressure.Memory(pressure.MemoryConfig{}).Read()
	if errors.Is(err, pressure.ErrUnknown) {
		t.Skipf("NOT CHECKED: %v", err)
	}
	if err != nil || !(got > 0) {
		t.Errorf("got %v, %v, want more than 0", got, err)
	}
}
