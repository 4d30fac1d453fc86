package streamcredit

import (
	"fmt"
	"math"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/streamcredit/internal/ledger"
)

// Options are sealed, and typed by what they act on: one that means nothing to a
// Sender does not compile there. A Duplex takes all of them.
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

// windowMode is how a receiver finds out how much to ask for.
type windowMode uint8

const (
	autoWindow windowMode = iota
	fixedWindow
	manualDemand
)

// config is what the options say, both directions of it.
type config struct {
	role      role
	handshake time.Duration
	heartbeat time.Duration
	meter     *Meter
	setup     any // a client's first element
	call      []grpc.CallOption
	unaware   bool // a server talks to clients that know nothing of this

	firstRequest time.Duration
	stall        time.Duration
	maxCredit    int64
	rejectCredit bool
	onConsumed   func(uint64)

	mode        windowMode
	windows     int // options that set it
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
	// largestWindow keeps a window from being mistaken for unbounded demand.
	largestWindow = math.MaxInt32
)

// WithHandshakeTimeout bounds how long to wait for the peer's Open; the default is
// 10 s. It must be positive.
func WithHandshakeTimeout(d time.Duration) Option {
	return bothOption(func(c *config) { c.handshake = d })
}

// WithHeartbeat asks the peer to show life at least every d, which is 100 ms or more. The
// stream ends with UNAVAILABLE, PEER_STALLED, when nothing has come for three times d. It
// finds a peer whose machine is gone while TCP has not noticed; grpc.keepalive does so for a
// whole connection. Zero, the default: no heartbeats. A peer that does not know heartbeats
// (FEATURE_HEARTBEAT) is refused with FAILED_PRECONDITION, VERSION; one that is unaware of the
// protocol ([AllowUnaware]) is not watched.
//
// No heartbeat can overtake an element that is on its way. weir's senders announce elements
// of more than 64 KiB times d, in seconds; each second of patience more is for 64 KiB of
// them. Other senders may not: choose d so that the largest element arrives within three times
// d.
func WithHeartbeat(d time.Duration) Option {
	return bothOption(func(c *config) { c.heartbeat = d })
}

// WithMeter counts the stream in m.
func WithMeter(m *Meter) Option { return bothOption(func(c *config) { c.meter = m }) }

// WithSetup sends message, one of the client's stream, with the client's Open: the
// query of a subscription, say. It costs no credit and no round trip. The server's
// constructor returns it. The client's returns an error that wraps ErrInvalid, and makes no
// call, if message is not of the type that the stream sends. For clients only.
func WithSetup(message any) Option { return bothOption(func(c *config) { c.setup = message }) }

// WithCallOptions makes the call with opts, as for a call of grpc's own. For clients only.
func WithCallOptions(opts ...grpc.CallOption) Option {
	return bothOption(func(c *config) { c.call = append(c.call, opts...) })
}

// AllowUnaware lets a server talk to clients that know nothing of the protocol, whose
// first message has no Control: they are sent elements without bound, and what
// they send is bound by HTTP/2's flow control alone. Without it they are refused with
// FAILED_PRECONDITION. For servers only.
func AllowUnaware() Option { return bothOption(func(c *config) { c.unaware = true }) }

// SendOnly has a Duplex send only: its In is nil.
func SendOnly() DuplexOption { return bothOption(func(c *config) { c.role.receives = false }) }

// ReceiveOnly has a Duplex receive only: its Out is nil.
func ReceiveOnly() DuplexOption { return bothOption(func(c *config) { c.role.sends = false }) }

// WithFirstRequestTimeout bounds how long a receiver may take to ask for anything at
// all; then the stream ends with DEADLINE_EXCEEDED, FIRST_REQUEST_TIMEOUT. Zero: no
// bound. The default is 30 s for servers and none for clients.
func WithFirstRequestTimeout(d time.Duration) SendOption {
	return sendOption(func(c *config) { c.firstRequest = d })
}

// WithSendStallTimeout bounds how long one Send may wait for credit; then the stream
// ends with DEADLINE_EXCEEDED, CREDIT_STARVED. Zero, the default: no bound.
func WithSendStallTimeout(d time.Duration) SendOption {
	return sendOption(func(c *config) { c.stall = d })
}

// WithMaxPeerCredit bounds the credit that a sender has at any time to n elements: what is
// asked for beyond is there once there is room for it, or, with reject, ends the stream
// with RESOURCE_EXHAUSTED, DEMAND_TOO_LARGE. With reject, Open announces the bound, and weir's
// receivers stay below it, but for what a client asks for with [Receiver.Request] before it has
// the server's Open. By default there is no bound, and demand may be unbounded.
func WithMaxPeerCredit(n int64, reject bool) SendOption {
	return sendOption(func(c *config) { c.maxCredit, c.rejectCredit = n, reject })
}

// WithOnConsumed calls f with the number of elements that the receiver is done with,
// each time that it grows: where the elements come from a broker, it can be told now.
// f is called by one goroutine at a time, not for each element, and may block; a
// panic or runtime.Goexit in it ends the stream with INTERNAL. The end of a client's call
// waits for f: do not call Close or Finish in it.
func WithOnConsumed(f func(consumed uint64)) SendOption {
	return sendOption(func(c *config) { c.onConsumed = f })
}

// WithWindow has the receiver ask for up to n elements ahead of what is consumed,
// from 1 to 2^31-1. The default is [WithAutoWindow].
func WithWindow(n int) ReceiveOption {
	return receiveOption(func(c *config) { c.mode, c.size = fixedWindow, n; c.windows++ })
}

// WithLowWater has the receiver ask for more when what was asked for and is not consumed has
// fallen to n, which makes each Request at least the window less n. The default is half of
// the window up to 64 elements, three quarters to 512, and seven eighths beyond. For
// a fixed window only.
func WithLowWater(n int) ReceiveOption {
	return receiveOption(func(c *config) { c.low = &n })
}

// AutoWindow bounds a window that finds its size by itself. Zero fields mean the
// defaults.
type AutoWindow struct {
	Min   int   // elements; default 16
	Max   int   // elements; default 65536
	Bytes int64 // payload of a full window; default 16 MiB
}

// WithAutoWindow has the window grow while the sender waits for demand and the
// consumer for elements, and shrink when elements only queue, within bounds. The
// default, with its defaults.
func WithAutoWindow(a AutoWindow) ReceiveOption {
	return receiveOption(func(c *config) { c.mode, c.auto = autoWindow, a; c.windows++ })
}

// WithManualDemand leaves all demand to [Receiver.Request].
func WithManualDemand() ReceiveOption {
	return receiveOption(func(c *config) { c.mode = manualDemand; c.windows++ })
}

// WithByteWindow bounds the bytes that were sent and are not consumed: at n the sender
// waits, whatever the credit. One element may exceed it. Zero, the default: no bound.
func WithByteWindow(n int64) ReceiveOption {
	return receiveOption(func(c *config) { c.byteWindow = n })
}

// WithMaxMessageBytes has the peer not send elements larger than n bytes: its Send
// fails without harm, while gRPC's own limit ends the stream. Zero, the default: no
// bound.
func WithMaxMessageBytes(n int64) ReceiveOption {
	return receiveOption(func(c *config) { c.maxMessage = n })
}

// WithBudget has the receiver ask for no more than b has room for. With manual demand, what
// is asked for beyond that is asked for when there is room.
func WithBudget(b *Budget) ReceiveOption {
	return receiveOption(func(c *config) { c.budget = b })
}

// WithExplicitDone has elements count as consumed when [Receiver.Done] says so, and not
// when Recv returns them or the body of All has ended. The window bounds the elements that the
// application has and is not done with. An application that takes more of them before it calls
// Done waits for ever: give it a window that it cannot fill, as in WithWindow(2*batch). The
// automatic window begins with 64. [ReceiverStats].Held shows the stall: it is equal to Window
// while a Recv waits.
func WithExplicitDone() ReceiveOption {
	return receiveOption(func(c *config) { c.explicit = true })
}

// WithErrorAtOnce has Recv return an error as soon as it has arrived, and not after the
// elements that were sent before it.
func WithErrorAtOnce() ReceiveOption {
	return receiveOption(func(c *config) { c.errorAtOnce = true })
}

// A role is what one end of a stream does.
type role struct{ server, sends, receives bool }

func newConfig[O DuplexOption](r role, opts []O) (*config, error) {
	c := &config{role: r, handshake: defaultHandshake}
	if r.server {
		c.firstRequest = defaultFirstRequest
	}
	for _, o := range opts {
		o.apply(c)
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// validate checks everything, so that all that is wrong is said at once.
func (c *config) validate() error {
	var wrong []string
	want := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	r := c.role
	want(r.sends || r.receives, "got SendOnly and ReceiveOnly, want one of them")
	want(c.handshake > 0, "got a handshake timeout of %v, want it positive", c.handshake)
	want(c.heartbeat == 0 || c.heartbeat >= minHeartbeat, "got a heartbeat of %v, want 0 or at least %v", c.heartbeat, minHeartbeat)
	want(c.firstRequest >= 0 && c.stall >= 0, "got timeouts %v and %v, want none negative", c.firstRequest, c.stall)
	want(c.maxCredit >= 0, "got a largest peer credit of %d, want it positive, or 0 for no bound", c.maxCredit)
	want(c.byteWindow >= 0 && c.maxMessage >= 0, "got bounds of %d and %d bytes, want none negative", c.byteWindow, c.maxMessage)
	want(c.setup == nil || !r.server, "got a setup element on a server, want it on the client")
	want(len(c.call) == 0 || !r.server, "got call options on a server, want them on the client")
	want(!c.unaware || r.server, "got AllowUnaware on a client, want it on the server")
	want(c.windows <= 1, "got %d options that set the window, want one", c.windows)
	want(c.mode != fixedWindow || c.size >= 1 && c.size <= largestWindow, "got a window of %d, want 1 to %d", c.size, largestWindow)
	want(c.low == nil || c.mode == fixedWindow && *c.low >= 0 && *c.low < c.size,
		"got a low-water mark, want it with a fixed window, and below it")
	a := c.auto.defaults()
	want(a.Min >= 1 && a.Min <= a.Max && a.Max <= largestWindow && a.Bytes > 0,
		"got an automatic window %+v, want 1 <= Min <= Max <= %d and Bytes positive", c.auto, largestWindow)
	if len(wrong) == 0 {
		return nil
	}
	return invalid("%s", strings.Join(wrong, "; "))
}

// newWindow returns the window that the options ask for.
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
