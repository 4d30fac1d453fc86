package streamcredit

import (
	"context"
	"math"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/internal/check"
	"github.com/weir-go/weir/streamcredit/internal/ledger"
)

// Options are sealed, and typed by the direction that they configure. An option that does not
// apply to a Sender does not compile for one. A Duplex takes all of them.
type (
	// A DuplexOption configures either direction, or both.
	DuplexOption interface{ apply(c *config) }
	// A SendOption configures the sending direction.
	SendOption interface {
		DuplexOption
		sends()
	}
	// A ReceiveOption configures the receiving direction.
	ReceiveOption interface {
		DuplexOption
		receives()
	}
	// An Option is for all constructors.
	Option interface {
		SendOption
		receives()
	}
)

type (
	bothOption    func(*config)
	sendOption    func(*config)
	receiveOption func(*config)
)

func (o bothOption) apply(c *config)    { o(c) }
func (o sendOption) apply(c *config)    { o(c) }
func (o receiveOption) apply(c *config) { o(c) }
func (bothOption) sends()               {}
func (bothOption) receives()            {}
func (sendOption) sends()               {}
func (receiveOption) receives()         {}

// windowMode selects how a receiver decides how much to request.
type windowMode uint8

const (
	autoWindow windowMode = iota
	fixedWindow
	manualDemand
)

// config is the result of the options, for both directions.
type config struct {
	role      role
	handshake time.Duration
	heartbeat time.Duration
	meter     *Meter
	setup     any // a client's first element
	call      []grpc.CallOption
	unaware   bool // a server accepts clients that do not know the protocol

	firstRequest time.Duration
	stall        time.Duration
	maxCredit    int64
	rejectCredit bool
	onConsumed   func(uint64)
	onStarved    func(context.Context, time.Duration)

	mode        windowMode
	windows     int // number of options that set mode
	size        int // of a fixed window
	low         *int
	auto        AutoWindow
	byteWindow  int64
	maxMessage  int64
	budget      *Budget
	explicit    bool
	errorAtOnce bool
}

const (
	defaultHandshake    = 10 * time.Second
	defaultFirstRequest = 30 * time.Second
	// largestWindow keeps a window apart from unbounded demand.
	largestWindow = math.MaxInt32
)

// WithHandshakeTimeout bounds the wait for the peer's Open. It must be positive. The default is
// 10 s.
func WithHandshakeTimeout(d time.Duration) Option {
	return bothOption(func(c *config) { c.handshake = d })
}

// WithHeartbeat makes the peer send a message at least every d, which is 100 ms or more. If
// nothing arrives for three times d, the stream ends with UNAVAILABLE, PEER_STALLED. Heartbeats
// detect a peer that is gone while TCP has not noticed. The package grpc/keepalive does so for a
// whole connection. Zero, the default, means no heartbeats. A peer that does not know heartbeats
// (FEATURE_HEARTBEAT) is refused with FAILED_PRECONDITION, VERSION. A peer that does not know the
// protocol ([WithPlainClients]) is not watched.
//
// A heartbeat cannot overtake an element on its way. weir's senders announce each element that is
// larger than 64 KiB times d in seconds, and the receiver then waits one second longer for each
// 64 KiB of it. Other senders may not announce elements. For them, choose d so that the largest
// element arrives within three times d.
func WithHeartbeat(d time.Duration) Option {
	return bothOption(func(c *config) { c.heartbeat = d })
}

// WithMeter counts the stream in m, from its opening to its end. Many streams may share a meter. The
// default is nil, which counts nothing.
func WithMeter(m *Meter) Option { return bothOption(func(c *config) { c.meter = m }) }

// WithSetup sends message with the client's Open, for example the query of a subscription. It
// costs no credit and no round trip. The constructor on the server returns it. message must have
// the type that the client sends. Otherwise the constructor on the client returns an error that
// wraps ErrInvalid and makes no call. For clients only.
func WithSetup(message any) Option { return bothOption(func(c *config) { c.setup = message }) }

// WithCallOptions makes the call with opts, like the options of any gRPC call. For clients only.
func WithCallOptions(opts ...grpc.CallOption) Option {
	return bothOption(func(c *config) { c.call = append(c.call, opts...) })
}

// WithPlainClients lets a server accept clients without the protocol. The first message of
// such a client has no Control. The server sends it elements without bound, and only HTTP/2 flow
// control bounds the elements that the client sends. Without this option the client is refused
// with FAILED_PRECONDITION. For servers only.
func WithPlainClients() Option { return bothOption(func(c *config) { c.unaware = true }) }

// WithSendOnly makes a Duplex send only. Its In is nil.
func WithSendOnly() DuplexOption { return bothOption(func(c *config) { c.role.receives = false }) }

// WithReceiveOnly makes a Duplex receive only. Its Out is nil.
func WithReceiveOnly() DuplexOption { return bothOption(func(c *config) { c.role.sends = false }) }

// WithFirstRequestTimeout bounds the time until the receiver's first request. After it the stream
// ends with DEADLINE_EXCEEDED, FIRST_REQUEST_TIMEOUT. Zero means no bound. The default is 30 s
// for servers and no bound for clients.
func WithFirstRequestTimeout(d time.Duration) SendOption {
	return sendOption(func(c *config) { c.firstRequest = d })
}

// WithSendStallTimeout bounds the time that one Send may wait for credit. After it the stream
// ends with DEADLINE_EXCEEDED, CREDIT_STARVED. Zero, the default, means no bound.
func WithSendStallTimeout(d time.Duration) SendOption {
	return sendOption(func(c *config) { c.stall = d })
}

// WithOnStarved sets a function that Send and WaitCredit call after each wait for demand, for example to
// add it to a trace. It gets their context and the duration of the wait, also if the wait ended with
// an error. It runs in the goroutine of Send without locks held, and delays Send. With several
// senders at once it must be safe for concurrent use.
func WithOnStarved(f func(ctx context.Context, wait time.Duration)) SendOption {
	return sendOption(func(c *config) { c.onStarved = f })
}

// WithMaxPeerCredit bounds the credit of a sender to n elements at any time. Demand beyond n is
// kept, and becomes credit as elements are sent. Zero, the default, means no bound, and demand
// may be unbounded. Of WithMaxPeerCredit and [WithMaxPeerDemand] the last one counts.
func WithMaxPeerCredit(n int64) SendOption {
	return sendOption(func(c *config) { c.maxCredit, c.rejectCredit = n, false })
}

// WithMaxPeerDemand bounds the demand of the receiver to n elements at any time. A receiver that
// asks for more ends the stream with RESOURCE_EXHAUSTED, DEMAND_TOO_LARGE. Open announces the
// bound. weir's receivers stay below it, except for demand of [Receiver.Request] before the
// server's Open has arrived. Zero, the default, means no bound.
func WithMaxPeerDemand(n int64) SendOption {
	return sendOption(func(c *config) { c.maxCredit, c.rejectCredit = n, true })
}

// WithOnConsumed calls f with the number of elements that the receiver has consumed, when that
// number has grown. A sender that forwards messages of a broker can acknowledge them in f. f is
// called by one goroutine at a time, and not once for each element. It may block. If f panics or
// calls runtime.Goexit, the stream ends with INTERNAL. The end of a client's call waits for f, so
// f must not call Close or Finish.
func WithOnConsumed(f func(consumed uint64)) SendOption {
	return sendOption(func(c *config) { c.onConsumed = f })
}

// WithWindow makes the receiver request up to n elements ahead of the consumed ones. n is from 1
// to 2^31-1. The default is [WithAutoWindow].
func WithWindow(n int) ReceiveOption {
	return receiveOption(func(c *config) { c.mode, c.size = fixedWindow, n; c.windows++ })
}

// WithLowWater makes the receiver request more once the number of elements that are requested and
// not consumed has fallen to n. Each Request is then for at least the window less n. The default
// is half of a window of up to 64 elements, three quarters of one of 128 to 512, and seven eighths
// of one of 1,024 or more, with values in between. For a fixed window only.
func WithLowWater(n int) ReceiveOption {
	return receiveOption(func(c *config) { c.low = &n })
}

// AutoWindow bounds a window that adapts its size. A zero field means its default.
type AutoWindow struct {
	Min   int   // elements; default 16
	Max   int   // elements; default 65536
	Bytes int64 // payload of a full window; default 16 MiB
}

// WithAutoWindow makes the window grow while the sender waits for demand and the consumer for
// elements, and shrink while elements only queue, within the bounds of a. It is the default, with
// the defaults of [AutoWindow].
func WithAutoWindow(a AutoWindow) ReceiveOption {
	return receiveOption(func(c *config) { c.mode, c.auto = autoWindow, a; c.windows++ })
}

// WithManualDemand leaves all demand to [Receiver.Request].
func WithManualDemand() ReceiveOption {
	return receiveOption(func(c *config) { c.mode = manualDemand; c.windows++ })
}

// WithByteWindow bounds the bytes that are sent and not consumed. At n bytes the sender waits,
// even with credit. One element may exceed the bound. Zero, the default, means no bound.
func WithByteWindow(n int64) ReceiveOption {
	return receiveOption(func(c *config) { c.byteWindow = n })
}

// WithMaxMessageBytes bounds the elements that the peer may send to n bytes. The peer's Send
// fails for a larger one, and the stream goes on, while gRPC's own limit ends the stream. Zero,
// the default, means no bound.
func WithMaxMessageBytes(n int64) ReceiveOption {
	return receiveOption(func(c *config) { c.maxMessage = n })
}

// WithBudget makes the receiver request no more than b has room for. With manual demand the rest
// is requested when there is room.
func WithBudget(b *Budget) ReceiveOption {
	return receiveOption(func(c *config) { c.budget = b })
}

// WithExplicitConsume makes elements count as consumed when [Receiver.Consume] says so, and not when
// Recv returns them or the body of an All loop has ended. The window then bounds the elements
// that the application holds. An application that needs more of them before it calls Consume waits
// for ever. Give it a window that it cannot fill, such as WithWindow(2*batch). The automatic
// window begins with 64 elements. [ReceiverStats] shows the stall: Held is equal to Window while
// a Recv waits.
func WithExplicitConsume() ReceiveOption {
	return receiveOption(func(c *config) { c.explicit = true })
}

// WithErrorAtOnce makes Recv return an error as soon as it has arrived. Recv then does not return
// the elements that are still buffered.
func WithErrorAtOnce() ReceiveOption {
	return receiveOption(func(c *config) { c.errorAtOnce = true })
}

// A role says in which directions one end of a stream carries elements, and whether it is the
// server.
type role struct{ server, sends, receives bool }

func newConfig[O DuplexOption](r role, opts []O) (*config, error) {
	c := &config{role: r, handshake: defaultHandshake}
	if r.server {
		c.firstRequest = defaultFirstRequest
	}
	var bad check.Errors
	for i, o := range opts {
		if any(o) == nil {
			bad.That(false, "option %d: got nil, want an option", i)
			continue
		}
		o.apply(c)
	}
	c.validate(&bad)
	if err := misused(bad); err != nil {
		return nil, err
	}
	return c, nil
}

// validate adds every mistake in the options to bad.
func (c *config) validate(bad *check.Errors) {
	r := c.role
	bad.That(r.sends || r.receives, "WithSendOnly and WithReceiveOnly: got both, want one of them")
	check.Positive(bad, "WithHandshakeTimeout", c.handshake)
	bad.That(c.heartbeat == 0 || c.heartbeat >= minHeartbeat,
		"WithHeartbeat: got %v, want at least %v, or 0 for none", c.heartbeat, minHeartbeat)
	bad.That(c.setup == nil || !r.server, "WithSetup: got one on a server, want it on the client")
	bad.That(len(c.call) == 0 || !r.server, "WithCallOptions: got %d on a server, want them on the client", len(c.call))
	bad.That(!c.unaware || r.server, "WithPlainClients: got it on a client, want it on the server")
	check.NotNegative(bad, "WithFirstRequestTimeout", c.firstRequest, "no bound")
	check.NotNegative(bad, "WithSendStallTimeout", c.stall, "no bound")
	check.NotNegative(bad, c.maxCreditOption(), c.maxCredit, "no bound")
	check.NotNegative(bad, "WithByteWindow", c.byteWindow, "no bound")
	check.NotNegative(bad, "WithMaxMessageBytes", c.maxMessage, "no bound")
	bad.That(c.budget.made(), "WithBudget: got a zero Budget, want one from NewBudget")
	bad.That(c.windows <= 1, "window: got %d options that set it, want one", c.windows)
	fixed := c.mode == fixedWindow
	if fixed {
		check.Between(bad, "WithWindow", c.size, 1, largestWindow)
	}
	if c.low != nil {
		bad.That(fixed, "WithLowWater: got %d without a fixed window, want WithWindow beside it", *c.low)
		bad.That(!fixed || *c.low >= 0 && *c.low < c.size,
			"WithLowWater: got %d, want 0 to %d, which is below the window", *c.low, c.size-1)
	}
	a := c.auto.defaults()
	check.Between(bad, "WithAutoWindow: Min", a.Min, 1, largestWindow)
	bad.That(c.auto.Max == 0 || a.Max >= a.Min && a.Max <= largestWindow,
		"WithAutoWindow: Max: got %d, want Min (%d) to %d", a.Max, a.Min, largestWindow)
	check.Positive(bad, "WithAutoWindow: Bytes", a.Bytes)
}

// maxCreditOption returns the option that has set maxCredit.
func (c *config) maxCreditOption() string {
	if c.rejectCredit {
		return "WithMaxPeerDemand"
	}
	return "WithMaxPeerCredit"
}

// newWindow returns the window that the options configure.
func (c *config) newWindow() ledger.Window {
	switch c.mode {
	case manualDemand:
		return ledger.Window{}
	case fixedWindow:
		low := int64(-1)
		if c.low != nil {
			low = int64(*c.low)
		}
		return ledger.Fixed(int64(c.size), low)
	default:
		a := c.auto.defaults()
		return ledger.Automatic(int64(a.Min), int64(a.Max), a.Bytes)
	}
}

func (a AutoWindow) defaults() AutoWindow {
	if a.Min == 0 {
		a.Min = ledger.AutoMin
		if a.Max > 0 {
			a.Min = min(a.Min, a.Max)
		}
	}
	if a.Max == 0 {
		a.Max = max(ledger.AutoMax, a.Min)
	}
	if a.Bytes == 0 {
		a.Bytes = ledger.AutoBytes
	}
	return a
}
