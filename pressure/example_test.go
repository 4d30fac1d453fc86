package pressure_test

import (
	"fmt"
	"time"

	"github.com/weir-go/weir/pressure"
)

// A signal of one's own, and a hook that logs. With package log/slog the hook is
//
//	slog.Warn("pressure", "level", c.To, "was", c.From, "signal", c.Signal, "value", c.Value)
func Example() {
	inUse := 95
	pool := pressure.NewSignal("pool", func() (float64, error) { return float64(inUse) / 100, nil })
	changed := make(chan pressure.Change, 1)
	monitor, err := pressure.New(
		pressure.WithSignals(pressure.Memory(pressure.MemoryConfig{}), pressure.GC(), pool),
		pressure.WithHooks(pressure.Hooks{Changed: func(c pressure.Change) {
			select {
			case changed <- c:
			default:
			}
		}}),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	monitor.Start()
	defer monitor.Stop()
	select {
	case c := <-changed:
		fmt.Println(c.From, "->", c.To, "because of", c.Signal)
	case <-time.After(time.Minute):
	}
	// Output: calm -> high because of pool
}

func ExampleFromJSON() {
	option, err := pressure.FromJSON([]byte(`{"every": "50ms", "marks": {"elevated": 0.8, "release": 0.6}}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	monitor, err := pressure.New(option)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%+v\n", monitor.Stats().Marks)
	// Output: {Elevated:0.8 High:0.92 Extreme:0.97 Release:0.6}
}
