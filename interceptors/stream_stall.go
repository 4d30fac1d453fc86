package interceptors

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"weak"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/stall"
)

const (
	defaultSendStall = 2 * time.Minute
	// stallRate is how many bytes a second a client takes at least that is not stalled.
	stallRate = 16 << 10
	// leastStall is the shortest bound.
	leastStall = time.Millisecond
	// unknownSize is taken for the size of a message that does not tell it: by default no
	// client of gRPC takes a larger one.
	unknownSize = 4 << 20
	// stalledReason is the reason in the status of a stream that was ended.
	stalledReason = "send_stalled"
)

// ErrSendStalled is matched, with errors.Is, by the error of SendMsg and RecvMsg of a stream that
// was ended because its client did not take what was sent: see [WithSendStall].
var ErrSendStalled = errors.New("weir: the client does not take what is sent to it")

// WithSendStall sets for how long the SendMsg of a server's stream may wait for the transport,
// for streams that match; a nil matcher matches all. Zero, the default, means two minutes, and
// a negative duration for ever. A bound is at least a millisecond. Of several uses the first that
// matches counts.
//
// SendMsg has no deadline in gRPC. Without a bound, a client that stops reading holds the
// handler, its memory and its permit until it disconnects. When no SendMsg of a stream has
// returned for that long, while one was waiting, the stream ends with RESOURCE_EXHAUSTED and
// the reason "send_stalled" (see [RefusalFrom]), and SendMsg returns an error that matches
// [ErrSendStalled]. It may take an eighth longer to be noticed.
//
// Progress is a message that the transport takes, since gRPC does not show bytes. So the bound
// is longer after a large message: by a second for each 16 KiB of the one before, which has to
// leave first. Messages of unknown size, neither of Protocol Buffers nor bytes, count as
// 4 MiB. A client that lets more than the
// bound pass between two calls of Recv, because its work on each message takes so long, may
// need a longer one, or credit (package streamcredit).
//
// The permit comes free when the handler has returned. The transport keeps up to 64 KiB and one
// message for the stream until the client reads them or disconnects. Use keepalive (see package
// keepalive of gRPC) to disconnect clients that are gone.
//
// There is no bound under grpc.Server.ServeHTTP, where nothing can end a stuck write, and
// outside of grpc.Server. Unary calls need none: the transport takes one response at once.
func WithSendStall(d time.Duration, m selector.Matcher) ServerOption {
	return serverOption(func(c *config) { c.streams.addStall(d, m) })
}

// SendStalls returns how many streams of a gate were ended because their clients did not take
// what was sent: see [WithSendStall].
func SendStalls(g *admit.Gate) uint64 {
	if v, ok := families.Load(weak.Make(g)); ok {
		return v.(*family).stalls.Load() //nolint:forcetypeassert // the map holds nothing else
	}
	return 0
}

// sends looks after the Sends of one stream.
type sends struct {
	bound  time.Duration // 0 or less: they may take any time
	ctx    context.Context
	member *member // nil: no gate has let the stream in
	watch  stall.Watch
	count  atomic.Uint64           // of the Sends that are under way, and from sentOne on of those that have ended
	last   atomic.Int64            // bytes of the last message
	opaque atomic.Bool             // there are messages of unknown size: it costs too much to ask each
	ended  atomic.Pointer[stopped] // why the stream was ended; nil: it was not
}

// sentOne is where sends.count counts Sends that have ended.
const sentOne = 1 << 16

// begin is called before a Send.
func (s *sends) begin() {
	s.count.Add(1)
	s.watch.Start(s)
}

// end is called after a Send of m, also if it has panicked.
func (s *sends) end(m any) {
	size := int64(unknownSize)
	if !s.opaque.Load() {
		var known bool
		if size, known = sizeOf(m); !known {
			s.opaque.Store(true)
		}
	}
	s.last.Store(size)
	s.count.Add(sentOne - 1)
}

// Look implements stall.Stream.
func (s *sends) Look() stall.Sight {
	n := s.count.Load()
	return stall.Sight{
		Writing:  n%sentOne > 0,
		Done:     n / sentOne,
		Patience: s.bound + time.Duration(s.last.Load())*time.Second/stallRate,
		Again:    max(s.bound/8, leastStall),
		Idle:     true,
	}
}

// Stalled implements stall.Stream.
func (s *sends) Stalled() {
	end := stall.EndOf(s.ctx)
	if end == nil || s.ctx.Err() != nil {
		return
	}
	gate := ""
	if s.member != nil {
		gate = label(s.member.gate.Name())
		s.member.family.stalls.Add(1)
	}
	err := newStalled(s.bound, gate)
	s.ended.Store(err)
	_ = end(err.status) // if it fails, the stream has ended
}

// newStalled returns the error of a stream whose client is stalled.
func newStalled(bound time.Duration, gate string) *stopped {
	text := fmt.Sprintf("%v: no message for %v", ErrSendStalled, rounded(bound))
	if gate != "" {
		text += fmt.Sprintf(" (gate %q)", gate)
	}
	is := &Refusal{Reason: stalledReason, Gate: gate}
	return newStopped(ErrSendStalled, newStatus(codes.ResourceExhausted, text, is), is)
}

// because returns err, or why the stream was ended if it was.
func (s *sends) because(err error) error {
	if why := s.ended.Load(); why != nil && err != nil {
		return why
	}
	return err
}

// sizeOf returns the size of a message that was sent. gRPC has just computed it for messages
// of Protocol Buffers.
func sizeOf(m any) (size int64, known bool) {
	switch m := m.(type) {
	case proto.Message:
		return int64(proto.MarshalOptions{UseCachedSize: true}.Size(m)), true
	case []byte:
		return int64(len(m)), true
	case *[]byte:
		if m != nil {
			size = int64(len(*m))
		}
		return size, true
	default:
		return unknownSize, false
	}
}
