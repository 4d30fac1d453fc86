package rawend

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// read is the goroutine that reads the stream, until it ends.
func (s *session) read() {
	for {
		b, err := s.st.recv()
		if err == nil {
			err = s.take(b)
		}
		if err != nil {
			s.ended(err)
			return
		}
	}
}

// decode decodes a message in the envelope of the stream.
func (s *session) decode(b []byte) (m message, err error) {
	if s.framed {
		m, err = decodeFrame(b)
	} else {
		m, err = decodeEmbedded(b)
	}
	if err != nil {
		err = &statusError{code: internalCode, message: fmt.Sprintf("a message that cannot be decoded: %v", err)}
	}
	return m, err
}

// take handles a message.
func (s *session) take(b []byte) error {
	m, err := s.decode(b)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changeLocked()
	s.heard, s.grace = time.Now(), 0
	if m.c != nil {
		if len(m.elements) == 0 && !s.theirs.spend() {
			return violation("CONTROL_FLOOD")
		}
		if err := s.steerLocked(m.c); err != nil {
			return err
		}
	}
	if m.batch && !s.features[featureBatch] {
		return violation("UNEXPECTED_FRAME")
	}
	if len(m.elements) == 0 {
		return nil
	}
	return s.pushLocked(m.elements)
}

func (s *session) steerLocked(c *control) error {
	switch c.kind {
	case kindOpen:
		return violation("UNEXPECTED_FRAME")
	case kindRequest:
		return s.demandLocked(c, false)
	case kindCancel:
		if s.script.send == nil {
			return violation("UNEXPECTED_FRAME")
		}
		if s.outEnd == nil {
			s.outEnd = errCanceled
		}
		s.settleLocked()
	case kindComplete, kindError:
		return s.finishLocked(c)
	case kindDrained:
		return s.drainedLocked(c)
	case kindHeartbeat:
		if c.nextBytes > 0 && s.fault != IgnoresAnnouncements {
			s.grace = time.Duration(c.nextBytes) * time.Second / announceBytes
		}
		if c.echo {
			s.putLocked(s.beatLocked())
		}
	}
	return nil
}

// demandLocked handles a Request, or the first demand in an Open.
func (s *session) demandLocked(c *control, first bool) error {
	most := s.script.send[sendMaxCredit]
	switch {
	case s.script.send == nil || !s.peer.willReceive:
		return violation("UNEXPECTED_FRAME")
	case c.n < 0 || c.n == 0 && c.consumed == 0 && !c.drain:
		return violation("INVALID_DEMAND")
	case c.drain && !s.features[featureDrain]:
		return violation("UNEXPECTED_FRAME")
	case c.consumed > s.sent || c.consumed > 0 && c.consumed < s.told:
		return violation("INVALID_CONSUMED")
	case most > 0 && s.script.send[sendReject] != 0 && c.n > most-s.credit && (!first || !s.server) && s.outEnd == nil:
		return violation("DEMAND_TOO_LARGE")
	}
	for ; s.told < c.consumed; s.told++ {
		s.held -= s.sizes[0]
		s.sizes = s.sizes[1:]
	}
	if s.outEnd == nil && !s.terminal { // a terminal also answers a drain
		s.creditLocked(c)
	}
	return nil
}

// creditLocked adds the demand of a Request to the credit, and answers a drain.
func (s *session) creditLocked(c *control) {
	if c.n > 0 {
		s.asked = true
		s.credit += min(c.n, unbounded-s.credit)
	}
	if c.drain {
		burned := s.credit
		s.credit = 0
		s.putLocked(&control{kind: kindDrained, sent: s.sent, burned: burned})
	}
}

// finishLocked handles Complete and Error.
func (s *session) finishLocked(c *control) error {
	switch {
	case s.script.receive == nil:
		return violation("UNEXPECTED_FRAME")
	case s.complete:
		return violation("AFTER_TERMINAL")
	case c.total != uint64(s.received):
		return violation("COUNT_MISMATCH")
	}
	s.complete = true
	if s.inEnd == nil {
		s.inEnd = endOf(c)
		if !s.server && s.features[featureConsumed] && s.consumed == s.received && s.consumed > s.reported {
			s.reportLocked(0) // no element is left whose consumption would bring the report
		}
		s.settleLocked()
	}
	return nil
}

// endOf returns the end of a direction for a Complete or an Error.
func endOf(c *control) error {
	switch {
	case c.kind == kindError:
		return &statusError{code: c.code, message: c.message}
	case c.goingAway:
		return errGoingAway
	default:
		return io.EOF
	}
}

func (s *session) drainedLocked(c *control) error {
	switch {
	case s.script.receive == nil:
		return violation("UNEXPECTED_FRAME")
	case s.complete:
		return violation("AFTER_TERMINAL")
	case !s.draining:
		return violation("UNEXPECTED_FRAME")
	case c.sent != uint64(s.received):
		return violation("COUNT_MISMATCH")
	}
	s.burned += s.granted - s.received
	s.granted, s.draining = s.received, false
	return nil
}

// pushLocked checks elements and puts them into the buffer.
func (s *session) pushLocked(elements []element) error {
	switch {
	case s.script.receive == nil || !s.peer.willSend:
		return violation("UNEXPECTED_FRAME")
	case s.complete:
		return violation("AFTER_TERMINAL")
	case s.granted != unbounded && int64(len(elements)) > s.granted-s.received:
		return violation("CREDIT_EXCEEDED")
	}
	most, window := s.script.receive[receiveMaxMessage], s.script.receive[receiveBytes]
	for _, e := range elements {
		if most > 0 && e.size > most {
			return violation("MESSAGE_TOO_LARGE")
		}
		if window > 0 && s.weight >= window {
			return violation("BYTES_EXCEEDED")
		}
		s.received++
		s.theirs.elements++
		s.mine.elements++
		if s.fault == Expires {
			s.theirs.elements = min(s.theirs.elements, burst)
		}
		if s.quit {
			s.consumed++
			continue
		}
		s.weights = append(s.weights, e.size)
		s.weight += e.size
		s.buffer = append(s.buffer, e)
	}
	return nil
}

// ended handles the end of the peer's messages.
func (s *session) ended(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !errors.Is(err, io.EOF) {
		s.endLocked(err)
		return
	}
	if s.server {
		s.deserted = true
		if s.inEnd == nil && s.script.receive != nil {
			s.inEnd, s.complete = io.EOF, true
		}
		s.changeLocked()
		return
	}
	s.st.c.mu.Lock()
	unfinished, doubt := len(s.st.trailer[unfinishedTrailer]) > 0, last(s.st.trailer[consumedTrailer])
	s.st.c.mu.Unlock()
	if unfinished && s.inEnd == nil && s.fault != IgnoresTrailers {
		s.inEnd = violation("COUNT_MISMATCH")
	}
	if s.outEnd == nil && s.terminal {
		s.outEnd = io.EOF
		if s.features[featureConsumed] && doubt != "unsure" && s.told < s.sent && s.fault != TrustsOK {
			s.outEnd = errCanceled
		}
	}
	s.endLocked(io.EOF)
}
