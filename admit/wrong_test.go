package admit_test

import (
	"context"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
)

// panicky is a limit whose Limit panics.
type panicky struct{ _ int }

func (panicky) Limit() int              { panic("no limit today") }
func (panicky) Update(limit.Window) int { return 1 }

func TestWrongAlgorithms(t *testing.T) {
	for says, a := range map[string]limit.Algorithm{
		"limit: got nil, want an algorithm":                          nil,
		"limit: got a nil *limit.Fixed, want one from its":           (*limit.Fixed)(nil),
		"limit: got a nil *limit.Adaptive":                           (*limit.Adaptive)(nil),
		"limit: got a nil *limit.AIMD":                               (*limit.AIMD)(nil),
		"limit: got a nil *limit.Vegas":                              (*limit.Vegas)(nil),
		"limit: got a nil *limit.Gradient":                           (*limit.Gradient)(nil),
		"want 1 to 1048576: a *limit.Fixed has to be made":           &limit.Fixed{},
		"want 1 to 1048576: a *limit.Adaptive has":                   &limit.Adaptive{},
		"want 1 to 1048576: a *limit.AIMD has":                       &limit.AIMD{},
		"want 1 to 1048576: a *limit.Vegas has":                      &limit.Vegas{},
		"want 1 to 1048576: a *limit.Gradient has":                   &limit.Gradient{},
		"limit: got a panic from the Limit of a *admit_test.panicky": &panicky{},
		"(no limit today)":                                           panicky{},
	} {
		_, err := admit.New(admit.WithLimit(a))
		wantError(t, err, admit.ErrConfig, says)
		g := newGate(t, 3)
		wantError(t, g.Update(admit.WithLimit(a)), admit.ErrConfig, says)
		wantWhole(t, g, 3)
	}
}

// Two gates with one algorithm would each teach it what the other must not learn.
func TestAnAlgorithmBelongsToOneGate(t *testing.T) {
	adaptive := func() limit.Algorithm {
		a, err := limit.NewAdaptive(limit.AdaptiveConfig{})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a, b := adaptive(), adaptive()
	first, err := admit.New(admit.WithName("first"), admit.WithLimit(a))
	if err != nil {
		t.Fatal(err)
	}
	_, err = admit.New(admit.WithLimit(a), admit.WithName(""))
	wantError(t, err, admit.ErrConfig, `limit: got the algorithm of another gate ("first"), want one of its own`)
	wantError(t, err, admit.ErrConfig, "name: got an empty one")
	second := newGate(t, 1)
	wantError(t, second.Update(admit.WithLimit(a)), admit.ErrConfig, `another gate ("first")`)
	update(t, first, admit.WithLimit(a)) // its own
	update(t, first, admit.WithLimit(b))
	update(t, second, admit.WithLimit(a)) // it is free now
	wantError(t, first.Update(admit.WithLimit(a)), admit.ErrConfig, `another gate ("default")`)
	if _, err := admit.New(admit.WithLimit(adaptive()), admit.WithName("")); err == nil {
		t.Error("no name: got no error, want one")
	}
	runtime.KeepAlive(first)

	// One that a New with an error did not take is nobody's, nor is that of a gate that is gone.
	c := adaptive()
	if _, err := admit.New(admit.WithLimit(c), admit.WithName("")); err == nil {
		t.Error("no name: got no error, want one")
	}
	newGate(t, 1, admit.WithLimit(c))
	for i := 0; ; i++ {
		runtime.GC()
		if _, err = admit.New(admit.WithLimit(c)); err == nil {
			break
		} else if i == 100 {
			t.Fatalf("the algorithm of a gate that is gone: got %v, want it free", err)
		}
	}

	// Values without a state may be in many.
	for range 2 {
		newGate(t, 1, admit.WithLimit(stateless{}))
		newGate(t, 1, admit.WithLimit(&stateless{}))
	}
}

type stateless struct{}

func (stateless) Limit() int              { return 1 }
func (stateless) Update(limit.Window) int { return 1 }

func TestNilOptions(t *testing.T) {
	_, err := admit.New(nil, admit.WithName(""), nil)
	for _, says := range []string{"option 0: got nil", "option 2: got nil", "name: got an empty one"} {
		wantError(t, err, admit.ErrConfig, says)
	}
	g := newGate(t, 1)
	wantError(t, g.Update(nil), admit.ErrConfig, "option 0: got nil")
	update(t, g)
}

// A Gate that New did not make refuses with an error, and panics nowhere.
func TestZeroGate(t *testing.T) {
	g := &admit.Gate{}
	for _, c := range []admit.Call{{}, {Tenant: "a"}, {Class: 200, Cost: math.MaxInt}} {
		p, err := g.Acquire(context.Background(), c)
		if err == nil || !strings.Contains(err.Error(), "got a zero Gate, want one from New") {
			t.Errorf("Acquire: got %v, want an error that says what it is", err)
		}
		p.Release(admit.Success)
		_, _ = gateFuncs.TurnAway(context.Background(), g, c)
	}
	if err := g.Update(admit.WithDryRun(true)); err == nil {
		t.Error("Update: got no error, want one")
	}
	_ = g.Update(admit.WithName("name"), fixed(t, 1))
	g.Drain()
	_, _ = gateFuncs.Full(g), g.Limit()
	_, _ = g.Name(), gateFuncs.Higher(g, admit.Critical, 77)
	_, _ = gateFuncs.Urgent(g)
	_, _ = gateFuncs.Lower(g, 1, 2), gateFuncs.Below(g, 3)
	if s := g.Stats(); s.Limit != 0 || s.InFlight != 0 {
		t.Errorf("got %+v, want nothing", s)
	}
	if p, err := g.Acquire(context.Background(), admit.Call{}); err == nil {
		p.Release(admit.Success)
		t.Error("Acquire in the end: got no error, want one")
	}
}

func TestRoom(t *testing.T) {
	for want, opts := range map[int][]admit.Option{
		7 + 32:  nil,
		7:       {admit.WithoutQueue()},
		7 + 3:   {places(3)},
		90 + 90: {fixed(t, 90)},
		300:     {admit.WithMaxOpen(300)},
	} {
		if got := gateFuncs.Room(newGate(t, 7, opts...)); got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
	if gateFuncs.Adapts(newGate(t, 7)) {
		t.Error("a fixed limit adapts: got true, want false")
	}
	if g, err := admit.New(); err != nil || !gateFuncs.Adapts(g) {
		t.Errorf("the default gate adapts: got false (%v), want true", err)
	}
}

// Every number of every configuration: what is not right is an error, not a panic, and
// what is taken works.
func TestNoConfigurationPanics(t *testing.T) {
	ints := []int{0, 1, -1, math.MinInt, math.MaxInt, limit.Max, limit.Max + 1}
	floats := []float64{0, 1, -1, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, math.SmallestNonzeroFloat64, 0.5}
	durations := []time.Duration{0, 1, -1, math.MinInt64, math.MaxInt64, time.Second}
	try := func(opts ...admit.Option) {
		t.Helper()
		g, err := admit.New(opts...)
		if err != nil {
			if !strings.Contains(err.Error(), "got") || !strings.Contains(err.Error(), "want") {
				t.Errorf("got %v, want it to say what it got and wants", err)
			}
			return
		}
		p, err := g.Acquire(t.Context(), admit.Call{Tenant: "a", Class: 5, Cost: math.MaxInt})
		if err == nil {
			p.Release(admit.Success)
		}
	}
	algorithm := func(a limit.Algorithm, err error) {
		t.Helper()
		if err == nil {
			a.Update(limit.Window{})
			try(admit.WithLimit(a))
		} else if !strings.HasPrefix(err.Error(), "limit: ") {
			t.Errorf("got %v, want it to begin with limit", err)
		}
	}
	for _, n := range ints {
		algorithm(asAlgorithm(limit.NewFixed(n)))
		for _, m := range ints {
			algorithm(asAlgorithm(limit.NewAdaptive(limit.AdaptiveConfig{Initial: n, Min: m})))
			algorithm(asAlgorithm(limit.NewAIMD(limit.AIMDConfig{Min: n, Max: m})))
			algorithm(asAlgorithm(limit.NewVegas(limit.VegasConfig{Max: n, ProbeWindows: m})))
			algorithm(asAlgorithm(limit.NewGradient(limit.GradientConfig{Initial: n, LongWindows: m})))
			try(admit.WithQuotas(admit.QuotaConfig{Tenant: admit.Rate{PerSecond: 1, Burst: n}, MaxTenants: m}))
		}
		try(admit.WithClassConfig(4, admit.ClassConfig{Name: "four", Priority: n}))
		for _, d := range durations {
			try(admit.WithQueue(admit.QueueConfig{Capacity: n, MaxWait: d}))
		}
	}
	for _, f := range floats {
		for _, h := range floats {
			algorithm(asAlgorithm(limit.NewVegas(limit.VegasConfig{Alpha: f, Beta: h})))
			algorithm(asAlgorithm(limit.NewGradient(limit.GradientConfig{Tolerance: f, Smoothing: h})))
			try(admit.WithClassConfig(5, admit.ClassConfig{Name: "five", Share: f, Max: h}))
			try(admit.WithQuotas(admit.QuotaConfig{Classes: map[admit.Class]admit.Rate{0: {PerSecond: f}}, Tenant: admit.Rate{PerSecond: h}}))
		}
		for _, d := range durations {
			algorithm(asAlgorithm(limit.NewAIMD(limit.AIMDConfig{Timeout: d, Backoff: f})))
		}
	}
	for c := range 256 {
		try(admit.WithClassConfig(admit.Class(c), admit.ClassConfig{}))
	}
}

func asAlgorithm[A limit.Algorithm](a A, err error) (limit.Algorithm, error) { return a, err }
