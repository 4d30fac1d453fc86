package rawend

import (
	"errors"
	"time"
)

// outgoing is the account of the elements that this end sends.
type outgoing struct {
	credit   int64 // stays unbounded once it is
	asked    bool  // the peer has made a demand
	sent     uint64
	told     uint64 // elements that the peer has consumed
	sizes    []int64
	held     int64 // the sum of sizes
	deserted bool  // the client has half-closed and can ask for no more
	outEnd   error // nil while the direction is open
	terminal bool
}

// send sends an element and waits until it is written. It waits for credit for at most limit, or without a
// bound if limit is zero.
func (s *session) send(number, payload int64, limit time.Duration) error {
	size := int64(len(encodeElement(number, make([]byte, payload))))
	giveUp := after(limit)
	stall := after(time.Duration(s.script.send[sendStall]) * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peer.maxMessage > 0 && size > s.peer.maxMessage {
		return errTooLarge
	}
	for s.outEnd == nil && !s.mayLocked() {
		if s.deserted && s.credit == 0 {
			s.outEnd = errCanceled
			break
		}
		if s.waitEither(giveUp, stall) {
			continue
		}
		if stall != nil && limit == 0 {
			s.endLocked(violation("CREDIT_STARVED"))
			break
		}
		return errLate
	}
	if s.outEnd != nil {
		return s.outEnd
	}
	if s.fault == LosesTheLast && s.script.send[sendEnding] == endLeave && number == s.script.send[sendCount] {
		return nil
	}
	it := s.chargeLocked(number, payload, size)
	for !it.done {
		if s.over != nil {
			return s.outEnd
		}
		s.waitLocked(nil)
	}
	return nil
}

// waitEither waits for a change. It returns false if timer a, or b if a is nil, fires first.
func (s *session) waitEither(a, b <-chan time.Time) bool {
	if a == nil {
		a = b
	}
	return s.waitLocked(a)
}

// after returns a timer, or nil if d is not positive.
func after(d time.Duration) <-chan time.Time {
	if d <= 0 {
		return nil
	}
	return time.After(d)
}

// mayLocked reports whether an element may be sent.
func (s *session) mayLocked() bool {
	return s.credit > 0 && !s.waiting && (s.peer.maxBuffered == 0 || s.held < s.peer.maxBuffered) &&
		(s.fault != WantsReports || s.sent < s.told+1_000)
}

// chargeLocked charges an element to the credit and queues it.
func (s *session) chargeLocked(number, payload, size int64) *item {
	if s.beatEvery > 0 && size > announceBytes*int64(s.beatEvery)/int64(time.Second) && s.fault != AnnouncesNothing {
		b := s.beatLocked()
		b.nextBytes = size
		s.queue = append(s.queue, &item{c: b})
	}
	if s.credit != unbounded {
		s.credit--
	}
	s.sent++
	s.mine.elements++
	s.theirs.elements++
	if s.fault == Expires {
		s.theirs.elements = min(s.theirs.elements, burst)
	}
	s.sizes = append(s.sizes, size)
	s.held += size
	s.waiting = true
	it := &item{number: number, payload: payload}
	if s.fault == BatchesTooMuch && s.framed {
		it.more = min(40, s.credit, s.script.send[sendCount]-number)
		s.credit -= it.more
		s.sent += uint64(it.more)
		s.batched = it.more
	}
	s.queue = append(s.queue, it)
	s.changeLocked()
	return it
}

// terminate ends sending with Complete or Error, and waits until that is written and the receiver is done.
func (s *session) terminate(c *control) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outEnd != nil {
		return s.outEnd
	}
	c.total = s.sent
	s.terminal = true
	it := &item{c: c}
	s.queue = append(s.queue, it)
	s.settleLocked()
	s.changeLocked()
	for !it.done && s.over == nil {
		s.waitLocked(nil)
	}
	return s.restLocked(c)
}

// restLocked waits until the receiver has reported all elements as consumed. A server does not wait if reports
// were not negotiated. A client that does not receive waits until the stream has ended.
func (s *session) restLocked(c *control) error {
	for s.over == nil && s.outEnd == nil {
		if s.server && (!s.features[featureConsumed] || s.told == s.sent || s.deserted) {
			break
		}
		if !s.server && s.script.receive != nil && s.told == s.sent {
			break
		}
		s.waitLocked(nil)
	}
	if s.outEnd == nil || errors.Is(s.outEnd, errCanceled) && s.told == s.sent || c.kind == kindError {
		return nil
	}
	return s.outEnd
}
