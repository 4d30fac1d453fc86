// Package throttle stops a client from sending calls that its server would refuse.
//
// Refusing a call costs a server something. Under a flood of calls it can spend all its
// time on refusals. A throttle watches how many calls the server refuses, and refuses the
// excess in the client. Use it in every client of a server with a gate. Do not use it
// against a server that is slow or broken. A throttle does not count timeouts, and package
// breaker does.
//
//	t, err := throttle.New(throttle.Config{Name: "backends"})
//	...
//	options, err := interceptors.Client(interceptors.ClientConfig{Throttle: t})
//	...
//	conn, err := grpc.NewClient(target, options...)
//
// # Concepts
//
// A [Throttle] counts accepted and refused calls for each target, method and class. While a
// target accepts its calls, the throttle sends all of them. When the target refuses more
// than one call in K, the throttle sends calls with a probability, such that about K calls
// are sent for each one that is accepted. A call that is not sent fails with UNAVAILABLE;
// errors.Is finds [ErrThrottled] in the error.
//
// [Throttle.Stats] has the probability and the counters.
package throttle
