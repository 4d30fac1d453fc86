package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/weir-go/weir/internal/check"
	"github.com/weir-go/weir/streamcredit"
)

// A ServeConfig configures [Serve]. The zero value is ready to use.
type ServeConfig struct {
	// MaxUnconsumed bounds the messages that are requested from the source and not
	// consumed by the client, whatever the client asks for. The default is 1,024.
	MaxUnconsumed int
	// MaxAttempts is the number of deliveries after which a message that no client has
	// consumed becomes a dead letter. Zero means that there is no bound. A client that
	// leaves counts as a delivery at most brokers.
	MaxAttempts int
	// OnError is called with the errors of settlements. It must be safe for concurrent
	// use, and quick. A panic in it is ignored.
	OnError func(*Message, error)
	// Meter counts for metrics. It is usually the meter of the source. The default is
	// none.
	Meter *Meter
	// Logger gets a line for each message that becomes a dead letter. The default is
	// [slog.Default].
	Logger *slog.Logger
}

const defaultUnconsumed = 1024

// Serve sends the messages of source to the receiver at the other end of out. The demand of
// the receiver becomes demand at the broker, and a message is acknowledged when the
// receiver has consumed it, in the order of the messages. No other code may send to out.
//
//	out, query, err := streamcredit.ServeSend(stream)
//	...
//	return broker.Serve(stream.Context(), out, source, encode, broker.ServeConfig{})
//
// encode returns the element for a message. If it returns an error of [Reject], the message
// becomes a dead letter. After streamcredit.ErrSkip the message is acknowledged without
// being sent. Any other error ends the stream. A message that is too large for the receiver
// becomes a dead letter.
//
// A client whose process hangs, or whose network drops everything, holds its messages until
// the server's keepalive ends the connection. gRPC's default is two hours, so set
// grpc.KeepaliveParams.
//
// Serve returns when the receiver or ctx ends, with the error of Sender.Send. It gives back
// every message that the receiver has not reported as consumed, and closes the source. If
// the source was closed by others, Serve tells the receiver that the server goes away,
// waits until everything is consumed, and returns nil. If the source can never deliver
// again, it returns the source's error.
func Serve[T any](
	ctx context.Context, out *streamcredit.Sender[T], source Source,
	encode func(context.Context, *Message) (T, error), c ServeConfig,
) error {
	var bad check.Errors
	bad.That(out != nil, "out: got nil, want a Sender")
	bad.That(source != nil, "source: got nil, want a Source")
	bad.That(encode != nil, "encode: got nil, want a function")
	bad.From("ServeConfig", c.validate(), ErrConfig)
	if err := bad.Err(ErrConfig); err != nil {
		return err
	}
	s := &served[T]{
		out: out, source: source, encode: encode, cfg: c.withDefaults(),
		base: out.Stats().Sent, progress: make(chan struct{}, 1),
	}
	return s.run(ctx)
}

func (c ServeConfig) validate() error {
	var bad check.Errors
	check.NotNegative(&bad, "MaxUnconsumed", c.MaxUnconsumed, defaultUnconsumed)
	check.NotNegative(&bad, "MaxAttempts", c.MaxAttempts, "no bound")
	return bad.Err(ErrConfig)
}

func (c ServeConfig) withDefaults() ServeConfig {
	c.MaxUnconsumed = cmp.Or(c.MaxUnconsumed, defaultUnconsumed)
	if c.Meter == nil {
		c.Meter = &Meter{}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// A served is one Serve. One goroutine sends, one passes demand on, one acknowledges.
type served[T any] struct {
	out    *streamcredit.Sender[T]
	source Source
	encode func(context.Context, *Message) (T, error)
	cfg    ServeConfig
	base   uint64 // elements that were sent before
	// progress holds an element after an acknowledgement.
	progress chan struct{}

	mu    sync.Mutex // guards the fields below
	sent  []*Message // and not acknowledged
	acked uint64     // acknowledgements on the way are among them
}

func (s *served[T]) run(ctx context.Context) error {
	// Sending ends with the receiver too.
	sending, stop := context.WithCancel(ctx)
	defer stop()
	// The acknowledgements of everything that was consumed go on after the end.
	acking, enough := context.WithCancel(context.WithoutCancel(ctx))
	defer enough()
	var helpers, acks sync.WaitGroup
	helpers.Go(func() {
		select {
		case <-s.out.Done():
		case <-sending.Done():
		}
		stop()
	})
	helpers.Go(func() { s.demand(sending) })
	listening, deaf := context.WithCancel(ctx)
	defer deaf()
	acks.Go(func() { s.acknowledge(listening, acking) })

	err := s.send(sending, ctx)
	if errors.Is(err, io.EOF) {
		if err = s.out.CloseGoingAway(); err == nil {
			err = s.out.WaitConsumed(ctx, s.out.Stats().Sent)
		}
	}
	stop()
	helpers.Wait()
	deaf()
	grace, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	context.AfterFunc(grace, enough)
	acks.Wait()
	enough()
	closing, force := context.WithCancel(context.Background())
	force() // gives back at once
	return errors.Join(err, without(s.source.Close(closing), context.Canceled))
}

// demand passes the demand of the receiver on to the source. A message takes up room until
// its acknowledgement is on the way, so that slow ones cannot add up.
func (s *served[T]) demand(ctx context.Context) {
	for asked := uint64(0); ; {
		more, err := s.out.WaitDemand(ctx, s.base+asked)
		if err != nil {
			return
		}
		n := s.room(asked, more)
		if n == 0 {
			select {
			case <-s.progress:
				continue
			case <-ctx.Done():
				return
			}
		}
		s.source.Request(int(n))
		asked += n
	}
}

// room returns how many messages to request now, if the receiver wants more of them.
func (s *served[T]) room(asked uint64, more int64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := uint64(more) - min(uint64(more), s.consumedCount()-s.acked)
	return min(wanted, uint64(s.cfg.MaxUnconsumed)-min(uint64(s.cfg.MaxUnconsumed), asked-s.acked))
}

// send sends messages until an error. It returns io.EOF if the source was closed. Outer is
// the context of Serve.
func (s *served[T]) send(ctx, outer context.Context) error {
	for {
		m, err := s.source.Next(ctx)
		if err != nil {
			return s.because(ctx, outer, err)
		}
		if s.cfg.MaxAttempts > 0 && m.Attempt > s.cfg.MaxAttempts {
			s.setAside(ctx, m, fmt.Sprintf("no consumer in %d deliveries", m.Attempt-1))
			continue
		}
		e, err := s.encoded(ctx, m)
		if err == nil {
			s.keep(m)
			if err = s.out.Send(ctx, e); err == nil {
				continue
			}
			s.unkeep(m)
		}
		_, rejected := errors.AsType[*rejection](err)
		switch {
		case errors.Is(err, streamcredit.ErrSkip):
			s.source.Request(1)
			s.settle(ctx, m, m.Ack)
		case rejected, errors.Is(err, streamcredit.ErrTooLarge):
			s.setAside(ctx, m, err.Error())
		default:
			return s.because(ctx, outer, err)
		}
	}
}

// encoded calls the encoder. A panic of it is an error that ends the stream.
func (s *served[T]) encoded(ctx context.Context, m *Message) (e T, err error) {
	err = guarded("encoder", func() (err error) {
		e, err = s.encode(ctx, m)
		return err
	})
	return e, err
}

// because returns why sending has ended, if err is only the end of its context.
func (s *served[T]) because(ctx, outer context.Context, err error) error {
	if ctx.Err() == nil || outer.Err() != nil {
		return err
	}
	return s.out.WaitCredit(outer) // the receiver has ended
}

// setAside makes a dead letter of a message that cannot be sent, and asks for another one.
func (s *served[T]) setAside(ctx context.Context, m *Message, why string) {
	s.cfg.Logger.Warn("broker: a message is set aside", "message", m.ID, "reason", why)
	s.source.Request(1)
	s.settle(ctx, m, func(ctx context.Context) error { return m.Nack(ctx, DeadLetter(why)) })
}

// keep notes a message that is about to be sent. The receiver may consume it before Send
// returns.
func (s *served[T]) keep(m *Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, m)
}

// unkeep forgets a message that was not sent.
func (s *served[T]) unkeep(m *Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := len(s.sent) - 1; last >= 0 && s.sent[last] == m {
		s.sent = s.sent[:last]
	}
}

// consumedCount returns the number of elements of this Serve that are consumed.
func (s *served[T]) consumedCount() uint64 {
	n := s.out.Consumed()
	return n - min(n, s.base)
}

// acknowledge acknowledges messages as they are consumed. When ctx has ended, or the
// receiver can report no more, it acknowledges the rest of the consumed ones.
func (s *served[T]) acknowledge(ctx, acking context.Context) {
	for acked, done := uint64(0), false; !done; {
		done = s.out.WaitConsumed(ctx, s.base+acked+1) != nil
		for m := s.consumed(); m != nil; m = s.consumed() {
			acked++
			signal(s.progress)
			s.settle(acking, m, m.Ack)
		}
	}
}

// consumed returns the next message to acknowledge, or nil.
func (s *served[T]) consumed() *Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acked >= s.consumedCount() || len(s.sent) == 0 {
		return nil
	}
	m := s.sent[0]
	s.sent[0] = nil
	s.sent = s.sent[1:]
	s.acked++
	return m
}

// settle settles a message, and repeats failed tries until ctx ends.
func (s *served[T]) settle(ctx context.Context, m *Message, try func(context.Context) error) {
	for failures := 1; ; failures++ {
		once, cancel := context.WithTimeout(ctx, settleTimeout)
		err := try(once)
		cancel()
		if err == nil || errors.Is(err, ErrSettled) || ctx.Err() != nil {
			return
		}
		err = fmt.Errorf("broker: cannot settle message %q: %w", m.ID, err)
		s.cfg.Meter.errs(err)
		if s.cfg.OnError != nil {
			_ = guarded("hook", func() error { s.cfg.OnError(m, err); return nil })
		}
		pause(ctx, backoff(failures, minDelay, maxDelay))
	}
}
