// Package otel shows gates, streams, breakers, throttles, pressure and consumers of messages to
// OpenTelemetry.
//
// Use it in a program that exports metrics or traces with OpenTelemetry. A program that Prometheus
// scrapes uses package metrics. The two can be used together.
//
//	err := otel.Register(provider.Meter("shop"), gate, circuits, feed)
//	...
//	err = otel.Trace(gate)
//
// # Metrics
//
// [Register] makes an instrument for each metric of package metrics, with the same values. The names
// follow the conventions of OpenTelemetry. The kind of source comes second, and there is neither a unit
// nor "total" in a name.
//
//	weir_limit{gate}                      weir.gate.limit, with the attribute weir.gate
//	weir_calls_total{gate,outcome}        weir.gate.calls, with weir.gate and weir.outcome
//	weir_running_seconds_total{gate}      weir.gate.running_time, in seconds
//	weir_stream_sent_bytes_total{meter}   weir.stream.sent, in bytes
//
// weir.gate.wait is a histogram. The SDK attaches exemplars to it.
//
// # Traces
//
// [Trace] adds an event to the span of a call that waited, was refused or gave up. [StarvedEvent] does so for
// a stream when its sender has waited for credit.
package otel
