package admit_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
)

// A strain is a pressure that is set by hand.
type strain struct {
	level  atomic.Uint32
	signal string
}

func (s *strain) Pressure() (level uint8, signal string) { return uint8(s.level.Load()), s.signal }

// admitted reports which of the first four classes a gate lets run, in a row.
func admitted(t *testing.T, g *admit.Gate) (which [4]bool) {
	t.Helper()
	for c := range which {
		call := admit.Call{Class: admit.Class(c)}
		p, err := g.Acquire(t.Context(), call)
		if which[c] = err == nil; err == nil {
			p.Release(admit.Success)
		}
		if _, away := gateFuncs.TurnAway(context.Background(), g, call); away == which[c] {
			t.Errorf("class %v: TurnAway: got %v, want the contrary of Acquire (%v)", admit.Class(c), away, which[c])
		}
	}
	return which
}

// Each level refuses the classes below its own.
func TestPressureRefusesByClass(t *testing.T) {
	s := &strain{signal: "memory"}
	g := newGate(t, 9, admit.WithPressure(s))
	for level, want := range [][4]bool{
		{admit.Default: true, admit.Critical: true, admit.Sheddable: true, admit.Background: true},
		{admit.Default: true, admit.Critical: true},
		{admit.Critical: true},
		{},
		{},
	} {
		s.level.Store(uint32(level))
		if got := admitted(t, g); got != want {
			t.Errorf("level %d: got %v, want %v (default, critical, sheddable, background)", level, got, want)
		}
		if got, want := gateFuncs.Full(g), level > 0; got != want {
			t.Errorf("level %d: got Full %v, want %v", level, got, want)
		}
	}
	s.level.Store(0)
	if got := admitted(t, g); got != ([4]bool{true, true, true, true}) {
		t.Errorf("when it is over: got %v, want all", got)
	}
	if s := g.Stats(); s.InFlight != 0 || s.Refused[admit.Critical][admit.MemoryPressure] != 4 || s.Refused[admit.Background][admit.MemoryPressure] != 8 {
		t.Errorf("got %d in flight and %v refused, want 0, and each refusal counted once", s.InFlight, s.Refused)
	}
}

// The reason says what is scarce, and the delay is not that of the queue.
func TestPressureReasons(t *testing.T) {
	calm, bytes, pool := &strain{signal: "memory"}, &strain{signal: "bytes"}, &strain{signal: "pool"}
	bytes.level.Store(2)
	pool.level.Store(1)
	_, err := newGate(t, 9, admit.WithPressure(calm, pool, bytes)).Acquire(t.Context(), admit.Call{})
	isRefusal(t, err, admit.MemoryPressure) // the worst of several
	for signal, want := range map[string]admit.Reason{
		"memory": admit.MemoryPressure, "gc": admit.GCPressure, "processors": admit.ProcessorPressure, "pool": admit.UnderPressure, "": admit.UnderPressure,
	} {
		s := &strain{signal: signal}
		s.level.Store(3)
		g := newGate(t, 9, admit.WithPressure(s), admit.WithMaxRetryAfter(10*time.Second))
		_, err := g.Acquire(t.Context(), admit.Call{})
		if r := isRefusal(t, err, want); r.RetryAfter < 3*time.Second || r.RetryAfter > 10*time.Second {
			t.Errorf("%s: got a delay of %v, want 3 to 10 s", signal, r.RetryAfter)
		}
	}
}

// Classes of one's own are refused by their priority.
func TestPressureAndPriorities(t *testing.T) {
	s := &strain{}
	g := newGate(t, 9, admit.WithPressure(s),
		admit.WithClassConfig(4, admit.ClassConfig{Name: "reports", Priority: 299}),
		admit.WithClassConfig(5, admit.ClassConfig{Name: "orders", Priority: 350}),
		admit.WithClassConfig(6, admit.ClassConfig{Name: "money", Priority: 900}))
	for class, refusedAt := range map[admit.Class]uint32{4: 1, 5: 2, 6: 3, 7: 1} { // nobody knows 7: it counts as Background
		for level := range uint32(4) {
			s.level.Store(level)
			p, err := g.Acquire(t.Context(), admit.Call{Class: class})
			if got, want := err != nil, level >= refusedAt; got != want {
				t.Errorf("class %d at level %d: got refused %v, want %v", class, level, got, want)
			}
			if err == nil {
				p.Release(admit.Success)
			}
		}
	}
}

// A call that waits is refused when its turn comes, and the next one runs.
func TestPressureRefusesWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &strain{signal: "memory"}
		g := newGate(t, 1, admit.WithPressure(s), admit.WithQueue(admit.QueueConfig{MaxWait: time.Minute}))
		p, err := g.Acquire(t.Context(), admit.Call{})
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 2)
		for _, class := range []admit.Class{admit.Default, admit.Critical} {
			go func() {
				p, err := g.Acquire(context.Background(), admit.Call{Class: class})
				if err == nil {
					p.Release(admit.Success)
				}
				if (class == admit.Critical) != (err == nil) {
					t.Errorf("%v: got %v, want only the critical call to run", class, err)
				}
				got <- err
			}()
		}
		synctest.Wait()
		s.level.Store(2)
		p.Release(admit.Success)
		<-got
		<-got
		if s := g.Stats(); s.InFlight != 0 || s.Queue != 0 || s.Refused[admit.Default][admit.MemoryPressure] != 1 {
			t.Errorf("got %d in flight, %d waiting, refused %v, want 0, 0 and one default call", s.InFlight, s.Queue, s.Refused)
		}
	})
}

// A dry run counts, tells hooks, and refuses nothing.
func TestPressureInADryRun(t *testing.T) {
	s := &strain{signal: "gc"}
	s.level.Store(3)
	told := 0
	g := newGate(t, 9, admit.WithPressure(s), admit.WithDryRun(true),
		admit.WithQuotas(admit.QuotaConfig{Tenant: admit.Rate{PerSecond: 1}}),
		admit.WithHooks(admit.Hooks{Refused: func(_ context.Context, _ admit.Call, why admit.Reason, _ time.Duration) {
			if why == admit.GCPressure {
				told++
			}
		}}))
	p, err := g.Acquire(t.Context(), admit.Call{})
	if err != nil {
		t.Fatal(err)
	}
	p.Release(admit.Success)
	if _, away := gateFuncs.TurnAway(context.Background(), g, admit.Call{}); away || gateFuncs.Full(g) {
		t.Errorf("got turned away %v, full %v, want neither in a dry run", away, gateFuncs.Full(g))
	}
	if s := g.Stats(); s.Refused[admit.Default][admit.GCPressure] != 1 || told != 1 || s.InFlight != 0 {
		t.Errorf("got %d refusals, hooks told %d times, %d in flight, want 1, 1 and 0", s.Refused[admit.Default][admit.GCPressure], told, s.InFlight)
	}
	update(t, g, admit.WithDryRun(false))
	_, err = g.Acquire(t.Context(), admit.Call{})
	isRefusal(t, err, admit.GCPressure)
}

// A gate that drains says so: another server may take the call at once.
func TestDrainingComesBeforePressure(t *testing.T) {
	s := &strain{signal: "memory"}
	s.level.Store(3)
	g := newGate(t, 9, admit.WithPressure(s))
	g.Drain()
	_, err := g.Acquire(t.Context(), admit.Call{})
	isRefusal(t, err, admit.Draining)
	if why, away := gateFuncs.TurnAway(context.Background(), g, admit.Call{}); !away || why != admit.Draining {
		t.Errorf("TurnAway: got %v, %v, want draining", why, away)
	}
}

// A call that is refused for pressure does not use up a quota.
func TestPressureTakesNoQuota(t *testing.T) {
	s := &strain{signal: "memory"}
	g := newGate(t, 9, admit.WithPressure(s), admit.WithQuotas(admit.QuotaConfig{Tenant: admit.Rate{PerSecond: 0.001, Burst: 1}}))
	s.level.Store(3)
	for range 5 {
		_, err := g.Acquire(t.Context(), admit.Call{Tenant: "a"})
		isRefusal(t, err, admit.MemoryPressure)
	}
	s.level.Store(0)
	passes(t, g, admit.Call{Tenant: "a"})
}

type wild struct{}

func (wild) Pressure() (level uint8, signal string) { panic("wild") }

// A pressure that panics refuses nothing; nil takes it away, while calls run.
func TestPressureOfOthers(t *testing.T) {
	g := newGate(t, 9, admit.WithPressure(wild{}))
	passes(t, g, admit.Call{})
	if s := g.Stats(); s.Panics == 0 {
		t.Error("got no panic counted, want some")
	}
	s := &strain{}
	s.level.Store(200)
	update(t, g, admit.WithPressure(s))
	_, err := g.Acquire(t.Context(), admit.Call{Class: admit.Critical})
	isRefusal(t, err, admit.UnderPressure)
	update(t, g, admit.WithPressure())
	passes(t, g, admit.Call{})
	wantError(t, g.Update(admit.WithPressure(s, nil)), admit.ErrConfig, "pressure 1: got nil, want one")
	passes(t, g, admit.Call{})
	var none *strain
	update(t, g, admit.WithPressure(none))
	passes(t, g, admit.Call{})
}

// What pressure costs each call: none, calm, and refused.
func BenchmarkPressure(b *testing.B) {
	s := &strain{signal: "memory"}
	for _, c := range []struct {
		name  string
		level uint32
		opts  []admit.Option
	}{
		{"none", 0, nil},
		{"calm", 0, []admit.Option{admit.WithPressure(s)}},
		{"refused", 3, []admit.Option{admit.WithPressure(s)}},
	} {
		b.Run(c.name, func(b *testing.B) {
			s.level.Store(c.level)
			g, err := admit.New(append(c.opts, fixed(b, 1000))...)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if p, err := g.Acquire(context.Background(), admit.Call{}); err == nil {
					p.Release(admit.Ignored)
				}
			}
		})
	}
}
