// Package breaker stops the calls of a client to methods that fail, and probes them from
// time to time until they recover.
//
// Use it where a failing server makes its callers wait, such as for a timeout. A circuit
// that is open fails those calls at once. Do not use it for a server that only sheds its
// excess load. Package throttle is for that. Do not use it to route around one bad instance
// of several. An interceptor cannot choose the instance, so a circuit stays closed while
// one of them serves.
//
//	b, err := breaker.New(breaker.Config{Name: "backends"})
//	...
//	options, err := interceptors.Client(interceptors.ClientConfig{Breaker: b})
//	...
//	conn, err := grpc.NewClient(target, options...)
//
// # Concepts
//
// A [Breaker] has one circuit for each method of each target. A circuit is in one of three
// states. [Closed] sends every call. [Open] refuses every call with UNAVAILABLE; errors.Is
// finds [ErrOpen] in the error. [HalfOpen] sends a few calls, the probes, and judges by them.
//
// Each call that ends has a [Verdict]. The verdict is [Healthy] or [Unwell] if the call
// shows the state of the server, and [Excluded] if it does not. [WithVerdict] replaces the
// rules, which are described at [Breaker].
//
// [Breaker.Stats] has the counters of each circuit. [WithHooks] reports changes of state.
package breaker
