package rawend

import (
	"time"
)

// incoming is the account of the elements that this end receives.
type incoming struct {
	granted, received, consumed, reported int64
	owed                                  int64 // demand that waits for the sender's bound or for the end of a drain
	buffer                                []element
	weights                               []int64 // sizes of the elements that are not consumed
	weight, unreported                    int64   // in bytes; the sum of weights, and the bytes that are consumed but not reported
	draining                              bool
	burned                                int64
	inEnd                                 error
	complete                              bool // the peer's terminal was read
	quit                                  bool // canceled
}

// grantLocked returns the demand to send now, 0 if there is none, and counts it as granted.
func (s *session) grantLocked() int64 {
	if s.inEnd != nil || s.draining {
		return 0
	}
	var n int64
	if w := s.windowLocked(); w > 0 {
		if room := w - (s.granted - s.consumed); room >= max(1, w-w/2) {
			n = room
		}
	} else {
		n = s.owed
		if s.peer.maxCredit > 0 && s.fault != AsksTooMuch {
			n = max(0, min(n, s.peer.maxCredit-(s.granted-s.received)))
		}
		s.owed -= n
	}
	s.granted += min(n, unbounded-s.granted)
	return n
}

func (s *session) windowLocked() int64 {
	w := s.script.receive[receiveWindow]
	if s.peer.maxCredit > 0 && s.fault != AsksTooMuch {
		w = min(w, s.peer.maxCredit)
	}
	return w
}

// request adds demand.
func (s *session) request(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owed += min(n, unbounded-s.owed)
	if n := s.grantLocked(); n > 0 {
		s.putLocked(&control{kind: kindRequest, n: n})
	}
}

// recv returns the next element, and counts it as consumed unless the script says to hold elements.
func (s *session) recv() (element, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.buffer) == 0 {
		if s.inEnd != nil {
			return element{}, s.inEnd
		}
		if s.consumed > s.reported && s.features[featureConsumed] {
			timer := time.NewTimer(idleReport)
			if !s.waitLocked(timer.C) {
				s.reportLocked(0)
			}
			timer.Stop()
			continue
		}
		s.waitLocked(nil)
	}
	e := s.buffer[0]
	s.buffer = s.buffer[1:]
	if s.script.receive[receiveHold] == 0 {
		s.consumeLocked()
	}
	return e, nil
}

// consumeLocked counts the oldest element as consumed, and reports it if that is due.
func (s *session) consumeLocked() {
	s.consumed++
	s.weight -= s.weights[0]
	s.unreported += s.weights[0]
	s.weights = s.weights[1:]
	window := s.script.receive[receiveBytes]
	switch n := s.grantLocked(); {
	case n > 0, window > 0 && 2*s.unreported >= window, s.complete && s.consumed == s.received && s.features[featureConsumed]:
		s.reportLocked(n)
	case s.server && s.features[featureConsumed] && s.fault != ReportsLate:
		s.reportLocked(0) // the handler may return next
	}
	s.settleLocked()
	s.changeLocked()
}

// reportLocked queues a Request for n elements with the number of consumed ones.
func (s *session) reportLocked(n int64) {
	if s.quit || s.over != nil {
		return
	}
	s.reported, s.unreported = s.consumed, 0
	s.putLocked(&control{kind: kindRequest, n: n, consumed: uint64(s.consumed)})
	s.settleLocked()
}

// drain takes back unused demand and returns how much it was.
func (s *session) drain() (burned int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inEnd != nil {
		return 0, s.inEnd
	}
	before := s.burned
	s.draining = true
	s.putLocked(&control{kind: kindRequest, drain: true})
	for s.draining && s.inEnd == nil {
		s.waitLocked(nil)
	}
	if s.draining {
		return 0, s.inEnd
	}
	return s.burned - before, nil
}

// cancelIn cancels receiving. It drops buffered elements and queued demand.
func (s *session) cancelIn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.quit {
		return
	}
	queue := s.queue[:0:0]
	for _, it := range s.queue {
		if it.c == nil || it.c.kind != kindRequest {
			queue = append(queue, it)
		}
	}
	s.queue, s.quit, s.buffer = queue, true, nil
	if !s.complete {
		s.inEnd = errCanceled
		s.putLocked(&control{kind: kindCancel})
	}
	s.settleLocked()
	s.changeLocked()
}
