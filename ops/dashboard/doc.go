// Command dashboard writes the Grafana dashboard of weir.
//
//	cd ops && go run ./dashboard > dashboard/weir.json
//
// Import the JSON in Grafana. It asks for a Prometheus data source and for jobs.
package main
