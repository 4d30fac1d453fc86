package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-go/weir/broker"
)

// answerWithin bounds the wait for the server's answer to a settlement, also if the
// caller's context has no end. A caller may try again, since each settlement has the same
// effect a second time.
//
// A server that has crashed may not know that it has delivered a message, and then it never
// answers a settlement of it. So a message is taken for lost if the server has left it
// unanswered for this time on one connection, and answers a ping. The server delivers it
// again.
const answerWithin = 5 * time.Second

// A settler settles one delivery of a message. The message makes one call at a time.
type settler struct {
	f    *fetcher
	msg  *nats.Msg
	meta *nats.MsgMetadata

	asked      time.Time // of the first settlement without an answer
	reconnects uint64    // of the connection at that time
}

var _ broker.Settler = (*settler)(nil)

// newMessage returns the message of a delivery.
func (f *fetcher) newMessage(msg *nats.Msg) (*broker.Message, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, fmt.Errorf("nats: message of subject %q with reply %q: %w", msg.Subject, msg.Reply, err)
	}
	m := broker.Message{
		ID:      meta.Stream + ":" + strconv.FormatUint(meta.Sequence.Stream, 10),
		Key:     msg.Subject,
		Body:    msg.Data,
		Attempt: int(min(meta.NumDelivered, 1<<30)),
	}
	if len(msg.Header) > 0 {
		m.Attributes = make(map[string]string, len(msg.Header))
		for name, values := range msg.Header {
			if len(values) > 0 {
				m.Attributes[name] = values[0]
			}
		}
	}
	return broker.NewMessage(m, &settler{f: f, msg: msg, meta: meta}), nil
}

// Ack implements broker.Settler.
func (s *settler) Ack(ctx context.Context) error { return s.tell(ctx, "+ACK") }

// Extend implements broker.Settler.
func (s *settler) Extend(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return s.request(ctx, "+WPI")
}

// Requeue implements broker.Settler.
func (s *settler) Requeue(ctx context.Context) error {
	if d := s.f.config.RequeueDelay; d > 0 {
		return s.tell(ctx, fmt.Sprintf(`-NAK {"delay": %d}`, d.Nanoseconds()))
	}
	return s.tell(ctx, "-NAK")
}

// DeadLetter implements broker.Settler. It ends the message only when the dead letter is
// stored. If that fails in between, the next try is stored once, because the dead letter
// has an ID.
func (s *settler) DeadLetter(ctx context.Context, reason string) error {
	if s.f.config.DeadLetter == "" {
		return fmt.Errorf("nats: no dead letter for message %d of stream %q: Config.DeadLetter is not set",
			s.meta.Sequence.Stream, s.meta.Stream)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	sequence := strconv.FormatUint(s.meta.Sequence.Stream, 10)
	dead := nats.NewMsg(s.f.config.DeadLetter)
	dead.Data = s.msg.Data
	for name, values := range s.msg.Header {
		if !reserved[name] {
			dead.Header[name] = values
		}
	}
	dead.Header.Set(HeaderReason, reason)
	dead.Header.Set(HeaderStream, s.meta.Stream)
	dead.Header.Set(HeaderSequence, sequence)
	dead.Header.Set(HeaderSubject, s.msg.Subject)
	dead.Header.Set(HeaderAttempt, strconv.FormatUint(s.meta.NumDelivered, 10))
	id := jetstream.WithMsgID("weir " + s.meta.Stream + " " + s.meta.Consumer + " " + sequence)
	if _, err := s.f.js.PublishMsg(ctx, dead, id); err != nil {
		return fmt.Errorf("nats: dead letter to subject %q: %w", s.f.config.DeadLetter, err)
	}
	return s.tell(ctx, "+TERM")
}

// reserved are headers of the message that would direct how the server stores its dead
// letter.
var reserved = map[string]bool{
	jetstream.MsgIDHeader: true, jetstream.ExpectedStreamHeader: true, jetstream.ExpectedLastSeqHeader: true,
	jetstream.ExpectedLastSubjSeqHeader: true, jetstream.ExpectedLastSubjSeqSubjHeader: true,
	jetstream.ExpectedLastMsgIDHeader: true, jetstream.MsgTTLHeader: true, jetstream.MsgRollup: true,
	jetstream.ScheduleHeader: true, jetstream.ScheduleTargetHeader: true, jetstream.ScheduleSourceHeader: true,
	jetstream.ScheduleTTLHeader: true, jetstream.ScheduleTimeZoneHeader: true, jetstream.ScheduleRollupHeader: true,
}

// tell sends a verdict to the server, and waits until it has answered.
func (s *settler) tell(ctx context.Context, verdict string) error {
	nc := s.f.js.Conn()
	if now := nc.Stats().Reconnects; s.asked.IsZero() || s.reconnects != now {
		s.asked, s.reconnects = time.Now(), now
	}
	answer, cancel := context.WithTimeout(ctx, max(time.Until(s.asked.Add(answerWithin)), answerWithin/10))
	defer cancel()
	err := s.request(answer, verdict)
	late := errors.Is(err, context.DeadlineExceeded) && time.Since(s.asked) >= answerWithin
	switch {
	case err == nil:
		return nil
	case late && s.f.link.answers(ctx) && nc.Stats().Reconnects == s.reconnects:
		return fmt.Errorf("%w, or unknown to the server (%w)", broker.ErrSettled, err)
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return err
	}
}

// request sends a verdict, and waits until the server has answered or ctx ends.
func (s *settler) request(ctx context.Context, verdict string) error {
	_, err := s.f.js.Conn().RequestWithContext(ctx, s.msg.Reply, []byte(verdict))
	if err != nil {
		return fmt.Errorf("nats: %s of message %d of stream %q: %w", verdict[:4], s.meta.Sequence.Stream, s.meta.Stream, err)
	}
	return nil
}
