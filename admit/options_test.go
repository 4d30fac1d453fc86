package admit_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
)

func TestWrongOptions(t *testing.T) {
	withQueue := func(q admit.QueueConfig) []admit.Option { return []admit.Option{admit.WithQueue(q)} }
	withLimit := func(n int) []admit.Option { return []admit.Option{admit.WithLimit(&law{initial: n})} }
	for name, tt := range map[string]struct {
		opts []admit.Option
		want string
	}{
		"no name":          {[]admit.Option{admit.WithName("")}, "name: got an empty one"},
		"no limit":         {[]admit.Option{admit.WithLimit(nil)}, "limit: got nil"},
		"limit 0":          {withLimit(0), "limit: got 0 from the algorithm, want 1 to 1048576"},
		"limit -1":         {withLimit(-1), "limit: got -1"},
		"limit MinInt":     {withLimit(math.MinInt), fmt.Sprint("limit: got ", math.MinInt)},
		"limit MaxInt":     {withLimit(math.MaxInt), fmt.Sprint("limit: got ", math.MaxInt)},
		"limit Max+1":      {withLimit(limit.Max + 1), "limit: got 1048577"},
		"capacity -1":      {withQueue(admit.QueueConfig{Capacity: -1}), "queue capacity: got -1, want 0 (automatic) to 1048576"},
		"capacity MinInt":  {withQueue(admit.QueueConfig{Capacity: math.MinInt}), fmt.Sprint("queue capacity: got ", math.MinInt)},
		"capacity MaxInt":  {withQueue(admit.QueueConfig{Capacity: math.MaxInt}), fmt.Sprint("queue capacity: got ", math.MaxInt)},
		"capacity 1<<20+1": {withQueue(admit.QueueConfig{Capacity: 1<<20 + 1}), "queue capacity: got 1048577"},
		"MaxWait -1":       {withQueue(admit.QueueConfig{MaxWait: -1}), "queue MaxWait: got -1ns, want 0 (default) or more"},
		"MaxWait MinInt64": {withQueue(admit.QueueConfig{MaxWait: math.MinInt64}), "queue MaxWait: got -2562047h47m16.854775808s"},
		"policy 2":         {withQueue(admit.QueueConfig{Policy: 2}), "queue policy: got 2, want Reject or Block"},
		"policy 255":       {withQueue(admit.QueueConfig{Policy: 255}), "queue policy: got 255"},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := func(what string, err error) {
				t.Helper()
				if !errors.Is(err, admit.ErrConfig) {
					t.Fatalf("%s: got error %v, want one that wraps ErrConfig", what, err)
				}
				if !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "admit: ") {
					t.Errorf("%s: got %q, want it to begin with admit and to say %q", what, err, tt.want)
				}
			}
			got, err := admit.New(tt.opts...)
			wrong("New", err)
			if got != nil {
				t.Errorf("New: got a gate with the error, want none")
			}
			g := newGate(t, 3, admit.WithName("name"))
			before := g.Stats()
			wrong("Update", g.Update(tt.opts...))
			if after := g.Stats(); after != before {
				t.Errorf("after Update: got %+v, want %+v as before", after, before)
			}
			wantWhole(t, g, 3)
		})
	}
}

func TestEveryWrongOptionIsNamedAtOnce(t *testing.T) {
	wrong := []admit.Option{
		admit.WithName(""),
		admit.WithLimit(&law{initial: -7}),
		admit.WithQueue(admit.QueueConfig{Capacity: -1, MaxWait: -time.Second, Policy: 9}),
	}
	_, errNew := admit.New(wrong...)
	for what, err := range map[string]error{"New": errNew, "Update": newGate(t, 1).Update(wrong...)} {
		for _, want := range []string{"name: got an empty", "limit: got -7", "capacity: got -1", "MaxWait: got -1s", "policy: got 9"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want it to say %q", what, err, want)
			}
		}
	}
}

func TestExtremesThatAreRight(t *testing.T) {
	for name, opt := range map[string]admit.Option{
		"limit 1":          admit.WithLimit(&law{initial: 1}),
		"limit Max":        admit.WithLimit(&law{initial: limit.Max}),
		"capacity 1":       admit.WithQueue(admit.QueueConfig{Capacity: 1}),
		"capacity 1<<20":   admit.WithQueue(admit.QueueConfig{Capacity: 1 << 20}),
		"MaxWait 1":        admit.WithQueue(admit.QueueConfig{MaxWait: 1}),
		"MaxWait MaxInt64": admit.WithQueue(admit.QueueConfig{MaxWait: math.MaxInt64}),
		"no hooks":         admit.WithHooks(admit.Hooks{}),
	} {
		g, err := admit.New(opt)
		if err != nil {
			t.Errorf("New with %s: got %v, want a gate", name, err)
			continue
		}
		update(t, g, opt)
		take(t, g).Release(admit.Ignored)
	}
}

// The last of several uses of an option counts, except for hooks, which add up.
func TestLastOptionCounts(t *testing.T) {
	g := newGate(t, 9,
		admit.WithName("a"), admit.WithName("b"),
		fixed(t, 2), fixed(t, 3),
		admit.WithoutQueue(), queue(4, admit.Reject),
		admit.WithDryRun(true), admit.WithDryRun(false))
	want := admit.Stats{Name: "b", Limit: 3, QueueCapacity: 4, MaxWait: time.Second, Classes: classNames}
	if got := g.Stats(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	update(t, g, queue(5, admit.Reject), admit.WithoutQueue())
	want.QueueCapacity, want.MaxWait = 0, 0
	if got := g.Stats(); got != want {
		t.Errorf("without a queue in the end: got %+v, want %+v", got, want)
	}
}

// Options can be used for several gates, and hooks of one do not appear in another.
func TestOptionsAreNotShared(t *testing.T) {
	var common, one record
	base := []admit.Option{admit.WithHooks(common.hooks()), admit.WithHooks(admit.Hooks{}), admit.WithoutQueue()}
	first, second := newGate(t, 1, base...), newGate(t, 1, base...)
	update(t, first, admit.WithHooks(one.hooks()))
	update(t, second, admit.WithHooks(admit.Hooks{}))
	for _, g := range []*admit.Gate{first, second} {
		p := take(t, g)
		refused(t, g, admit.Default, admit.QueueFull)
		p.Release(admit.Ignored)
	}
	const refusal = "default refused queue_full 0s"
	if got := one.take(); got != refusal {
		t.Errorf("hooks of the first gate: got %q, want %q", got, refusal)
	}
	if got, want := common.take(), refusal+"; "+refusal; got != want {
		t.Errorf("hooks of both: got %q, want %q", got, want)
	}
}

// A fixed limit takes one line and one error.
func TestWithFixedLimit(t *testing.T) {
	two := admit.WithFixedLimit(2)
	g, err := admit.New(two)
	if err != nil {
		t.Fatalf("New: got %v, want a gate", err)
	}
	permits := takeN(t, g, 2)
	if got := g.Limit(); got != 2 {
		t.Errorf("limit: got %d, want 2", got)
	}
	other, err := admit.New(two) // each use makes a limit of its own
	if err != nil {
		t.Errorf("New with the same option: got %v, want a gate", err)
	}
	update(t, g, admit.WithFixedLimit(1), admit.WithoutQueue())
	refused(t, g, admit.Default, admit.QueueFull)
	release(permits)
	wantWhole(t, g, 1)
	wantWhole(t, other, 2)
	for _, n := range []int{0, -1, limit.Max + 1, math.MinInt, math.MaxInt} {
		says := fmt.Sprintf("WithFixedLimit: got %d, want 1 to %d", n, limit.Max)
		_, err := admit.New(admit.WithFixedLimit(n))
		wantError(t, err, admit.ErrConfig, says)
		wantError(t, g.Update(admit.WithFixedLimit(n), two), admit.ErrConfig, says)
	}
	wantWhole(t, g, 1)
}
