// Package interceptors brings gRPC calls to a gate of package admit, and turns
// its refusals into statuses that the caller's machinery understands.
//
// [UnaryServer] and [StreamServer] guard a server, [Tap] turns calls away
// before they are read, [UnaryClient] and [StreamClient] bound what a client
// has under way. One gate can serve all interceptors of a server. All of them
// are safe for concurrent use; none starts a goroutine.
//
// Clients stand back with [UnaryThrottle], [UnaryBreaker] and the retry policy of
// [RetryConfig]. [WithPropagation] and [UnaryPropagation] let what a call is travel
// from service to service. [Server] and [Client] put all of it together in the right
// order, and [Shutdown] ends a server.
//
// # Order
//
// On a server, from the outside to the inside: the ORCA server option, stats handler,
// metrics, recovery, authentication, this package, validation, whatever sets
// headers, the handler. What stands outside sees refusals as errors with a
// status; what stands inside runs only for calls that were let in.
//
// Two things go wrong in another order. A client obeys the delay in
// grpc-retry-pushback-ms only if the refusal is the whole answer (Trailers-Only
// in HTTP/2): an interceptor further out that called grpc.SetHeader or
// grpc.SendHeader turns it into headers and trailers, and grpc-go then does not
// retry at all. And recovery must be outside, because a matcher, classifier or
// handler that panics is not caught here: its permit comes free, the panic goes
// on.
//
// On a client: propagation, throttle, limit, breaker, and then gRPC with its own
// retries. So retries are not counted as calls, the time for which a call waits for a
// permit is not taken for the server's slowness, and what is refused further out
// costs no permit and no probe.
//
// # Who gets the permits
//
// [WithClass] and [WithClassifier] say of what class a call is, [WithTenant] whose it
// is, [WithCost] what it costs; what that means is described at admit.ClassConfig and
// admit.Call. On a client, and where no option says otherwise, a call has the class of
// [ContextWithClass], or of the call for which it is made.
//
// # Refusals
//
// The code says where else the call may go. [WithCode] changes it for a reason.
//
//	who refuses, and why                          code                 another server
//	a server: full, or the call waited too long   UNAVAILABLE          may take it
//	a server: it drains                           UNAVAILABLE          may take it, at once
//	a server: the caller's own share is used up   RESOURCE_EXHAUSTED   will not help
//	a server: too many streams are open           RESOURCE_EXHAUSTED   may take it
//	a server: the client takes nothing            RESOURCE_EXHAUSTED   will not help
//	a client's limit is used up                   RESOURCE_EXHAUSTED   was not asked
//	a client's limit drains                       UNAVAILABLE          was not asked
//	a throttle, or an open circuit                UNAVAILABLE          was not asked
//	[UnaryPropagation]: the deadline is too near  DEADLINE_EXCEEDED    was not asked
//	the deadline ended while the call waited      DEADLINE_EXCEEDED
//	the caller canceled while the call waited     CANCELED
//
// [RefusalFrom] reads a refusal: its reason, its delay, whether it is local or remote, and
// the name of the gate. The last two rows are no refusals.
//
// Each refusal carries the detail errdetails.ErrorInfo, with the reason (such as
// QUEUE_FULL), the domain "weir" and the gate's name, and, if there is one, the detail
// errdetails.RetryInfo with the delay after which to come back. Its message says the
// same to people. What a [Tap] turns away has only the message. Nothing tells the caller
// about limits, queues or other callers. In the process that refused,
// errors.Is(err, admit.ErrRefused) is true for the error of a gate's refusal, and
// errors.As finds the *admit.Refusal in it.
//
// # Retries
//
// A server's refusal, except a tap's, also has the trailer grpc-retry-pushback-ms with
// its delay, which a grpc-go client uses as it is when its retryPolicy lists the code.
// The delay has its jitter already. It is as long as the gate's queue needs, at most
// admit.WithMaxRetryAfter, by default a second, and 10 to 20 ms while the gate drains.
// A call whose deadline is nearer than twice the delay is told not to come back (-1).
// gRPC would let it wait for its deadline, and its caller would not learn that it was
// refused.
//
// A client needs the retryThrottling of a service config, or an overload makes it send
// every call several times; [RetryConfig] has one.
//
// # What a call teaches the limit
//
// A unary call that ends with OK is a success. It is an overload if it ends with
//
//   - DEADLINE_EXCEEDED, when it had a fair time: twice the mean that its method takes
//     without congestion, or that mean and four mean deviations, whichever is more; or
//     the mean alone, once no call of the method went well for a quarter of a second. A
//     deadline that could not be met says nothing about the server;
//   - UNAVAILABLE, unless gRPC itself made it because there was no connection;
//   - RESOURCE_EXHAUSTED of a gate that was full, as its errdetails.ErrorInfo says. All
//     other RESOURCE_EXHAUSTED are quotas of callers, or made by gRPC of a message that
//     is too large.
//
// Anything else is ignored ([WithOutcome] changes that). An error that a gate in this
// process made, in any place of the chain or before a call that the handler wanted to
// make, is always
// ignored. The lifetime of a stream is not a latency: streams are always ignored, except for
// the time until [StreamReady] or the end of their [StreamSetup].
//
// # Streams
//
// By default a stream holds its permit until its handler returns. A watch is expensive to begin
// and cheap to keep: [StreamReady] and [WithStreamSetup] give its permit back when it is set up,
// and admit.WithMaxOpen bounds how many are open.
//
// A Send that the transport does not take for two minutes ends the stream: see [WithSendStall].
// To slow a handler down to its client's pace use package streamcredit.
//
// # One gate, one permit
//
// A call takes one permit of a gate, even if interceptors of that gate stand in
// its chain twice; the inner ones let it pass. So does a call that a handler
// makes, with its own context, through a client whose gate is also its
// server's. A call that comes back by way of another process does so with
// [WithPropagation]. Interceptors recognise such calls by a mark in the context, which
// costs one small allocation. A gate whose unary interceptor was made once,
// which is the usual case, stops marking when it has seen that it stands alone
// (and marks one call of a thousand to notice if that changes), so that an
// admitted call allocates nothing. To give two servers one gate at that price,
// give both the same interceptor value.
package interceptors
