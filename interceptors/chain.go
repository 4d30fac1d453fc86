package interceptors

import (
	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
)

// A ClientConfig says how a client stands back. Each zero field leaves that out.
type ClientConfig struct {
	// Propagation, if not nil, passes on class, deadline and permits: see
	// [UnaryPropagation]. An empty slice has the defaults.
	Propagation []PropagationOption
	// Throttle refuses calls to targets that refuse them.
	Throttle *Throttle
	// Limit bounds how many unary calls are under way, Streams how many streams are
	// open.
	Limit, Streams *admit.Gate
	// Breaker refuses calls to methods that are unwell.
	Breaker *Breaker
	// Retry has gRPC retry.
	Retry *RetryConfig
	// SecondRetries is told of a method that go-grpc-middleware's interceptor further
	// out retries as well: see [UnaryRetryGuard]. It is only used with Retry.
	SecondRetries func(target, method string)
}

// Client returns dial options for a client that stands back, in the order in which
// the parts belong, from the outside to the inside: propagation, throttle, limit,
// breaker, and gRPC's own retries. So no retry is counted twice, no local wait looks
// like a slow server, and what is refused here costs no permit and no probe. The
// options are for the limits. Interceptors in dial options before these stand
// outside, those in later ones between these and gRPC.
//
// It returns an error that wraps ErrConfig if nothing is configured or if Limit and
// Streams are one gate (long streams would take the permits of calls) or Throttle or
// Breaker is zero, and the errors
// of [RetryConfig.ServiceConfig].
func Client(c ClientConfig, opts ...ClientOption) ([]grpc.DialOption, error) {
	var unary []grpc.UnaryClientInterceptor
	var stream []grpc.StreamClientInterceptor
	var retry grpc.DialOption
	if c.Retry != nil {
		var err error
		if retry, err = RetryDialOption(*c.Retry); err != nil {
			return nil, err
		}
		if c.SecondRetries != nil {
			unary = append(unary, UnaryRetryGuard(c.SecondRetries))
			stream = append(stream, StreamRetryGuard(c.SecondRetries))
		}
	}
	if c.Propagation != nil {
		unary = append(unary, UnaryPropagation(c.Propagation...))
		stream = append(stream, StreamPropagation(c.Propagation...))
	}
	if c.Throttle != nil {
		unary = append(unary, UnaryThrottle(c.Throttle))
		stream = append(stream, StreamThrottle(c.Throttle))
	}
	if c.Limit != nil {
		unary = append(unary, UnaryClient(c.Limit, opts...))
	}
	if c.Streams != nil {
		stream = append(stream, StreamClient(c.Streams, opts...))
	}
	if c.Breaker != nil {
		unary = append(unary, UnaryBreaker(c.Breaker))
		stream = append(stream, StreamBreaker(c.Breaker))
	}
	if retry != nil {
		unary, stream = append(unary, unaryRestore), append(stream, streamRestore)
	}
	var bad checks
	bad.that(len(unary)+len(stream) > 0, "client: got nothing configured, want at least one part")
	bad.that(c.Limit == nil || c.Limit != c.Streams, "client: Streams: got the gate of Limit, want one of its own, or nil")
	bad.that(c.Throttle == nil || !c.Throttle.inert(), "client: Throttle: got a zero Throttle, want one from NewThrottle, or nil")
	bad.that(c.Breaker == nil || !c.Breaker.inert(), "client: Breaker: got a zero Breaker, want one from NewBreaker, or nil")
	if err := bad.err(); err != nil {
		return nil, err
	}
	dial := []grpc.DialOption{grpc.WithChainUnaryInterceptor(unary...), grpc.WithChainStreamInterceptor(stream...)}
	if retry != nil {
		dial = append(dial, retry)
	}
	return dial, nil
}

// A ServerConfig says what guards a server.
type ServerConfig struct {
	// Outside are what stands before the gates, from the outside to the inside:
	// metrics, recovery, authentication. OutsideStreams are the same for streams.
	Outside        []grpc.UnaryServerInterceptor
	OutsideStreams []grpc.StreamServerInterceptor
	// Gate decides which unary calls run; it must not be nil. Streams decides which
	// streams do; nil lets all of them. Give streams a gate of their own, with a
	// fixed limit: an adaptive one learns nothing from them.
	Gate, Streams *admit.Gate
	// Inside are what calls reach that were let in: validation, whatever sets
	// headers. InsideStreams are the same for streams.
	Inside        []grpc.UnaryServerInterceptor
	InsideStreams []grpc.StreamServerInterceptor
	// Tap turns calls away before they are read, too: see [Tap]. It cannot tell
	// streams from calls, so it must not be used with Streams.
	Tap bool
	// MaxConcurrentStreams bounds calls for each connection; zero means 1000.
	MaxConcurrentStreams uint32
}

// Server returns server options for a guarded server, with all interceptors in the
// order in which they belong. It returns an error that wraps ErrConfig, and names
// what is wrong: no gate, one gate for calls and streams at once (long streams would
// take the permits of calls), or a nil interceptor.
func Server(c ServerConfig, opts ...ServerOption) ([]grpc.ServerOption, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	unary := append(append([]grpc.UnaryServerInterceptor{}, c.Outside...), UnaryServer(c.Gate, opts...))
	stream := append([]grpc.StreamServerInterceptor{}, c.OutsideStreams...)
	if c.Streams != nil {
		stream = append(stream, StreamServer(c.Streams, opts...))
	}
	server := []grpc.ServerOption{
		grpc.MaxConcurrentStreams(or(c.MaxConcurrentStreams, 1000)),
		grpc.ChainUnaryInterceptor(append(unary, c.Inside...)...),
		grpc.ChainStreamInterceptor(append(stream, c.InsideStreams...)...),
	}
	if c.Tap {
		server = append(server, grpc.InTapHandle(Tap(c.Gate, opts...)))
	}
	return server, nil
}

func (c *ServerConfig) validate() error {
	var bad checks
	bad.that(c.Gate != nil, "server: Gate: got nil, want a gate")
	bad.that(c.Gate == nil || c.Gate != c.Streams, "server: Streams: got the gate of the calls, want one of its own, or nil")
	bad.that(!c.Tap || c.Streams == nil, "server: Tap: got it with Streams, want one of them")
	for name, is := range map[string][]grpc.UnaryServerInterceptor{"Outside": c.Outside, "Inside": c.Inside} {
		for i, f := range is {
			bad.that(f != nil, "server: %s[%d]: got nil, want an interceptor", name, i)
		}
	}
	for name, is := range map[string][]grpc.StreamServerInterceptor{"OutsideStreams": c.OutsideStreams, "InsideStreams": c.InsideStreams} {
		for i, f := range is {
			bad.that(f != nil, "server: %s[%d]: got nil, want an interceptor", name, i)
		}
	}
	return bad.err()
}
