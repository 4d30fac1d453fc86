package interceptors

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/weir-go/weir/interceptors/internal/refusal"
	"github.com/weir-go/weir/internal/stall"
)

const (
	// stallRate is the least rate of a client that is not stalled, in bytes a second.
	stallRate = 16 << 10
	// unknownSize stands for the size of a message that does not tell it. By default no gRPC
	// client takes a larger one.
	unknownSize = 4 << 20
)

// ErrSendStalled matches, with errors.Is, the error of SendMsg and RecvMsg on a stream that
// was ended because its client did not take the messages. See StreamRule.SendStall.
var ErrSendStalled = refusal.ErrSendStalled

// sends watches the Sends of one stream.
type sends struct {
	bound  time.Duration // none if it is 0 or less
	ctx    context.Context
	member *member // nil if no gate admitted the stream
	watch  stall.Watch
	count  atomic.Uint64                 // running Sends, plus sentOne for each that has returned
	last   atomic.Int64                  // size of the last message in bytes
	opaque atomic.Bool                   // a message did not tell its size, and asking costs too much
	ended  atomic.Pointer[refusal.Error] // set once the watch has ended the stream
}

// sentOne is one returned Send in sends.count.
const sentOne = 1 << 16

// begin is called before a Send.
func (s *sends) begin() {
	s.count.Add(1)
	s.watch.Start(s)
}

// end is called after a Send of m.
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
		Again:    max(s.bound/8, shortestStall),
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
		gate = s.member.gate.Name()
		gateFuncs.CountStall(s.member.gate) // before the handler can see its error
	}
	err := refusal.Stalled(s.bound, gate)
	s.ended.Store(err)
	_ = end(err.GRPCStatus()) // it fails only if the stream has ended
	if s.member != nil {
		method, _ := grpc.Method(s.ctx)
		gateFuncs.Stalled(s.ctx, s.member.gate, method, s.bound)
	}
}

// explain returns the reason for the end of the stream in place of an error, if the watch has
// ended it.
func (s *sends) explain(err error) error {
	if err == nil {
		return nil
	}
	if why := s.ended.Load(); why != nil {
		return why
	}
	return err
}

// sizeOf returns the size of a message that was sent. gRPC has just computed and cached the
// size of a Protocol Buffers message.
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
