package rawend

import (
	"time"
)

// watch queues heartbeats, and ends the session when the peer is silent for too long.
func (s *session) watch() {
	limit := time.Duration(0)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.features[featureHeartbeat] {
		limit = 3 * time.Duration(s.script.heartbeatMs) * time.Millisecond
	}
	if s.fault == BeatsSlowly {
		s.beatEvery *= 2
	}
	for (limit > 0 || s.beatEvery > 0) && s.over == nil && !s.stopped && !s.halved {
		now := time.Now()
		next := now.Add(time.Hour)
		if limit > 0 {
			if end := s.heard.Add(limit + s.grace); !now.Before(end) && s.fault != WaitsForEver {
				s.endLocked(violation("PEER_STALLED"))
				return
			} else if end.Before(next) {
				next = end
			}
		}
		if s.beatEvery > 0 {
			due := s.wrote.Add(s.beatEvery * 3 / 4)
			if !now.Before(due) && len(s.queue) == 0 {
				s.putLocked(s.beatLocked())
				s.wrote = now
				due = now.Add(s.beatEvery * 3 / 4)
			}
			if due.Before(next) {
				next = due
			}
		}
		timer := time.NewTimer(max(time.Millisecond, next.Sub(now)))
		s.waitLocked(timer.C)
		timer.Stop()
	}
}

// beatLocked returns a heartbeat.
func (s *session) beatLocked() *control {
	return &control{kind: kindHeartbeat, sent: s.sent, credit: s.shownLocked()}
}

// shownLocked returns the credit that a heartbeat shows, which is at most the bound of the script.
func (s *session) shownLocked() int64 {
	if most := s.script.send[sendMaxCredit]; most > 0 {
		return min(s.credit, most)
	}
	return s.credit
}
