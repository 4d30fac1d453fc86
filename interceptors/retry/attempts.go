package retry

import (
	"context"
	"strconv"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// pushbackKey is the metadata in which a server asks for a delay, or forbids a retry.
const pushbackKey = "grpc-retry-pushback-ms"

// A metered is a call under way. gRPC reports its attempts one after the other.
type metered struct {
	*tally
	watcher *watcher
	cc      *grpc.ClientConn
	method  string
	kept    int // how many bytes gRPC keeps, to send them again

	// These are set when the first attempt begins, because a connection has no policy before.
	budget *budget             // nil if not known
	codes  map[codes.Code]bool // that are retried
	most   int                 // attempts

	open     atomic.Bool  // an attempt has begun and not ended
	tries    atomic.Int32 // without transparent ones
	finished atomic.Bool
	answered atomic.Bool  // the attempt has got a header, so gRPC does not retry it
	sent     atomic.Int64 // bytes of the attempt
	last     atomic.Int32 // how the attempt ended, as an end
}

// An end is how an attempt ended, as far as retries go.
type end = int32

const (
	unclear   end = iota // gRPC did not say, as it does not if the request was not sent in full
	final                // no retry is possible, and no token is taken
	forbidden            // by the server
	retryable
)

// begin is called when an attempt begins. If a call has found no connection, gRPC begins each of
// its retries twice, and ends the second one only.
func (c *metered) begin(transparent bool) {
	if c.open.Swap(true) {
		return
	}
	c.answered.Store(false)
	c.sent.Store(0)
	c.last.Store(unclear)
	switch {
	case transparent:
		c.transparent.Add(1)
	case c.tries.Add(1) == 1:
		c.calls.Add(1)
		c.policy()
	default:
		c.retries.Add(1)
		c.budget.count(retried)
	}
}

// policy finds the policy and the budget of the call.
func (c *metered) policy() {
	own := c.watcher.policy
	if c.cc == nil {
		return
	}
	p := c.cc.GetMethodConfig(c.method).RetryPolicy
	if p != nil {
		c.codes, c.most = p.RetryableStatusCodes, p.MaxAttempts
	}
	if own == nil {
		return
	}
	c.budget = c.watcher.meter.budgets.of(c.cc, own)
	c.budget.trust(own.covers(c.method) == (p != nil) && (p == nil || own.allows(p.RetryableStatusCodes) &&
		p.MaxAttempts <= own.MaxAttempts && p.BackoffMultiplier == own.Multiplier &&
		p.InitialBackoff == own.InitialBackoff && p.MaxBackoff == own.MaxBackoff))
}

// ended is called when an attempt has ended.
func (c *metered) ended(err error, trailer metadata.MD) {
	c.open.Store(false)
	pushback := trailer[pushbackKey]
	switch {
	case c.answered.Load():
		c.last.Store(final)
	case len(pushback) > 0 && forbids(pushback):
		c.last.Store(forbidden)
	case err == nil:
		c.last.Store(unclear)
	case c.codes[status.Code(err)]:
		c.last.Store(retryable)
	default:
		c.last.Store(final)
	}
}

// forbids reports whether gRPC takes a pushback as an order not to retry.
func forbids(pushback []string) bool {
	ms, err := strconv.Atoi(pushback[0])
	return len(pushback) > 1 || err != nil || ms < 0
}

// finish is called when the call has ended. certain is whether nothing but the policy and the
// budget can have kept gRPC from a retry.
func (c *metered) finish(err error, certain bool) {
	last, tries := c.last.Load(), int(c.tries.Load())
	switch {
	case c.finished.Swap(true) || tries == 0:
	case err == nil:
		c.budget.count(succeeded)
	case last == final, last != unclear && c.sent.Load() > int64(c.kept): // gRPC could not send it again
	default:
		if certain && last == retryable && c.codes[status.Code(err)] && tries < c.most {
			c.withheld.Add(1)
		}
		c.budget.count(failed)
	}
}

// attempts is a stats handler for the calls that a meter counts.
type attempts struct{ meter *Meter }

// HandleRPC implements stats.Handler.
func (a attempts) HandleRPC(ctx context.Context, s stats.RPCStats) {
	call, ok := ctx.Value(a.meter).(*metered)
	if !ok {
		return // the interceptor is missing
	}
	switch s := s.(type) {
	case *stats.Begin:
		call.begin(s.IsTransparentRetryAttempt)
	case *stats.OutPayload:
		call.sent.Add(int64(s.WireLength))
	case *stats.InHeader:
		call.answered.Store(true)
	case *stats.End:
		call.ended(s.Error, s.Trailer)
	}
}

// TagRPC implements stats.Handler.
func (attempts) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn implements stats.Handler.
func (attempts) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (attempts) HandleConn(context.Context, stats.ConnStats) {}
