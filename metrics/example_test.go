package metrics_test

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
	"github.com/weir-go/weir/metrics"
)

func ExampleNewCollector() {
	two, err := limit.NewFixed(2)
	if err != nil {
		panic(err)
	}
	gate, err := admit.New(admit.WithName("api"), admit.WithLimit(two), admit.WithoutQueue())
	if err != nil {
		panic(err)
	}
	collector, err := metrics.NewCollector(gate)
	if err != nil {
		panic(err)
	}
	registry := prometheus.NewPedanticRegistry() // a program uses prometheus.DefaultRegisterer
	registry.MustRegister(collector)

	for range 3 { // one too many
		if _, err := gate.Acquire(context.Background(), admit.Default); err != nil { // a program releases its permits
			fmt.Println(err)
		}
	}

	families, err := registry.Gather() // promhttp.Handler does this for a scrape
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		switch name := f.GetName(); name {
		case "weir_in_flight", "weir_limit", "weir_utilization_ratio":
			fmt.Println(name, f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	// Output:
	// admit: refused: queue_full
	// weir_in_flight 2
	// weir_limit 2
	// weir_utilization_ratio 1
}
