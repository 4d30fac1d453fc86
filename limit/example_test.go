package limit_test

import (
	"fmt"
	"time"

	"github.com/weir-go/weir/limit"
)

func ExampleNewFixed() {
	_, err := limit.NewFixed(0)
	fmt.Println(err)
	// Output: limit: invalid configuration: limit: got 0, want 1 to 1048576
}

func ExampleNewAdaptive() {
	a, err := limit.NewAdaptive(limit.AdaptiveConfig{}) // the defaults
	if err != nil {
		panic(err)
	}
	fmt.Println(a.Limit())
	// Output: 32
}

func ExampleAlgorithm() {
	a, err := limit.NewAIMD(limit.AIMDConfig{Initial: 10, Timeout: time.Second})
	if err != nil {
		panic(err)
	}
	// A gate does this each time a window closes.
	busy := limit.Window{Limit: 10, MaxInFlight: 10, Succeeded: 100, MeanLatency: 20 * time.Millisecond}
	fmt.Println(a.Update(busy))
	busy.Overloaded = 3
	fmt.Println(a.Update(busy))
	// Output:
	// 11
	// 9
}
