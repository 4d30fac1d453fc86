package interceptors_test

import (
	"fmt"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors"
)

// A server whose methods have different bottlenecks: writes have 20 connections to the
// database, the feed has room for 5000 streams, and the rest finds its limit by itself.
func ExampleGatesFromJSON() {
	gates, err := interceptors.GatesFromJSON([]byte(`{"gates": [
	  {"name": "write", "methods": ["/shop.Orders/Buy"], "limit": {"algorithm": "fixed", "limit": 20}},
	  {"name": "feed", "streams": true, "limit": {"algorithm": "fixed", "limit": 5000}},
	  {"name": "rest", "quotas": {"tenant": {"rate": 50}}}
	]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	opts, err := interceptors.Server(interceptors.ServerConfig{Gates: gates})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = grpc.NewServer(opts...)

	if err := gates.Update([]byte(`{"gates": [{"name": "write", "limit": {"algorithm": "fixed", "limit": 30}}]}`)); err != nil {
		fmt.Println(err)
	}
	for _, g := range gates.All() {
		fmt.Println(g.Name(), g.Limit())
	}
	// Output:
	// write 30
	// feed 5000
	// rest 32
}

// One error names every mistake.
func ExampleServer() {
	gate, err := admit.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = interceptors.Server(
		interceptors.ServerConfig{Gate: gate, Streams: gate, MaxConcurrentStreams: 10},
		interceptors.WithClassFor(admit.Critical, interceptors.Methods("shop.Checkout/Buy")),
	)
	fmt.Println(err)
	// Output:
	// interceptors: invalid configuration: server: Streams: got gate "default" with a limit that adapts, want a fixed one: it would learn nothing from streams
	// server: Streams: got the gate of the calls, want one of its own, or nil
	// server: MaxConcurrentStreams: got 10, want at least 64, which the gates let run and wait, or 0 (1000 here)
	// server: WithClassFor(critical): Methods: got "shop.Checkout/Buy", want "/shop.Checkout/Buy"
}
