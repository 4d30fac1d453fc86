// Package breaker stops the calls of a client to methods that fail, and tries now and then
// whether they have recovered.
//
// Use it where a failing server makes its callers wait, such as for a timeout. A circuit
// that is open fails those calls at once. Do not use it for a server that only refuses what
// is too much for it: package throttle is for that. Do not use it to route around one bad
// instance of several. An interceptor cannot choose the instance, so a circuit stays closed
// while one of them serves.
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
// Each call that ends has a [Verdict]: it shows that the server is [Healthy] or [Unwell], or
// it is [Excluded] and shows nothing. [WithVerdict] replaces the rules, which are described
// at [Breaker].
//
// [Breaker.Stats] has the counters of each circuit. [WithHooks] reports changes of state.
package breaker
