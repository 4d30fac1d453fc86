package pressure

import (
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// A cgroup is the process's control group for one controller.
type cgroup struct {
	dir string // of the group, without a leading slash, as fs.FS has it
	top string // mount point of the hierarchy; the parents of dir up to here are visible
	v2  bool
}

// findCgroup returns the group of the process for a controller. A hierarchy of v1 with the
// controller comes before that of v2.
func findCgroup(files fs.FS, controller string) (cgroup, error) {
	groups, err := fs.ReadFile(files, "proc/self/cgroup")
	if err != nil {
		return cgroup{}, err
	}
	mounts, err := fs.ReadFile(files, "proc/self/mountinfo")
	if err != nil {
		return cgroup{}, err
	}
	v1, v2, hasV1, hasV2 := memberships(string(groups), controller)
	var unified *cgroup
	for line := range strings.Lines(string(mounts)) {
		m, ok := parseMount(line)
		switch {
		case !ok:
		case m.kind == "cgroup" && hasV1 && m.has(controller):
			return m.group(files, v1, false), nil
		case m.kind == "cgroup2" && hasV2 && unified == nil:
			g := m.group(files, v2, true)
			unified = &g
		}
	}
	if unified == nil {
		return cgroup{}, fmt.Errorf("%w: no cgroup with the controller %s", ErrUnknown, controller)
	}
	return *unified, nil
}

// memberships reads the lines "id:controllers:path" of /proc/self/cgroup. The line of v2 has
// the id 0 and no controllers.
func memberships(text, controller string) (v1, v2 string, hasV1, hasV2 bool) {
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		if parts[0] == "0" && parts[1] == "" {
			v2, hasV2 = parts[2], true
			continue
		}
		for name := range strings.SplitSeq(parts[1], ",") {
			if name == controller {
				v1, hasV1 = parts[2], true
			}
		}
	}
	return v1, v2, hasV1, hasV2
}

// A mount is a line of /proc/self/mountinfo, as proc_pid_mountinfo(5) describes it.
type mount struct{ root, point, kind, options string }

func parseMount(line string) (mount, bool) {
	before, after, found := strings.Cut(line, " - ")
	fields, rest := strings.Fields(before), strings.Fields(after)
	if !found || len(fields) < 5 || len(rest) < 3 {
		return mount{}, false
	}
	return mount{root: unescape(fields[3]), point: unescape(fields[4]), kind: rest[0], options: rest[2]}, true
}

// unescape decodes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func (m mount) has(controller string) bool {
	for name := range strings.SplitSeq(m.options, ",") {
		if name == controller {
			return true
		}
	}
	return false
}

// group returns the group of a path in the hierarchy. In a container the path may exist only
// on the host. Then the mount point is the group.
func (m mount) group(files fs.FS, name string, v2 bool) cgroup {
	top := strings.TrimPrefix(path.Clean(m.point), "/")
	g := cgroup{dir: top, top: top, v2: v2}
	below, ok := strings.CutPrefix(name, strings.TrimSuffix(m.root, "/"))
	if !ok || below != "" && below[0] != '/' || strings.Contains(below, "..") {
		return g
	}
	dir := path.Join(top, below)
	if info, err := fs.Stat(files, dir); err == nil && info.IsDir() {
		g.dir = dir
	}
	return g
}

// memoryLimit returns the lowest limit from the group up to the root, 0 if there is none. A
// container does not see its parents, but v1 tells the lowest limit of all of them.
func (g cgroup) memoryLimit(files fs.FS) (lowest int64) {
	take := func(n int64, err error) {
		if err == nil && n > 0 && n < unlimited && (lowest == 0 || n < lowest) {
			lowest = n
		}
	}
	names := []string{"memory.max", "memory.high"}
	if !g.v2 {
		names = []string{"memory.limit_in_bytes"}
		take(readStat(files, path.Join(g.dir, "memory.stat"), "hierarchical_memory_limit"))
	}
	for dir := g.dir; ; dir = path.Dir(dir) {
		for _, name := range names {
			take(readNumber(files, path.Join(dir, name)))
		}
		if dir == g.top || dir == "." {
			return lowest
		}
	}
}

// unlimited is less than the number that v1 has for no limit, and more than any machine has.
const unlimited = math.MaxInt64 / 4

// memoryUsage returns the memory that the kernel charges to the group, without the file cache
// that it can drop at once.
func (g cgroup) memoryUsage(files fs.FS) (int64, error) {
	usage, cache := "memory.usage_in_bytes", "total_inactive_file"
	if g.v2 {
		usage, cache = "memory.current", "inactive_file"
	}
	used, err := readNumber(files, path.Join(g.dir, usage))
	if err != nil {
		return 0, err
	}
	inactive, err := readStat(files, path.Join(g.dir, "memory.stat"), cache)
	if err != nil {
		return 0, err
	}
	return max(used-inactive, 0), nil
}

// throttled returns the seconds for which the quota of the group was used up, summed over the
// processors.
func (g cgroup) throttled(files fs.FS) (float64, error) {
	name, unit := "throttled_time", 1e-9
	if g.v2 {
		name, unit = "throttled_usec", 1e-6
	}
	n, err := readStat(files, path.Join(g.dir, "cpu.stat"), name)
	return float64(n) * unit, err
}

// readNumber reads a file that holds one number, or "max" for no limit.
func readNumber(files fs.FS, name string) (int64, error) {
	data, err := fs.ReadFile(files, name)
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(data))
	if text == "max" {
		return math.MaxInt64, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s: got %.40q, want a number", name, text)
	}
	return n, nil
}

// readStat reads the value of a key from a file such as memory.stat or meminfo.
func readStat(files fs.FS, name, key string) (int64, error) {
	data, err := fs.ReadFile(files, name)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.TrimSuffix(fields[0], ":") != key {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("%s: %s: got %.40q, want a number", name, key, fields[1])
		}
		if len(fields) > 2 && fields[2] == "kB" {
			n <<= 10
		}
		return n, nil
	}
	return 0, fmt.Errorf("%s: got no %s, want a line with it", name, key)
}
