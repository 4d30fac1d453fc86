package interceptors

import (
	"cmp"
	"math"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors/gates"
	"github.com/weir-go/weir/interceptors/memory"
	"github.com/weir-go/weir/internal/check"
)

// A ServerConfig lists the guards of a server. Gate alone guards its unary calls. If methods
// have different bottlenecks, Gates has a gate for each.
type ServerConfig struct {
	// Outside are the interceptors before the gates, from the outside to the inside, such
	// as metrics, recovery and authentication. OutsideStreams are the same for streams.
	Outside        []grpc.UnaryServerInterceptor
	OutsideStreams []grpc.StreamServerInterceptor
	// Gates are gates for some of the calls and streams; see package gates. A call that matches
	// none of them goes to Gate, and a stream to Streams.
	Gates gates.Rules
	// Gate admits the unary calls that match none of Gates. It may be nil only if there are
	// Gates. Then these calls are not limited.
	Gate *admit.Gate
	// Streams admits the streams that match none of Gates. Nil admits all of them. Give
	// streams a gate of their own, with a fixed limit. A stream holds its permit until its
	// end, or with [WithStreams] and [StreamReady] until it is set up.
	Streams *admit.Gate
	// SendStall bounds how long the transport may take nothing of a stream; see [StreamRule],
	// which sets it for some methods. It also applies to streams without a
	// gate, but not to exempt ones. Zero means two minutes, a negative duration no bound.
	SendStall time.Duration
	// Inside are the interceptors behind the gates, which run for admitted calls only, such
	// as validation and interceptors that set headers. InsideStreams are the same for
	// streams.
	Inside        []grpc.UnaryServerInterceptor
	InsideStreams []grpc.StreamServerInterceptor
	// Tap also refuses calls that the gate would refuse at once, before gRPC reads their message
	// or starts a goroutine for them. Use it if refusals alone use up the processor. Do not use
	// it if clients rely on the delay of the server, or if refusals are many and deadlines long
	// (a minute or more). It improves neither goodput nor latency. See "Taps" in the package
	// documentation. A tap cannot tell streams from unary calls, so it cannot be used with a
	// gate for streams.
	Tap bool
	// MaxConcurrentStreams bounds calls and streams together for each connection. A call
	// beyond it waits in the client, where no gate sees it. So it must not be less than the
	// number of calls that all gates let run and wait. A queue without a Capacity counts as
	// many places as there are permits, and at least 32. Zero means 1000, or 100 more than
	// that number if it is larger. It does not change when a limit grows. To bound
	// connections more tightly, append grpc.MaxConcurrentStreams to the options.
	MaxConcurrentStreams uint32
	// Memory is the memory budget of the process in bytes, at least 16 MiB. memory.SizesFor derives
	// the largest request and the windows from it, and MaxConcurrentStreams if that is zero.
	// Zero means gRPC's defaults. Other grpc.ServerOptions that you append override them.
	Memory int64
	// OnSizes, if not nil, is called once, by Server, with the sizes that follow from Memory, so that
	// you can log them.
	OnSizes func(memory.Sizes)
	// Bytes, if not nil, counts the bytes of the messages that the server holds. Give it to the
	// gates too, with admit.WithPressure(monitor, bytes). Calls then keep their permits until
	// their responses have left; see [WithHoldUntilSent].
	Bytes *memory.Bytes
}

// Server returns server options for a guarded server, with all interceptors in the right
// order. A connection must be set up within 10 s (grpc.ConnectionTimeout, which you may append
// to override it). It returns an error that wraps ErrConfig and names every mistake:
//
//   - no gate, a zero Gate, or a nil interceptor or option;
//   - one gate in two places (long streams would take the permits of calls), two gates
//     with one name, or a gate that no call can reach;
//   - a gate for streams with a limit that adapts, because it would learn nothing from
//     streams and stay where it starts. With [WithStreams] it may learn until they are ready;
//   - a class that no gate has, or a wrong method name (see [Methods]);
//   - a MaxConcurrentStreams that is too small for the gates;
//   - a Memory of less than 16 MiB, or a zero Bytes.
func Server(c ServerConfig, opts ...ServerOption) ([]grpc.ServerOption, error) {
	if err := c.validate(opts); err != nil {
		return nil, err
	}
	cfg := c.config(opts)
	var tap grpc.ServerOption = grpc.EmptyServerOption{}
	unary, stream := slices.Clone(c.Outside), slices.Clone(c.OutsideStreams)
	if r := c.router(unaryServer, c.Gate, cfg); r != nil {
		unary, tap = append(unary, r.unary), grpc.InTapHandle(r.tap)
	} else if c.Gate != nil {
		unary, tap = append(unary, cfg.server(c.Gate, unaryServer).unary), grpc.InTapHandle(cfg.tap(c.Gate))
	}
	if r := c.router(streamServer, c.Streams, cfg); r != nil {
		stream = append(stream, r.stream)
	} else if c.Streams != nil {
		stream = append(stream, cfg.server(c.Streams, streamServer).stream)
	} else {
		stream = append(stream, cfg.withoutGate)
	}
	server := []grpc.ServerOption{
		grpc.ConnectionTimeout(handshakeTime),
		grpc.MaxConcurrentStreams(cmp.Or(c.MaxConcurrentStreams, c.roomy())),
		grpc.ChainUnaryInterceptor(append(unary, c.Inside...)...),
		grpc.ChainStreamInterceptor(append(stream, c.InsideStreams...)...),
	}
	if c.Tap {
		server = append(server, tap)
	}
	return append(server, c.remember(cfg.hold)...), nil
}

// config returns the values of the options, and of the fields that are options too.
func (c *ServerConfig) config(opts []ServerOption) config {
	cfg := serverConfig(opts)
	cfg.stall = c.SendStall
	if c.Bytes != nil && cfg.hold == 0 {
		cfg.hold = defaultHold
	}
	return cfg
}

const (
	// handshakeTime bounds the set-up of a connection. gRPC's default is two minutes, for which
	// a connection that sends nothing also holds up GracefulStop and Stop.
	handshakeTime = 10 * time.Second

	usualStreams = 1000
	// spareStreams is room for the calls that the gates refuse.
	spareStreams = 100
)

// roomy returns a MaxConcurrentStreams at which the gates refuse calls before clients hold
// them.
func (c *ServerConfig) roomy() uint32 {
	return uint32(min(max(usualStreams, c.needed()+spareStreams), math.MaxInt32))
}

// needed returns how many calls all gates together let run and wait.
func (c *ServerConfig) needed() (n int) {
	for _, g := range c.gates() {
		if made(g) {
			n += gateFuncs.Room(g)
		}
	}
	return n
}

// gates returns all gates, each once.
func (c *ServerConfig) gates() (all []*admit.Gate) {
	for _, g := range append(c.Gates.All(), c.Gate, c.Streams) {
		if g != nil && !slices.Contains(all, g) {
			all = append(all, g)
		}
	}
	return all
}

func (c *ServerConfig) validate(opts []ServerOption) error {
	var bad check.Errors
	cfg := c.config(opts)
	lasting := cfg.streams.lasting()
	bad.That(c.Gate != nil || len(c.Gates) > 0, "server: Gate: got nil, want a gate, or Gates")
	checkGate(&bad, "server: Gate", c.Gate, false)
	checkGate(&bad, "server: Streams", c.Streams, lasting)
	bad.That(c.Gate == nil || c.Gate != c.Streams, "server: Streams: got the gate of the calls, want one of its own, or nil")
	c.validateGates(&bad, lasting)
	streams := c.Streams != nil || slices.ContainsFunc(c.Gates, func(r gates.Rule) bool { return r.Streams })
	bad.That(!c.Tap || !streams, "server: Tap: got it with Streams, want one of them")
	calls := c.Gate != nil || slices.ContainsFunc(c.Gates, func(r gates.Rule) bool { return !r.Streams })
	bad.That(!c.Tap || calls, "server: Tap: got it without a gate for unary calls, want one")
	without(&bad, "Outside", c.Outside)
	without(&bad, "OutsideStreams", c.OutsideStreams)
	without(&bad, "Inside", c.Inside)
	without(&bad, "InsideStreams", c.InsideStreams)
	if most, need := c.MaxConcurrentStreams, c.needed(); most > 0 {
		bad.That(int64(most) >= int64(need),
			"server: MaxConcurrentStreams: got %d, want at least %d, which the gates let run and wait, or 0 (%d here)",
			most, need, c.roomy())
	}
	c.validateMemory(&bad)
	checkStall(&bad, "server: SendStall", c.SendStall)
	bad.From("server", cfg.checkOptions(c.gates()...), nil)
	return bad.Err(ErrConfig)
}

// without checks that there is no nil among interceptors.
func without[F grpc.UnaryServerInterceptor | grpc.StreamServerInterceptor](bad *check.Errors, name string, all []F) {
	for i, f := range all {
		bad.That(f != nil, "server: %s[%d]: got nil, want an interceptor", name, i)
	}
}
