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

// plan is the shortened one of each kind of trouble.
func plan(trouble string, weir bool) container.Plan {
	p := container.Plan{
		Config: container.Config{Weir: weir, Trouble: trouble, Memory: 256 << 20, From: 2 * time.Second, To: 8 * time.Second},
		Rate:   300, Size: 100, Deadline: time.Second, End: 11 * time.Second, Seed: 1,
	}
	if trouble == container.Dependency {
		p.Retries = 3
	}
	return p
}

// Without weir each kind of trouble ends in the process's death, with weir in none. It
// takes a minute of a quiet machine, so it runs where WEIR_CONTAINERS is set.
func TestTroubles(t *testing.T) {
	if os.Getenv("WEIR_CONTAINERS") == "" {
		t.Skip("NOT CHECKED: containers in trouble; set WEIR_CONTAINERS=1")
	}
	kernel := container.CanLimit()
	if kernel != nil {
		t.Logf("NOT CHECKED: the kernel's own OOM kill (%v); a watchdog stands for it", kernel)
	}
	for _, trouble := range []string{container.Dependency, container.Unread, container.Cache} {
		t.Run(trouble, func(t *testing.T) {
			results := map[bool]container.Result{}
			for _, weir := range []bool{false, true} {
				p := plan(trouble, weir)
				p.Kernel = kernel == nil
				r, err := container.Run(context.Background(), p, func(container.Sample) {})
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("weir %v: %v %v", weir, r, r.Levels)
				results[weir] = r
			}
			judge(t, results[false], results[true])
		})
	}
}

func judge(t *testing.T, bare, weir container.Result) {
	t.Helper()
	if bare.Died == 0 && bare.Late > 0.01 {
		t.Skipf("NOT CHECKED: the machine was too busy for trouble (%.1f %% of the calls began late)", 100*bare.Late)
	}
	if bare.Died == 0 || bare.Exit != 137 {
		t.Errorf("bare: got %v, want it to be killed (exit 137)", bare)
	}
	if weir.Died != 0 || weir.OOMKills != 0 {
		t.Errorf("weir: got %v, want it to live", weir)
	}
	if limit := int64(256 << 20 * 92 / 100); weir.Peak > limit {
		t.Errorf("weir: got a peak of %d MiB, want at most %d", weir.Peak>>20, limit>>20)
	}
	if weir.Late > 0.01 || weir.Before < 0.99 {
		t.Skipf("NOT CHECKED: goodput; the machine was too busy (%.1f %% of the calls began late, %.1f %% were served before)",
			100*weir.Late, 100*weir.Before)
	}
	if weir.Critical < 0.99 {
		t.Errorf("weir: got %.1f %% of critical calls served, want 99", 100*weir.Critical)
	}
	if weir.After < 0.95*weir.Before {
		t.Errorf("weir: got %.1f %% served a second after the trouble, want 95 %% of what it was before (%.1f %%)", 100*weir.After, 100*weir.Before)
	}
}
