package interceptors

import (
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/interceptors/throttle"
	"github.com/weir-go/weir/internal/check"
)

// A ClientConfig configures [Client]. Each field adds a protection, and a zero field adds none.
type ClientConfig struct {
	// Propagate sends the class of each call, and passes for the permits of the call that it is
	// made for, to servers with [WithPropagation]. The class is the one of [ContextWithClass],
	// or of the call that is being served, or that of calls which wait for a permit of the
	// served call if it is higher. A call that cannot end before its deadline fails at once with
	// DEADLINE_EXCEEDED; see the package documentation.
	//
	// Set it only for clients of your own services. A service that gets a pass can use the
	// permit while it is held.
	Propagate bool
	// DeadlineMargin is taken off the deadline of each call, to leave time for the work that
	// follows its answer. It needs Propagate. Zero means no margin.
	DeadlineMargin time.Duration
	// Throttle refuses calls to targets that refuse them.
	Throttle *throttle.Throttle
	// Gate bounds how many unary calls are in flight, Streams how many streams are open.
	Gate, Streams *admit.Gate
	// Breaker refuses calls to methods that fail.
	Breaker *breaker.Breaker
	// Retry makes gRPC retry calls.
	Retry *retry.Config
	// Retries counts the retries of gRPC, and estimates its budget. It costs about 20
	// allocations for each call.
	Retries *retry.Meter
	// SecondRetries is called with a method that go-grpc-middleware's interceptor further
	// out retries as well; see [retry.UnaryGuard]. It is used only with Retry.
	SecondRetries func(target, method string)
}

// Client returns dial options for a careful client. From the outside to the inside, the
// order of the parts is propagation, throttle, gate, breaker, and gRPC's own retries. Then
// no retry counts twice, and the wait for a permit does not look like a slow server. The
// options configure the gates. Interceptors in earlier dial options stand outside of these.
// Interceptors in later dial options stand between these and gRPC.
//
// The error wraps ErrConfig and names every mistake. It is a mistake to configure no part,
// to use one gate for calls and streams (long streams would take the permits of calls), to
// give streams a gate with a limit that adapts, and to pass a zero part or a wrong option,
// class or method.
func Client(c ClientConfig, opts ...ClientOption) ([]grpc.DialOption, error) {
	if err := c.validate(opts); err != nil {
		return nil, err
	}
	var unary []grpc.UnaryClientInterceptor
	var stream []grpc.StreamClientInterceptor
	var retries grpc.DialOption
	if c.Retry != nil {
		var err error
		if retries, err = retry.DialOption(*c.Retry); err != nil {
			return nil, err
		}
		if c.SecondRetries != nil {
			unary = append(unary, retry.UnaryGuard(c.SecondRetries))
			stream = append(stream, retry.StreamGuard(c.SecondRetries))
		}
	}
	if c.Propagate {
		unary = append(unary, unaryPropagation(c.DeadlineMargin))
		stream = append(stream, streamPropagation(c.DeadlineMargin))
	}
	if c.Throttle != nil {
		unary = append(unary, throttle.Unary(c.Throttle))
		stream = append(stream, throttle.Stream(c.Throttle))
	}
	if c.Gate != nil {
		unary = append(unary, UnaryClient(c.Gate, opts...))
	}
	if c.Streams != nil {
		stream = append(stream, StreamClient(c.Streams, opts...))
	}
	if c.Breaker != nil {
		unary = append(unary, breaker.Unary(c.Breaker))
		stream = append(stream, breaker.Stream(c.Breaker))
	}
	if retries != nil {
		unary, stream = append(unary, unaryRestore), append(stream, streamRestore)
	}
	dial := []grpc.DialOption{grpc.WithChainUnaryInterceptor(unary...), grpc.WithChainStreamInterceptor(stream...)}
	if retries != nil {
		dial = append(dial, retries)
	}
	return append(dial, c.Retries.DialOptions(c.Retry)...), nil
}

func (c *ClientConfig) validate(opts []ClientOption) error {
	var bad check.Errors
	some := c.Retry != nil || c.Retries != nil || c.Propagate ||
		c.Throttle != nil || c.Gate != nil || c.Streams != nil || c.Breaker != nil
	bad.That(some, "client: got nothing configured, want at least one part")
	checkGate(&bad, "client: Gate", c.Gate, false)
	checkGate(&bad, "client: Streams", c.Streams, true)
	bad.That(c.Gate == nil || c.Gate != c.Streams, "client: Streams: got the gate of the calls, want one of its own, or nil")
	bad.That(c.Throttle == nil || c.Throttle.Name() != "", "client: Throttle: got a zero Throttle, want one from throttle.New")
	bad.That(c.Breaker == nil || c.Breaker.Name() != "", "client: Breaker: got a zero Breaker, want one from breaker.New")
	bad.That(c.Retries == nil || c.Retries.Name() != "", "client: Retries: got a zero or nameless Meter, want one from retry.NewMeter")
	bad.That(c.DeadlineMargin >= 0, "client: DeadlineMargin: got %v, want 0 or more", c.DeadlineMargin)
	bad.That(c.DeadlineMargin <= 0 || c.Propagate, "client: DeadlineMargin: got %v without Propagate, want both or none", c.DeadlineMargin)
	if c.Retry != nil {
		_, err := c.Retry.ServiceConfig()
		bad.From("client: Retry", err, retry.ErrConfig)
	}
	cfg := clientConfig(opts)
	bad.From("client", cfg.checkOptions(c.Gate, c.Streams), nil)
	return bad.Err(ErrConfig)
}
