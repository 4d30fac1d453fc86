package container_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/weir-go/weir/examples/internal/child"
	"github.com/weir-go/weir/examples/internal/container"
)

func TestMain(m *testing.M) {
	child.Main(container.Serve)
	os.Exit(m.Run())
}

const (
	mib     = 1 << 20
	smaller = 256 * mib
	larger  = 4096 * mib
)

// A mode says how the troubles run.
type mode struct {
	full  bool // both sizes of memory and three seeds
	short bool // less than 100 seconds, beside which a machine may have other work
}

func modeOf(t *testing.T) mode {
	t.Helper()
	switch m := os.Getenv("WEIR_CONTAINERS"); m {
	case "":
		t.Skip("NOT CHECKED: containers in trouble; set WEIR_CONTAINERS=1, short or full")
	case "1", "full", "short":
		return mode{full: m == "full", short: m == "short"}
	default:
		t.Fatalf("WEIR_CONTAINERS: got %q, want 1, short or full", m)
	}
	return mode{}
}

// busy reports whether the machine was too busy to judge a run, and says so aloud.
func (m mode) busy(t *testing.T, r container.Result, what string) bool {
	t.Helper()
	if !r.Busy() && (!m.short || r.Others < 0.2) {
		return false
	}
	t.Logf("NOT CHECKED: %s in %s; the machine was too busy (%.1f %% of the calls began late, %.1f %% were served before, "+
		"others took %.0f %% of the processors)", what, t.Name(), 100*r.Late, 100*r.Before, 100*r.Others)
	return true
}

// kernel reports whether this process may use memory cgroups.
func kernel(t *testing.T) bool {
	t.Helper()
	if err := container.CanLimit(); err != nil {
		t.Logf("NOT CHECKED: the kernel's OOM killer (%v); a limit of the data segment stands for it", err)
		return false
	}
	return true
}

func run(t *testing.T, p container.Plan) container.Result {
	t.Helper()
	if modeOf(t).short {
		p = p.Shortened()
	}
	r, err := container.Run(context.Background(), p, func(container.Sample) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s, %d MiB, seed %d, weir %v: %v %v; others took %.0f %% of the processors",
		p.Trouble, p.Memory/mib, p.Seed, p.Weir, r, r.Levels, 100*r.Others)
	return r
}

// each calls f for each size of memory and seed that the mode has.
func each(t *testing.T, f func(t *testing.T, memory int64, seed uint64)) {
	t.Helper()
	if !modeOf(t).full {
		f(t, smaller, 1)
		return
	}
	for _, memory := range []int64{smaller, larger} {
		if memory == larger && container.Available() < 2*larger {
			t.Logf("NOT CHECKED: 4 GiB; %d MiB are free", container.Available()/mib)
			continue
		}
		for seed := range uint64(3) {
			f(t, memory, seed+1)
		}
	}
}

// length returns how long a trouble lasts. With more memory a bare server takes longer to die.
func length(trouble string, memory int64) time.Duration {
	switch {
	case memory == larger && (trouble == container.Uneven || trouble == container.Streams):
		return time.Minute
	case memory == larger:
		return 40 * time.Second
	case trouble == container.Uneven:
		return 12 * time.Second
	}
	return 6 * time.Second
}

// Without weir each kind of trouble ends in the process's death, with weir in none. It takes a
// quiet machine, so it runs where WEIR_CONTAINERS is set.
func TestTroubles(t *testing.T) {
	m := modeOf(t)
	cgroup := kernel(t)
	for _, trouble := range container.Troubles() {
		t.Run(trouble, func(t *testing.T) {
			each(t, func(t *testing.T, memory int64, seed uint64) {
				p := container.PlanFor(trouble, false, memory, length(trouble, memory), seed)
				p.Kernel = cgroup
				bare := run(t, p)
				dies(t, bare, cgroup)
				if m.short {
					if bare.Died == 0 {
						return
					}
					// About twice as long as the bare server has lived.
					lasts := min(2*time.Second+2*(bare.Died-p.From), 8*time.Second)
					p = container.PlanFor(trouble, true, memory, lasts, seed)
				}
				p.Kernel, p.Weir = cgroup, true
				most := memory / 100 * 92
				if !cgroup {
					most = memory // the data segment has addresses that are not in use
				}
				r := run(t, p)
				if m.short && r.Died == 0 && (r.Peak > most || r.After < enough*r.Before) {
					t.Logf("AGAIN: got a peak of %d MiB, and %.1f %% served a second after the trouble; "+
						"a machine that stands still for a moment looks the same", r.Peak/mib, 100*r.After)
					r = run(t, p)
				}
				lives(t, r, most)
			})
		})
	}
}

// enough is the part of the goodput before a trouble that a server must have a second after it.
const enough = 0.95

// dies checks the fate of a bare server.
func dies(t *testing.T, r container.Result, cgroup bool) {
	t.Helper()
	exit := 2 // of a Go program that gets no more memory
	if cgroup {
		exit = 137
	}
	switch {
	case r.Died == 0 && modeOf(t).busy(t, r, "the death of a bare server"):
	case r.Died == 0 || r.Exit != exit || cgroup && r.OOMKills == 0:
		t.Errorf("bare: got %v, want exit %d", r, exit)
	}
}

// lives checks the fate of a server with weir, which takes at most so much memory.
func lives(t *testing.T, r container.Result, most int64) {
	t.Helper()
	if r.Died != 0 || r.OOMKills != 0 {
		t.Errorf("weir: got %v, want it to live", r)
	}
	m := modeOf(t)
	if r.Peak > most && (!m.short || !m.busy(t, r, "the peak")) {
		t.Errorf("weir: got a peak of %d MiB, want at most %d", r.Peak/mib, most/mib)
	}
	if m.busy(t, r, "goodput") {
		return
	}
	if r.Critical < 0.99 {
		t.Errorf("weir: got %.1f %% of critical calls served, want 99", 100*r.Critical)
	}
	if r.After < enough*r.Before {
		t.Errorf("weir: got %.1f %% served a second after the trouble, want 95 %% of before (%.1f %%)", 100*r.After, 100*r.Before)
	}
}

// On a healthy day with the memory at 60 % nothing is refused.
func TestHealthyDay(t *testing.T) {
	m := modeOf(t)
	cgroup := kernel(t)
	each(t, func(t *testing.T, memory int64, seed uint64) {
		length := 6 * time.Second
		if m.short {
			length /= 2
		}
		p := container.PlanFor(container.Healthy, true, memory, length, seed)
		p.Kernel = cgroup
		r := run(t, p)
		if r.Died != 0 || r.Peak < memory/100*55 {
			t.Fatalf("got %v, want a server at 60 %% of its memory", r)
		}
		if r.Refused > 0 && !m.busy(t, r, "refusals") {
			t.Errorf("got %d of %d calls refused, want none", r.Refused, r.Calls)
		}
	})
}

// With a GOMEMLIMIT of 85 % and a heap that climbs to it, the collector takes all it can get.
// With weir four fifths of the goodput are left.
func TestSpiral(t *testing.T) {
	m := modeOf(t)
	cgroup := kernel(t)
	each(t, func(t *testing.T, memory int64, seed uint64) {
		length := length(container.Spiral, memory)
		switch {
		case m.short:
			length = 8 * time.Second
		case memory == smaller:
			length = 10 * time.Second
		}
		p := container.PlanFor(container.Spiral, false, memory, length, seed)
		p.Kernel = cgroup
		if !m.short {
			run(t, p) // for comparison
		}
		p.Weir = true
		r := run(t, p)
		if r.Died != 0 {
			t.Errorf("weir: got %v, want it to live", r)
		}
		if !m.busy(t, r, "goodput") && r.During < 0.8*r.Before {
			t.Errorf("weir: got %.1f %% served in the spiral, want 80 %% of before (%.1f %%)", 100*r.During, 100*r.Before)
		}
	})
}
