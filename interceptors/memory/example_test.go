package memory_test

import (
	"fmt"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/memory"
	"github.com/weir-go/weir/pressure"
)

// A server that bounds its memory to 256 MiB: by the sizes of its messages and windows, by
// the bytes of messages that it holds, and by the pressure of the process.
func ExampleSizesFor() {
	sizes, err := memory.SizesFor(256 << 20)
	if err != nil {
		fmt.Println(err)
		return
	}
	bytes, err := memory.NewBytes(sizes.Bytes)
	if err != nil {
		fmt.Println(err)
		return
	}
	monitor, err := pressure.New() // memory, collector, processors
	if err != nil {
		fmt.Println(err)
		return
	}
	monitor.Start()
	defer monitor.Stop()
	gate, err := admit.New(
		admit.WithPressure(monitor, bytes),
		// Calls that hang must not hold all permits.
		admit.WithClassConfig(admit.Default, admit.ClassConfig{Max: 0.75}),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	opts, err := interceptors.Server(interceptors.ServerConfig{
		Gate: gate, Memory: sizes.Memory, Bytes: bytes, Tap: true,
		OnSizes: func(s memory.Sizes) { fmt.Println(s) },
	}, interceptors.WithClassFor(admit.Critical, interceptors.Methods("/shop.Checkout/")))
	if err != nil {
		fmt.Println(err)
		return
	}
	grpc.NewServer(opts...).Stop()
	// Output: memory 256 MiB: requests up to 4 MiB, 1000 streams a connection, windows of 256 KiB a stream and 1 MiB a connection, 64 MiB of messages
}
