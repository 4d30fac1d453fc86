package gates_test

import (
	"fmt"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/gates"
)

// A server whose methods have different bottlenecks: writes have 20 connections to the
// database, the feed has room for 5000 streams, and the rest finds its limit by itself.
func ExampleFromJSON() {
	rules, err := gates.FromJSON([]byte(`{"gates": [
	  {"name": "write", "methods": ["/shop.Orders/Buy"], "limit": {"algorithm": "fixed", "limit": 20}},
	  {"name": "feed", "streams": true, "limit": {"algorithm": "fixed", "limit": 5000}},
	  {"name": "rest", "quotas": {"tenant": {"rate": 50}}}
	]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	opts, err := interceptors.Server(interceptors.ServerConfig{Gates: rules})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = grpc.NewServer(opts...)

	if err := rules.Update([]byte(`{"gates": [{"name": "write", "limit": {"algorithm": "fixed", "limit": 30}}]}`)); err != nil {
		fmt.Println(err)
	}
	for _, g := range rules.All() {
		fmt.Println(g.Name(), g.Limit())
	}
	// Output:
	// write 30
	// feed 5000
	// rest 32
}
