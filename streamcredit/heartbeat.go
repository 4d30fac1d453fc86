package streamcredit

import (
	"time"
)

// beats starts the heartbeats that the peer requests every d, and the watch for the peer's own.
func (s *session[O, I]) beats(d time.Duration) {
	if !s.pulse {
		return
	}
	if d > 0 {
		s.pace(d)
	}
	if s.cfg.heartbeat > 0 {
		s.watch()
	}
}

// pace writes a heartbeat whenever nothing was written for three quarters of d. The last quarter
// is for the way to the peer and for a busy processor.
func (s *session[O, I]) pace(d time.Duration) {
	s.w.large.Store(quickly(d))
	d = max(d, minHeartbeat)
	due := d - d/4
	if s.out != nil {
		s.out.weigh()
	}
	s.w.lastAt.Store(s.w.age())
	s.every(due, func() time.Duration {
		left := due - time.Duration(s.w.age()-s.w.lastAt.Load())
		if left > 0 {
			return left
		}
		s.w.pending.heartbeat(s.w.beat())
		s.w.writeSoon()
		return due
	})
}

// slowestRate is the assumed least rate of a message on its way, in bytes a second.
const slowestRate = 64 << 10

// quickly returns the size of the largest message that arrives within the interval d of a peer's
// heartbeats, at the slowest rate.
func quickly(d time.Duration) int64 { return int64(max(d, minHeartbeat).Seconds() * slowestRate) }

// watch ends the session when the peer is silent for too long. Silence does not count after the
// peer's half-close, while the read loop waits for the application, or before a large element
// that the peer has announced can have arrived. watch counts intervals rather than time, so that a
// pause of this process is one interval.
func (s *session[O, I]) watch() {
	last, silent := s.read.Load(), 0
	s.every(s.cfg.heartbeat, func() time.Duration {
		select {
		case <-s.done:
			return 0
		default:
		}
		if now := s.read.Load(); now != last || s.in != nil && s.in.full.Load() {
			last, silent = now, 0
		} else {
			silent++
		}
		patience := missedHeartbeats
		if next := s.next.Load(); next > 0 {
			patience += int(time.Duration(next/slowestRate+1) * time.Second / s.cfg.heartbeat)
		}
		if silent >= patience {
			s.fail(violation(PeerStalled, "a message or a heartbeat every "+s.cfg.heartbeat.String(),
				"nothing for %d times that", silent))
		}
		return s.cfg.heartbeat
	})
}

// every calls f after d, and then after each duration that f returns, until that is 0 or the
// session is over.
func (s *session[O, I]) every(d time.Duration, f func() time.Duration) {
	var again *time.Timer
	s.mu.Lock() // so that again is set before it is used
	defer s.mu.Unlock()
	again = s.afterLocked(d, func() {
		d := f()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.life == living && d > 0 {
			again.Reset(d)
		}
	})
}
