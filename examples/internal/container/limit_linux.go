package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// variable is where package child has the configuration of a child.
const variable = "WEIR_EXAMPLE_CHILD"

// enter enters the cgroup of a configuration or limits the data segment, and begins anew, so
// that all the memory of the process is counted.
func enter(c *Config) error {
	if os.Getenv("WEIR_EXAMPLE_ENTERED") != "" {
		return nil
	}
	if err := c.bound(); err != nil {
		return err
	}
	data, err := json.Marshal(c) //nolint:musttag // package child reads it by the same names
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	env := append(os.Environ(), variable+"="+string(data), "WEIR_EXAMPLE_ENTERED=1")
	return syscall.Exec(self, os.Args, env)
}

func (c *Config) bound() error {
	if c.Cgroup == "" {
		// Go prints every goroutine when it gets no more memory, and exits with status 2.
		if null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0); err == nil {
			if err := syscall.Dup3(int(null.Fd()), 2, 0); err != nil {
				return err
			}
		}
		return syscall.Setrlimit(syscall.RLIMIT_DATA, &syscall.Rlimit{Cur: uint64(c.Memory), Max: uint64(c.Memory)})
	}
	return os.WriteFile(filepath.Join(c.Cgroup, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o600)
}

// A group is a memory cgroup.
type group struct {
	dir  string
	peak string // the name of the file
	oom  func() int
}

const (
	v1Root = "/sys/fs/cgroup/memory"
	v2Root = "/sys/fs/cgroup"
)

// newGroup makes a cgroup with so much memory, swap included. It returns an error where
// the process may not.
func newGroup(memory int64) (*group, error) {
	name := fmt.Sprintf("weir-%d-%d", os.Getpid(), time.Now().UnixNano())
	g := &group{dir: filepath.Join(v1Root, name), peak: "memory.max_usage_in_bytes"}
	files := [][2]string{{"memory.limit_in_bytes", fmt.Sprint(memory)}, {"?memory.memsw.limit_in_bytes", fmt.Sprint(memory)}}
	events := "memory.oom_control"
	if _, err := os.Stat(filepath.Join(v1Root, "memory.limit_in_bytes")); err != nil {
		g = &group{dir: filepath.Join(v2Root, name), peak: "memory.peak"}
		files = [][2]string{{"memory.max", fmt.Sprint(memory)}, {"?memory.swap.max", "0"}}
		events = "memory.events"
	}
	g.oom = func() int {
		data, err := os.ReadFile(filepath.Join(g.dir, events))
		if err != nil {
			return 0
		}
		for line := range strings.Lines(string(data)) {
			if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
				kills, _ := strconv.Atoi(n)
				return kills
			}
		}
		return 0
	}
	if err := os.Mkdir(g.dir, 0o700); err != nil {
		return nil, err
	}
	for _, f := range files {
		name, optional := strings.CutPrefix(f[0], "?")
		if err := os.WriteFile(filepath.Join(g.dir, name), []byte(f[1]), 0o600); err != nil && !optional {
			return nil, errors.Join(err, os.Remove(g.dir))
		}
	}
	return g, nil
}

func (g *group) peakBytes() int64 {
	data, err := os.ReadFile(filepath.Join(g.dir, g.peak))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(string(bytes.TrimSpace(data)), 10, 64)
	return n
}

// remove removes the cgroup once its processes are gone.
func (g *group) remove() error {
	for range 50 {
		if err := os.Remove(g.dir); err == nil || !errors.Is(err, syscall.EBUSY) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return os.Remove(g.dir)
}

// dataSegment returns the size of the data segment of a process, which RLIMIT_DATA limits.
func dataSegment(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmData:"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("status: got no VmData, want a line with it")
}

// resident returns the memory of a process.
func resident(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0, fmt.Errorf("statm: got %q, want numbers", data)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// Available returns the memory that this machine could give to a process, in bytes.
func Available() int64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}
