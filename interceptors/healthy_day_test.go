package interceptors_test

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/memory"
	"github.com/weir-go/weir/pressure"
)

// A dial is a signal whose value a test sets.
type dial struct {
	name  string
	value atomic.Uint64 // the bits of a float64
}

func newDial(name string, v float64) *dial {
	d := &dial{name: name}
	d.set(v)
	return d
}

func (d *dial) set(v float64)          { d.value.Store(math.Float64bits(v)) }
func (d *dial) Name() string           { return d.name }
func (d *dial) Read() (float64, error) { return math.Float64frombits(d.value.Load()), nil }

// byHeader takes the class of a call from its metadata.
func byHeader(ctx context.Context, _ interceptors.CallMeta) admit.Class {
	if v := metadata.ValueFromIncomingContext(ctx, "class"); len(v) == 1 {
		return admit.Class(v[0][0] - '0')
	}
	return admit.Default
}

// A healthy day: half of the load that the server can take, memory around 60 % of the limit
// with the sawtooth of a collector, and signals that fail now and then. Not one call is
// refused. The same server refuses once the memory is scarce, and no longer than that.
func TestAHealthyDayWithPressure(t *testing.T) {
	for _, tap := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) { healthyDay(t, tap) })
	}
}

func healthyDay(t *testing.T, tap bool) {
	const permits, mean = 10, 10 * time.Millisecond // so 1,000 calls a second at most
	bytes, err := memory.NewBytes(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	used := newDial(pressure.NameMemory, 0.6)
	monitor, err := pressure.New(pressure.WithSignals(used,
		newDial(pressure.NameGC, 0.5), newDial(pressure.NameProcessors, 0.7), newDial("broken", math.NaN())))
	if err != nil {
		t.Fatal(err)
	}
	monitor.Start()
	defer monitor.Stop()
	gate := newGate(t, admit.WithFixedLimit(permits), admit.WithPressure(monitor, bytes))
	opts, err := interceptors.Server(interceptors.ServerConfig{Gate: gate, Bytes: bytes, Memory: 256 << 20, Tap: tap},
		interceptors.WithClassifier(byHeader))
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, exponential(mean), opts)
	call := func(class admit.Class) error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := r.Work(metadata.AppendToOutgoingContext(ctx, "class", string('0'+rune(class))), &demopb.WorkRequest{})
		return err
	}
	dice := rand.New(rand.NewPCG(1, 2))
	// day offers half of the load for a while, and returns how many calls failed.
	day := func(d time.Duration) (made int, failed int64) {
		var calls sync.WaitGroup
		var failures atomic.Int64
		for begin := time.Now(); time.Since(begin) < d; made++ {
			time.Sleep(time.Duration(dice.ExpFloat64() * 2 * float64(mean) / permits))
			class := admit.Class(dice.IntN(4))
			calls.Go(func() {
				if call(class) != nil {
					failures.Add(1)
				}
			})
			used.set(0.5 + 0.2*math.Mod(time.Since(begin).Seconds(), 1))
		}
		calls.Wait()
		return made, failures.Load()
	}
	if made, failed := day(8 * time.Second); failed != 0 || made < 3000 {
		t.Errorf("a healthy day, tap %v: got %d of %d calls failed, want none", tap, failed, made)
	}
	if s := gate.Stats(); s.Refused != ([admit.MaxClasses][admit.NumReasons]uint64{}) {
		t.Errorf("a healthy day, tap %v: got refusals %v, want none", tap, s.Refused)
	}
	for _, step := range []struct {
		memory     float64
		background bool // admitted
	}{{0.86, false}, {0.76, false}, {0.74, true}} {
		used.set(step.memory)
		time.Sleep(200 * time.Millisecond) // a sample
		synctest.Wait()
		if err := call(admit.Background); (err == nil) != step.background {
			t.Errorf("memory at %v: got %v for a background call, want it admitted: %v", step.memory, err, step.background)
		}
		if err := call(admit.Default); err != nil {
			t.Errorf("memory at %v: got %v for a default call, want it admitted", step.memory, err)
		}
	}
	if _, failed := day(2 * time.Second); failed != 0 {
		t.Errorf("after the pressure, tap %v: got %d calls failed, want none", tap, failed)
	}
}
