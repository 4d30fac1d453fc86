package interceptors

import (
	"context"
	"errors"
	"io"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// An observer is told what becomes of a stream. Its methods may be called from
// several goroutines at once.
type observer interface {
	// answered is called when the server's headers or a message have come.
	answered()
	// ended is called with the stream's end, nil when all went well. It may be called
	// more than once; the first counts.
	ended(err error)
	// abandoned is called instead of ended when the goroutine that opened the
	// stream panicked or called runtime.Goexit.
	abandoned()
}

// observe opens a stream and has it observed. The observer learns of the end from
// RecvMsg or from gRPC itself, whichever comes first.
func observe(
	ctx context.Context, o observer, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
	streamer grpc.Streamer, opts []grpc.CallOption,
) (grpc.ClientStream, error) {
	s := &observedStream{observer: o, single: !desc.ServerStreams}
	returned := false
	defer func() {
		if !returned {
			s.observer.abandoned()
		}
	}()
	var err error
	s.ClientStream, err = streamer(ctx, desc, cc, method, append(slices.Clip(opts), grpc.OnFinish(s.over))...)
	returned = true
	if err != nil {
		s.over(err)
		return nil, err
	}
	return s, nil
}

// An observedStream never asks for the stream's own context: gRPC does not retry
// a stream whose context was asked for.
type observedStream struct {
	grpc.ClientStream
	observer observer
	single   bool // there is but one response
}

func (s *observedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	switch {
	case err != nil || s.single:
		s.over(err)
	default:
		s.observer.answered()
	}
	return err
}

// Header returns nothing when the stream has ended without headers, which says
// nothing about how it ended.
func (s *observedStream) Header() (metadata.MD, error) {
	md, err := s.ClientStream.Header()
	if err == nil && md != nil {
		s.observer.answered()
	}
	return md, err
}

// over is told the stream's end, by several who see it.
func (s *observedStream) over(err error) {
	if errors.Is(err, io.EOF) {
		err = nil
	}
	s.observer.ended(err)
}
