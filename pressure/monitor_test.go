package pressure_test

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-go/weir/pressure"
)

const tick = 100 * time.Millisecond

// A dial is a signal that says what it is set to.
type dial struct {
	name  string
	value atomic.Uint64
}

func newDial(name string, v float64) *dial {
	d := &dial{name: name}
	d.set(v)
	return d
}

func (d *dial) set(v float64)          { d.value.Store(math.Float64bits(v)) }
func (d *dial) Name() string           { return d.name }
func (d *dial) Read() (float64, error) { return math.Float64frombits(d.value.Load()), nil }

// run starts a monitor that stops with the test.
func run(t *testing.T, opts ...pressure.Option) *pressure.Monitor {
	t.Helper()
	m, err := pressure.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	m.Start()
	t.Cleanup(m.Stop)
	return m
}

func wantLevel(t *testing.T, m *pressure.Monitor, when string, want pressure.Level) {
	t.Helper()
	if got := m.Level(); got != want {
		t.Errorf("%s: got level %v, want %v", when, got, want)
	}
}

// wait lets the monitor take n samples more.
func wait(n int) {
	time.Sleep(time.Duration(n) * tick)
	synctest.Wait()
}

// Levels begin at their marks and end where the one before begins.
func TestLevels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDial("disk", 0)
		m := run(t, pressure.WithSignals(s))
		for _, step := range []struct {
			value float64
			want  pressure.Level
		}{
			{0.849, pressure.Calm},
			{0.85, pressure.Elevated},
			{0.75, pressure.Elevated},
			{0.749, pressure.Calm},
			{0.92, pressure.High},
			{0.86, pressure.High},
			{0.84, pressure.Elevated},
			{0.7, pressure.Calm},
			{0.97, pressure.Extreme},
			{0.93, pressure.Extreme},
			{0.91, pressure.High},
			{1.5, pressure.Extreme},
			{0.1, pressure.Calm},
		} {
			s.set(step.value)
			wait(1)
			wantLevel(t, m, fmt.Sprint(step.value), step.want)
		}
	})
}

// The worst signal decides, and is named.
func TestTheWorstSignalDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newDial("disk", 0.9), newDial("pool", 0.95)
		m := run(t, pressure.WithSignals(a, b))
		want := func(level pressure.Level, signal string) {
			t.Helper()
			wait(1)
			if l, s := m.Pressure(); pressure.Level(l) != level || s != signal {
				t.Errorf("got %v because of %q, want %v because of %q", pressure.Level(l), s, level, signal)
			}
		}
		want(pressure.High, "pool")
		a.set(0.99)
		want(pressure.Extreme, "disk")
		a.set(0) // and 0.95 does not end it
		want(pressure.Extreme, "pool")
		b.set(0)
		want(pressure.Calm, "")
	})
}

// A signal that fails in any way fails alone. Its last value counts for a second.
func TestSignalsThatFail(t *testing.T) {
	var release chan struct{}
	for name, c := range map[string]struct {
		read func() (float64, error)
		says string
	}{
		"NaN":      {func() (float64, error) { return math.NaN(), nil }, "got NaN from Read, want 0 to 1"},
		"infinity": {func() (float64, error) { return math.Inf(1), nil }, "got +Inf from Read"},
		"negative": {func() (float64, error) { return -0.1, nil }, "got -0.1 from Read"},
		"error":    {func() (float64, error) { return 0.99, errors.New("no pool") }, "no pool"},
		"panic":    {func() (float64, error) { panic("out of hand") }, "got a panic from Read: out of hand"},
		"goexit":   {func() (float64, error) { runtime.Goexit(); return 0, nil }, "Read ended its goroutine"},
		"blocks":   {func() (float64, error) { <-release; return 0.93, nil }, "got no answer from Read for"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release = make(chan struct{})
				var fails atomic.Bool
				other := newDial("other", 0.1)
				var mu sync.Mutex
				var told []string
				m := run(t, pressure.WithSignals(pressure.NewSignal("pool", func() (float64, error) {
					if fails.Load() {
						return c.read()
					}
					return 0.93, nil
				}), other), pressure.WithHooks(pressure.Hooks{Failed: func(signal string, err error) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, fmt.Sprint(signal, ": ", err))
				}}))
				wait(2)
				wantLevel(t, m, "before it fails", pressure.High)
				fails.Store(true)
				wait(5)
				wantLevel(t, m, "half a second later", pressure.High)
				wait(7)
				wantLevel(t, m, "after more than a second", pressure.Calm)
				if err := m.Stats().Signals[0].Err; err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got the error %v, want it to say %q", err, c.says)
				}
				other.set(0.88)
				wait(2)
				wantLevel(t, m, "when another signal rises", pressure.Elevated)
				fails.Store(false)
				close(release)
				wait(3)
				wantLevel(t, m, "when it answers again", pressure.High)
				mu.Lock()
				defer mu.Unlock()
				if len(told) != 2 || !strings.Contains(told[0], c.says) || told[1] != "pool: <nil>" {
					t.Errorf("hooks were told %q, want once that it fails and once that it answers", told)
				}
			})
		})
	}
}

// Stop does not wait for a signal that hangs, and a level does not outlive its monitor.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		m, err := pressure.New(pressure.WithSignals(newDial("disk", 1),
			pressure.NewSignal("hangs", func() (float64, error) { <-hang; return 0, nil })))
		if err != nil {
			t.Fatal(err)
		}
		m.Stop() // not started: nothing to do
		m.Start()
		m.Start()
		wait(3)
		wantLevel(t, m, "while it runs", pressure.Extreme)
		var stops sync.WaitGroup
		for range 3 {
			stops.Go(m.Stop)
		}
		stops.Wait()
		wantLevel(t, m, "after Stop", pressure.Calm)
		samples := m.Stats().Samples
		wait(3)
		if got := m.Stats().Samples; got != samples {
			t.Errorf("got %d samples after Stop, want none", got-samples)
		}
		m.Start()
		wait(3)
		wantLevel(t, m, "after another Start", pressure.Extreme)
		m.Stop()
		close(hang)
	})
}

// A configuration is changed while the monitor runs, and a wrong one changes nothing.
func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDial("disk", 0.8)
		m := run(t, pressure.WithSignals(s))
		wait(1)
		wantLevel(t, m, "with the default marks", pressure.Calm)
		update := func(opts ...pressure.Option) {
			t.Helper()
			if err := m.Update(opts...); err != nil {
				t.Fatal(err)
			}
			wait(1)
		}
		update(pressure.WithMarks(pressure.Marks{Release: 0.3, Elevated: 0.5}))
		wantLevel(t, m, "with a lower mark", pressure.Elevated)
		o, err := pressure.FromJSON([]byte(`{"marks": {"high": 0.7}}`))
		if err != nil {
			t.Fatal(err)
		}
		update(o)
		wantLevel(t, m, "with a mark from a document", pressure.High)
		if got, want := m.Stats().Marks, (pressure.Marks{Release: 0.3, Elevated: 0.5, High: 0.7, Extreme: 0.97}); got != want {
			t.Errorf("got marks %+v, want %+v", got, want)
		}
		before := m.Stats().Samples
		update(pressure.WithEvery(time.Second))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := m.Stats().Samples - before; got > 5 {
			t.Errorf("got %d samples in 3 s, want one a second", got)
		}
		if err := m.Update(pressure.WithSignals(), pressure.WithEvery(-1)); !errors.Is(err, pressure.ErrConfig) {
			t.Errorf("got %v, want an error that wraps ErrConfig", err)
		}
		if got := len(m.Stats().Signals); got != 1 {
			t.Errorf("got %d signals after a wrong Update, want 1", got)
		}
		update(pressure.WithSignals())
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantLevel(t, m, "without signals", pressure.Calm)
	})
}

// Hooks are told of each change once, with its cause. One that panics does no harm.
func TestHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDial("disk", 0)
		var mu sync.Mutex
		var got []pressure.Change
		m := run(t, pressure.WithSignals(s),
			pressure.WithHooks(pressure.Hooks{Changed: func(pressure.Change) { panic("a hook") }}),
			pressure.WithHooks(pressure.Hooks{Changed: func(c pressure.Change) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, c)
			}}))
		for _, v := range []float64{0.9, 0.9, 0.98, 0.1} {
			s.set(v)
			wait(1)
		}
		mu.Lock()
		defer mu.Unlock()
		want := fmt.Sprint([]pressure.Change{
			{pressure.Calm, pressure.Elevated, "disk", 0.9},
			{pressure.Elevated, pressure.Extreme, "disk", 0.98},
			{pressure.Extreme, pressure.Calm, "disk", 0.1},
		})
		if fmt.Sprint(got) != want {
			t.Errorf("got changes %v, want %v", got, want)
		}
		if s := m.Stats(); s.Panics != 3 || s.Changes != 3 {
			t.Errorf("got %d panics and %d changes, want 3 and 3", s.Panics, s.Changes)
		}
	})
}

// A nil and a zero monitor are calm.
func TestNoMonitor(t *testing.T) {
	var none *pressure.Monitor
	wantLevel(t, none, "nil", pressure.Calm)
	if got := none.Stats(); got.Level != pressure.Calm {
		t.Errorf("stats of nil: got %v, want Calm", got.Level)
	}
	var zero pressure.Monitor
	zero.Start()
	zero.Stop()
	wantLevel(t, &zero, "zero", pressure.Calm)
}

func TestConfigErrors(t *testing.T) {
	disk := newDial("disk", 0)
	for want, opts := range map[string][]pressure.Option{
		"option 0: got nil, want an option":                                 {nil},
		"every: got 1ms, want 0 (100ms) or 10ms to 1m0s":                    {pressure.WithEvery(time.Millisecond)},
		"every: got 1h0m0s, want 0 (100ms) or 10ms to 1m0s":                 {pressure.WithEvery(time.Hour)},
		"signal 1: got nil, want a signal":                                  {pressure.WithSignals(disk, nil)},
		`signal 1: Name: got "disk" of another signal, want one of its own`: {pressure.WithSignals(disk, newDial("disk", 0))},
		`signal 0: Name: got "", want 1 to `:                                {pressure.WithSignals(newDial("", 0))},
		"signal 0: Name: got \"\\xff\", want 1 to ":                         {pressure.WithSignals(newDial("\xff", 0))},
		"signal 0: Name: got a panic (":                                     {pressure.WithSignals((*dial)(nil))},
		"signal 0: memory: Limit: got -1, want more than 0, or 0 for ":      {pressure.WithSignals(pressure.Memory(pressure.MemoryConfig{Limit: -1}))},
		"marks: High: got 0.5, want more than Elevated":                     {pressure.WithMarks(pressure.Marks{High: 0.5})},
		"marks: Elevated: got 0.85, want more than Rel":                     {pressure.WithMarks(pressure.Marks{Release: 0.9})},
		"marks: Extreme: got NaN, want more than 0":                         {pressure.WithMarks(pressure.Marks{Extreme: math.NaN()})},
		"marks: Extreme: got 1.2, want more than 0":                         {pressure.WithMarks(pressure.Marks{Extreme: 1.2})},
		"marks: Release: got -1, want more than 0":                          {pressure.WithMarks(pressure.Marks{Release: -1})},
	} {
		_, err := pressure.New(opts...)
		if !errors.Is(err, pressure.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that wraps ErrConfig and says %q", err, want)
		}
	}
	_, err := pressure.New(pressure.WithEvery(-1), pressure.WithMarks(pressure.Marks{High: 2}), pressure.WithSignals(nil))
	for _, want := range []string{"every", "High", "signal 0"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want everything that is wrong at once: no %s", err, want)
		}
	}
}

func TestFromJSONErrors(t *testing.T) {
	for document, want := range map[string]string{
		``:                           "EOF",
		`[]`:                         "cannot unmarshal array",
		`{"every": 100}`:             "every",
		`{"every": "soon"}`:          `every: got "soon"`,
		`{"every": "-1s"}`:           `every: got "-1s"`,
		`{"mark": {}}`:               `unknown field "mark"`,
		`{"marks": {"top": 1}}`:      `unknown field "top"`,
		`{} {}`:                      "got more after the object",
		`{"marks": {"high": "0.9"}}`: "high",
	} {
		if _, err := pressure.FromJSON([]byte(document)); !errors.Is(err, pressure.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error that wraps ErrConfig and says %q", document, err, want)
		}
	}
	for document, want := range map[string]string{
		`{"marks": {"high": 0}}`:                 "marks.high: got 0",
		`{"marks": {"high": 0.5}}`:               "High: got 0.5, want more than Elevated",
		`{"marks": {"high": 0.96, "extreme":2}}`: "Extreme: got 2",
		`{"every": "1ms"}`:                       "every: got 1ms",
	} {
		o, err := pressure.FromJSON([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = pressure.New(o); !errors.Is(err, pressure.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error that says %q", document, err, want)
		}
	}
}

// Whatever the values, the level is between what the value alone would begin and what it
// would end at.
func TestHysteresisProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(0, 1), 1, 30).Draw(t, "values")
		marks := pressure.Marks{Release: 0.75, Elevated: 0.85, High: 0.92, Extreme: 0.97}
		level := pressure.Calm
		for _, v := range values {
			level = pressure.Next(marks, level, v)
			begins := []float64{0, marks.Elevated, marks.High, marks.Extreme, 2}
			ends := []float64{0, marks.Release, marks.Elevated, marks.High}
			if v >= begins[level+1] || v < ends[level] {
				t.Fatalf("value %v: got %v", v, level)
			}
		}
	})
}

// The name is for metrics, has a default, and stays.
func TestName(t *testing.T) {
	m, err := pressure.New()
	if err != nil || m.Name() != "default" {
		t.Errorf("got %q, %v, want the name \"default\"", m.Name(), err)
	}
	if m, err = pressure.New(pressure.WithName("pools")); err != nil || m.Name() != "pools" {
		t.Errorf("got %q, %v, want the name \"pools\"", m.Name(), err)
	}
	if err := m.Update(pressure.WithName("others")); !errors.Is(err, pressure.ErrConfig) || !strings.Contains(err.Error(), `got "others", want "pools"`) {
		t.Errorf("a new name: got %v, want an error that wraps ErrConfig and has both names", err)
	}
	if err := m.Update(pressure.WithEvery(time.Second)); err != nil || m.Name() != "pools" {
		t.Errorf("an update without a name: got %q, %v, want \"pools\"", m.Name(), err)
	}
	if _, err := pressure.New(pressure.WithName("")); !errors.Is(err, pressure.ErrConfig) {
		t.Errorf("an empty name: got %v, want an error that wraps ErrConfig", err)
	}
	if got := (*pressure.Monitor)(nil).Name() + new(pressure.Monitor).Name(); got != "" {
		t.Errorf("nil and zero: got %q, want no name", got)
	}
}
