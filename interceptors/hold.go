package interceptors

import (
	"context"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors/internal/hold"
)

// defaultHold is how long a call may keep its permit after its end.
const defaultHold = 2 * time.Minute

// WithHoldUntilSent keeps the permits of calls and streams until their responses have left the
// process, for at most d after the handler has returned. Zero, the default, means two minutes
// if ServerConfig.Bytes is set, and otherwise not at all. A negative duration means never. With
// a positive duration and without ServerConfig.Bytes, [Server] counts the bytes of messages
// without a limit. [UnaryServer] and [StreamServer] need a positive duration, and a server with
// Bytes.ServerOptions.
//
// A response stays in memory while its client does not read, and no limit on running handlers
// sees it. The permit comes back when the transport has written the response, when the client
// has canceled the call or has gone, or after d. The limit learns the time until the handler
// returned, so slow clients do not lower it. See [admit.Permit.Finish] for limits that adapt.
//
// Responses up to 1 KiB and compressed ones are not waited for. A call that fails returns its
// permit at once.
func WithHoldUntilSent(d time.Duration) ServerOption {
	return serverOption(func(c *config) { c.hold = d })
}

// finish ends a call after its handler, and returns its permit or keeps it until the response
// has left.
func (c *config) finish(ctx context.Context, p *admit.Permit, o admit.Outcome) {
	h := c.held(ctx)
	if h == nil {
		p.Release(o)
		return
	}
	p.Finish(o)
	h.Keep(p, c.hold)
}

// held returns the hold of a call that keeps its permit, otherwise nil.
func (c *config) held(ctx context.Context) *hold.Call {
	if c.hold <= 0 {
		return nil
	}
	return hold.Of(ctx)
}
