package interceptors

import (
	"cmp"
	"context"
	"slices"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"google.golang.org/grpc"

	"github.com/weir-go/weir/interceptors/internal/match"
	"github.com/weir-go/weir/internal/check"
)

const (
	defaultSendStall = 2 * time.Minute
	shortestStall    = time.Millisecond
)

// A StreamRule says until when the streams of a server hold their permits, and how long they
// wait for a client that reads nothing. The zero StreamRule has the defaults.
type StreamRule struct {
	// UntilReady makes a stream hold its permit only until it is ready, that is, until its
	// handler calls [StreamReady] or returns. By default a stream holds its permit until its
	// handler returns, unless it calls StreamReady.
	//
	// The limit learns from the time until a stream is ready as from a unary call. A stream
	// that gets ready is a success, and the time until then its latency. A stream that fails
	// earlier counts by its error. So the limit of the gate may adapt. A stream that ends
	// without an error before it is ready is ignored. The limit does not bound the number of
	// open streams. Use admit.WithMaxOpen for that.
	UntilReady bool
	// ReadyAtFirstMessage makes a stream ready when a SendMsg of the handler has returned
	// without an error. It implies UntilReady.
	ReadyAtFirstMessage bool
	// ReadyAfter makes a stream ready after this time. The limit learns nothing from it then.
	// Zero means no such end. Otherwise it implies UntilReady.
	ReadyAfter time.Duration
	// SendStall bounds how long the SendMsg of a stream may wait for the transport. Zero means
	// the SendStall of [ServerConfig], or two minutes. A negative duration means no bound.
	// Otherwise it is at least a millisecond.
	//
	// In gRPC, SendMsg has no deadline. A client that stops reading holds the handler, its
	// memory and its permit until it disconnects. With the bound, a stream ends when a SendMsg
	// waits and none has returned for that time, or up to an eighth longer. Its status is
	// RESOURCE_EXHAUSTED with the reason "send_stalled" (see [RefusalFrom]), and SendMsg
	// returns an error that matches [ErrSendStalled].
	//
	// Progress is a message that the transport takes, because gRPC does not show bytes. So the
	// bound grows by a second for each 16 KiB of the last message, which must leave first. A
	// message that is neither a Protocol Buffers message nor bytes counts as 4 MiB. A client
	// that works for longer than the bound between two calls of Recv needs a longer bound, or
	// credit (package streamcredit).
	//
	// The permit is returned when the handler has returned. The transport keeps up to 64 KiB
	// and one message of the stream until the client reads them or disconnects. Package
	// keepalive of gRPC disconnects dead clients.
	//
	// The gate of the stream counts it (see admit.Stats.SendStalls) and logs it (see admit.WithLogger).
	//
	// There is no bound under grpc.Server.ServeHTTP, where a stuck write cannot be ended, and
	// outside of grpc.Server. Unary calls need none, because the transport takes one response
	// at once.
	SendStall time.Duration
}

// WithStreams applies a rule to the streams that match. A nil matcher matches every stream. If
// it is used several times, the first rule that matches is the only one for a stream.
//
//	interceptors.WithStreams(interceptors.StreamRule{ReadyAtFirstMessage: true}, interceptors.Methods("/shop.Feed/Watch"))
func WithStreams(r StreamRule, m Matcher) ServerOption {
	return serverOption(func(c *config) { c.streams = append(slices.Clip(c.streams), streamRule{r, m}) })
}

// untilReady reports whether streams hold their permits only until they are ready.
func (r *StreamRule) untilReady() bool {
	return r.UntilReady || r.ReadyAtFirstMessage || r.ReadyAfter > 0
}

// streamRules holds the rules for streams.
type streamRules []streamRule

type streamRule struct {
	StreamRule

	matcher Matcher // nil matches every stream
}

// find returns the rule for a stream. Its SendStall is not 0.
func (s streamRules) find(ctx context.Context, info *grpc.StreamServerInfo, stall time.Duration) (rule StreamRule) {
	for i := range s {
		r := &s[i]
		if r.matcher == nil || r.matcher.Match(ctx, middleware.NewServerCallMeta(info.FullMethod, info, nil)) {
			rule = r.StreamRule
			break
		}
	}
	rule.SendStall = cmp.Or(rule.SendStall, stall, defaultSendStall)
	return rule
}

// lasting reports whether streams hold their permits until their end.
func (s streamRules) lasting() bool {
	return !slices.ContainsFunc(s, func(r streamRule) bool { return r.untilReady() })
}

// check adds the mistakes of the rules.
func (s streamRules) check(bad *check.Errors) {
	for _, r := range s {
		bad.From("WithStreams", match.Check(r.matcher), nil)
		bad.That(r.ReadyAfter >= 0, "WithStreams: ReadyAfter: got %v, want 0 (no such end) or more", r.ReadyAfter)
		checkStall(bad, "WithStreams: SendStall", r.SendStall)
	}
}

// checkStall checks a bound for SendMsg.
func checkStall(bad *check.Errors, name string, d time.Duration) {
	bad.That(d <= 0 || d >= shortestStall, "%s: got %v, want 0 (the default), %v or more, or less than 0 (no bound)",
		name, d, shortestStall)
}
