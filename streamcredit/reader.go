package streamcredit

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit/internal/ledger"
)

// loop is the read loop.
func (s *session[O, I]) loop() {
	defer close(s.done)
	var err error
	defer func() { // also after a panic of an interceptor or a codec
		if err == nil {
			err = abrupt(recover())
		}
		s.ended(err)
	}()
	err = s.readAll()
}

// readAll reads messages until that fails. It never returns nil.
func (s *session[O, I]) readAll() error {
	var one [1]I
	for {
		c, elements, err := s.wire.read(one[:0])
		if err == nil {
			if s.cfg.heartbeat > 0 { // watch looks at both
				s.read.Add(1)
				s.next.Store(0)
			}
			err = s.take(c, elements)
		}
		var none I
		one[0] = none // only the buffer keeps the element
		if err != nil {
			return err
		}
	}
}

// take handles one message. Control comes before elements.
func (s *session[O, I]) take(c *creditpb.Control, elements []I) error {
	if !s.started {
		s.started = true
		return s.open(c, elements)
	}
	if c != nil || len(elements) == 0 {
		if err := s.steer(c, len(elements) > 0); err != nil {
			return err
		}
	}
	if len(elements) == 0 {
		return nil
	}
	if s.in == nil {
		return violation(UnexpectedFrame, "no elements, since Open did not set will_receive", "an element")
	}
	if v := s.in.push(elements); v != nil {
		return v
	}
	s.w.writeSoon() // demand may have waited for room
	return nil
}

// steer handles control. Control that rides on an element costs nothing under the flood rule,
// because the element has paid for it.
func (s *session[O, I]) steer(c *creditpb.Control, riding bool) error {
	if !riding && !s.flood.spend(s.elements) {
		return violation(ControlFlood,
			fmt.Sprintf("at most %d at once, and then one for each element and %d a second", floodBurst, floodRate),
			"more control messages")
	}
	s.controls.Add(1)
	if v := s.dispatch(c); v != nil {
		return v
	}
	return nil
}

func (s *session[O, I]) dispatch(c *creditpb.Control) *ProtocolError {
	switch k := c.GetKind().(type) {
	case *creditpb.Control_Request:
		return s.request(k.Request, false)
	case *creditpb.Control_Cancel:
		if s.out == nil {
			return violation(UnexpectedFrame, "none, since Open did not set will_send", "Cancel")
		}
		s.out.end(ledger.OutCancel, &canceled{reason: clip(k.Cancel.GetReason(), mostReason)})
		s.settle()
		s.w.writeSoon()
	case *creditpb.Control_Complete:
		end := io.EOF
		if k.Complete.GetGoingAway() {
			end = ErrGoingAway
		}
		return s.finish(end, k.Complete.GetTotal())
	case *creditpb.Control_Error:
		return s.finish(remoteError(k.Error), k.Error.GetTotal())
	case *creditpb.Control_Drained:
		if s.in == nil {
			return violation(UnexpectedFrame, "none, since Open did not set will_receive", "Drained")
		}
		v := s.in.drained(k.Drained)
		s.w.writeSoon()
		return v
	case *creditpb.Control_Heartbeat:
		if s.in != nil { // without it, no element can follow
			s.next.Store(min(max(0, k.Heartbeat.GetNextBytes()), math.MaxUint32)) // larger than any message of gRPC
		}
		if k.Heartbeat.GetEcho() {
			s.w.pending.heartbeat(s.w.beat())
			s.w.writeSoon()
		}
	case *creditpb.Control_Open:
		return violation(UnexpectedFrame, "Open as the first message only", "a second Open")
	}
	return nil // the kind is not known, or there is no violation
}

// mostReason bounds the reason of a Cancel in bytes, which is for people and must not fill logs.
const mostReason = 200

// clip shortens a text to most bytes.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// request handles demand. A client's first demand is never too large, since the client does not
// know the bound yet.
func (s *session[O, I]) request(r *creditpb.Request, first bool) *ProtocolError {
	switch {
	case s.out == nil:
		return violation(UnexpectedFrame, "none, since Open did not set will_send", "Request")
	case !s.peerReceives:
		return violation(UnexpectedFrame, "none, since the peer's Open did not set will_receive", "Request")
	case r.GetN() < 0:
		return violation(InvalidDemand, "n of at least 1", "n %d", r.GetN())
	case r.GetN() == 0 && !r.GetDrain() && r.GetConsumed() == 0:
		return violation(InvalidDemand, "n of at least 1, drain or consumed", "none of them")
	case r.GetDrain() && !s.drains:
		return violation(UnexpectedFrame, "none, since FEATURE_DRAIN is not used", "Request with drain")
	}
	clamped, v := s.out.demand(r)
	if v != nil {
		return v
	}
	if clamped && s.cfg.rejectCredit && (!first || !s.role.server) {
		return violation(DemandTooLarge, fmt.Sprintf("at most %d outstanding", s.cfg.maxCredit), "demand for %d more", r.GetN())
	}
	if r.GetDrain() {
		s.w.pending.oweDrained()
		s.w.writeSoon()
	}
	s.notifyConsumed(r.GetConsumed())
	return nil
}

// finish handles the peer's terminal.
func (s *session[O, I]) finish(end error, total uint64) *ProtocolError {
	if s.in == nil {
		return violation(UnexpectedFrame, "none, since Open did not set will_receive", "Complete or Error")
	}
	v := s.in.terminal(end, total)
	s.settle()
	s.w.writeSoon()
	if s.lapsed.Load() {
		s.help(s.assure)
	}
	return v
}

// ended ends the session after the read loop has ended with err. A server may go on sending after
// a client's half-close.
func (s *session[O, I]) ended(err error) {
	switch {
	case !isEOF(err):
		if !saysContextEnded(err) {
			s.broken.Store(true)
		}
		s.fail(err)
	case !s.started:
		s.fail(violation(UnexpectedFrame, "Open", "the end of the stream"))
	default:
		if s.in != nil && s.in.state().Live() && !s.role.server && len(trailerOf(s.wire.call()).Get(unfinishedTrailer)) > 0 {
			s.fail(violation(CountMismatch, "Complete or Error after the elements", "the end of the call without them"))
		}
		if s.in != nil {
			s.in.halfClosed()
		}
		if !s.role.server {
			if s.out != nil && last(trailerOf(s.wire.call()).Get(doubtTrailer)) == "unsure" {
				s.out.doubt()
			}
			s.over(returned, errPeace)
		} else if s.out != nil {
			s.out.halfClosed()
		}
	}
}

// isEOF reports whether err says only that the stream is over.
func isEOF(err error) bool { return errors.Is(err, io.EOF) }
