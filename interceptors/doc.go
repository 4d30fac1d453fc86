// Package interceptors connects gRPC to the gates of package admit. A gate decides which
// calls run. An interceptor asks it for a permit, and turns a refusal into a status that the
// client's gRPC library understands.
//
// Use it in a server that can be asked for more than it can do, and in a client that should
// not send more than its servers can do. For one slow dependency, put the gate in the client of
// that dependency, not in the server. For flow control of the
// messages of a stream, see package streamcredit.
//
//	gate, err := admit.New(admit.WithName("api"))
//	...
//	options, err := interceptors.Server(interceptors.ServerConfig{Gate: gate})
//	...
//	server := grpc.NewServer(options...)
//	...
//	err = interceptors.Shutdown(ctx, server, gate)
//
// # Concepts
//
// [Server] returns the options of a guarded server and [Client] the options of a careful
// client, with all interceptors in the right order. [UnaryServer], [StreamServer],
// [UnaryClient] and [StreamClient] are the interceptors alone. [Shutdown] drains the gates and stops the server.
//
// Options tell the gate about a call. [WithClassFor] and [WithClassifier] set its class,
// [WithTenant] its tenant and [WithCost] its cost. Package admit describes their meaning. A
// client's call without a class has the class of [ContextWithClass], or of the call that it
// is made for. [WithPropagation] and ClientConfig.Propagate carry the class, the deadline and
// the permits of a call from service to service.
//
// [RefusalFrom] returns the reason and the delay of a refusal, and whether a server or this
// process made it.
//
// The packages below hold the rest. For servers, package gates assigns methods to gates, and
// package memory bounds the memory of messages. For clients, package breaker refuses calls to
// methods that fail, package throttle refuses calls to servers that refuse them, and package
// retry configures gRPC's retries.
//
// All interceptors are safe for concurrent use. None starts a goroutine.
//
// # Order
//
// On a server, the order from the outside to the inside is the ORCA server option, the
// stats handler, metrics, recovery, authentication, this package, validation, interceptors
// that set headers, and the handler. Outer interceptors see a refusal as an error with a
// status. Inner ones run only for admitted calls.
//
// Another order breaks two things. A client obeys grpc-retry-pushback-ms only if the refusal
// is a Trailers-Only response. An outer interceptor that called grpc.SetHeader or
// grpc.SendHeader prevents that, and grpc-go then does not retry at all. Recovery must be
// outside because this package does not recover panics of matchers, classifiers and handlers.
// It frees the permit and lets the panic continue.
//
// On a client, the order is propagation, throttle, gate, breaker, and then gRPC with its
// own retries. A retry is then not counted as a call. The wait for a permit does not look
// like a slow server. A call that is refused further out takes no permit and no probe.
//
// # Refusals
//
// The code tells where else the call may go. [WithCode] changes it for a reason.
//
//	refused by, and why                            code                 another server
//	a server that is full, or a wait too long      UNAVAILABLE          may take it
//	a server that drains                           UNAVAILABLE          may take it, at once
//	a server: the caller's share is used up        RESOURCE_EXHAUSTED   will not help
//	a server with too many open streams            RESOURCE_EXHAUSTED   may take it
//	a server: the client takes no messages         RESOURCE_EXHAUSTED   will not help
//	a client's gate that is full                   RESOURCE_EXHAUSTED   was not asked
//	a client's gate that drains                    UNAVAILABLE          was not asked
//	a throttle, or an open circuit                 UNAVAILABLE          was not asked
//	a client: the deadline is too near             DEADLINE_EXCEEDED    was not asked
//	the deadline ended while the call waited       DEADLINE_EXCEEDED
//	the caller canceled while the call waited      CANCELED
//
// The last two rows are not refusals. The deadline is too near for a client with
// ClientConfig.Propagate if the remaining time, less the margin, is not more than the shortest
// time of a successful call of the method in the last 10 to 20 seconds. The time for which calls
// waited for a client's gate is left out, because the gate judges that. If no call has succeeded
// for 100 ms, one call is sent anyway each 100 ms, because the server may have become faster. A
// stream fails at once only if its deadline, less the margin, has passed.
//
// Each refusal carries an errdetails.ErrorInfo with the reason (such as QUEUE_FULL), the
// domain "weir" and the name of the gate. If there is a delay, it also carries an
// errdetails.RetryInfo. The message says the same to people. A refusal of a tap has the
// message alone. A refusal tells nothing about limits, queues or other callers. In the process
// that refused, errors.Is(err, admit.ErrRefused) is true for a refusal by a gate, and
// errors.As finds the *admit.Refusal.
//
// # Taps
//
// With ServerConfig.Tap a server refuses calls earlier, in addition to the interceptors, which
// take the permits. Its refusals count as refusals of the gate. It can do less than an
// interceptor. Its status has the code of the reason, but no details and no trailer. Clients get
// no delay and use their own backoff. A matcher or classifier gets the metadata of the call in
// the context, but not the message and not the values that an interceptor would add. Every call
// looks unary. If a matcher or classifier panics in the tap, the call goes on to the
// interceptors.
//
// A refused call with a deadline keeps the timer of its context, about 300 bytes, until that
// deadline, because grpc-go 1.85 does not cancel it. Compare on two quiet processors:
//
//	WEIR_BENCH_SECONDS=5 go test -run='^$' -bench='OneCore$' -benchtime=1x ./examples/internal/rawload
//
// # Retries
//
// A server's refusal has the trailer grpc-retry-pushback-ms with its delay, unless a tap
// made it. A grpc-go client sleeps for exactly that delay if its retryPolicy lists the
// code. The delay already has its jitter. It is as long as the queue of the gate needs, at
// most admit.WithMaxRetryAfter (a second by default), and 10 to 20 ms while the gate
// drains. A call is told not to retry (-1) if its deadline is nearer than twice the delay.
// Otherwise gRPC would sleep until the deadline, and the caller would never see the
// refusal.
//
// A client needs retryThrottling in its service config, or an overload makes it send every
// call several times. retry.Config sets it.
//
// # Outcomes
//
// A unary call that ends with OK is a success. It is an overload if it ends with
//
//   - DEADLINE_EXCEEDED, when it had a fair time. A fair time is twice the mean time of
//     its method without congestion, or that mean plus four mean deviations if that is
//     more. The mean alone is enough once no call of the method went well for a quarter of
//     a second. A deadline that could not be met shows nothing about the server;
//   - UNAVAILABLE, unless gRPC made it because there was no connection;
//   - RESOURCE_EXHAUSTED of a gate that was full, as its errdetails.ErrorInfo says. Any other
//     RESOURCE_EXHAUSTED is a caller's quota, or is about a message that is too large.
//
// Every other end is ignored ([WithOutcome] changes that). An error of a gate, throttle or
// breaker in this process is always ignored. So are streams, because the lifetime of a stream
// is not a latency. Only the time until [StreamReady], or until a [StreamRule] makes it ready, is
// a sample.
//
// # Streams
//
// By default a stream holds its permit until its handler returns. A watch is expensive to begin
// and cheap to keep. [StreamReady] and [WithStreams] return its permit when it is set up,
// and admit.WithMaxOpen bounds how many streams are open.
//
// A stream ends if the transport takes none of its messages for two minutes; see
// StreamRule.SendStall. To slow a handler down to the pace of its client, see package streamcredit.
//
// # One gate, one permit
//
// A call takes one permit of a gate, even if several interceptors of that gate are in its
// chain. The inner ones let it pass. The same holds for a call that a handler makes with
// its own context, through a client that has the gate of its server. A call that comes back
// through another process needs [WithPropagation].
//
// A mark in the context identifies such calls. It costs one small allocation. A gate with one
// unary interceptor, which is the usual case, stops marking once it has seen that no other one
// follows. It still marks one call in a thousand, to notice a change. If two servers share a
// gate, give both the same interceptor value. Otherwise each call pays for the mark.
package interceptors
