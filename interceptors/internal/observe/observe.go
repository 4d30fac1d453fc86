package observe

import (
	"context"
	"errors"
	"io"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// An Observer is told when a stream is answered and when it ends. Its methods may be called
// from several goroutines at once.
type Observer interface {
	// Answered is called when the server's headers or a message have come on s. gRPC no longer
	// retries the stream then, so its context may be used.
	Answered(s grpc.ClientStream)
	// Ended is called with the end of the stream, nil if it succeeded. It may be called more
	// than once; the first call counts.
	Ended(err error)
	// Abandoned is called instead of Ended when the goroutine that opened the
	// stream panicked or called runtime.Goexit.
	Abandoned()
}

// Stream opens a stream and observes it. RecvMsg or gRPC itself reports the end to the
// observer, whichever sees it first.
func Stream(
	ctx context.Context, o Observer, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
	streamer grpc.Streamer, opts []grpc.CallOption,
) (grpc.ClientStream, error) {
	s := &stream{observer: o, single: !desc.ServerStreams}
	returned := false
	defer func() {
		if !returned {
			s.observer.Abandoned()
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

// A stream never asks for the context of the stream it wraps, because gRPC does not retry a
// stream after that.
type stream struct {
	grpc.ClientStream
	observer Observer
	single   bool // there is but one response
}

func (s *stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	switch {
	case err != nil || s.single:
		s.over(err)
	default:
		s.observer.Answered(s.ClientStream)
	}
	return err
}

// Header returns nothing if the stream has ended without headers. That shows nothing about
// the end.
func (s *stream) Header() (metadata.MD, error) {
	md, err := s.ClientStream.Header()
	if err == nil && md != nil {
		s.observer.Answered(s.ClientStream)
	}
	return md, err
}

// over reports the end of the stream. RecvMsg and gRPC both call it.
func (s *stream) over(err error) {
	if errors.Is(err, io.EOF) {
		err = nil
	}
	s.observer.Ended(err)
}
