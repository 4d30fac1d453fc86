package rawend

import (
	"errors"
	"io"
	"math"
	"sync"
	"time"
)

const (
	unbounded        = math.MaxInt64
	handshakeTimeout = 10 * time.Second
	firstRequest     = 30 * time.Second // a server's
	burst, rate      = 1000, 100        // the flood rule
	announceBytes    = 64 << 10         // a second of a large element
	idleReport       = 50 * time.Millisecond
)

// A session is one end of one stream. It has an account for each direction, and a queue of items to write.
type session struct {
	st     *stream
	server bool
	framed bool
	script *script
	fault  Fault

	mu      sync.Mutex // guards the fields below
	changed chan struct{}
	queue   []*item
	waiting bool  // an element is in the queue
	writing bool  // an item has left the queue and is not written yet
	batched int64 // further elements in the last Frame, for BatchesTooMuch
	halved  bool
	over    error // why the stream has ended, nil while it is open
	stopped bool  // nothing more may be written
	wrote   time.Time
	heard   time.Time
	grace   time.Duration // extra time for an announced element
	theirs  bucket
	mine    bucket

	peer      open
	features  map[uint64]bool // that both ends know
	beatEvery time.Duration   // the longest time without a message; 0 means no bound

	outgoing
	incoming
}

func newSession(st *stream, server, framed bool, sc *script, fault Fault) *session {
	now := time.Now()
	return &session{
		st: st, server: server, framed: framed, script: sc, fault: fault, changed: make(chan struct{}),
		wrote: now, heard: now, theirs: newBucket(burst), mine: newBucket(burst / 2), features: map[uint64]bool{},
	}
}

// changeLocked wakes all goroutines in waitLocked.
func (s *session) changeLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// waitLocked waits for a change. It returns false if the timer fires first.
func (s *session) waitLocked(timer <-chan time.Time) bool {
	changed := s.changed
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-changed:
		return true
	case <-timer:
		return false
	}
}

// endLocked ends the session with err. A direction that has ended already keeps its error.
func (s *session) endLocked(err error) {
	if s.over == nil {
		s.over = err
	}
	if s.outEnd == nil {
		s.outEnd = err
		if errors.Is(err, io.EOF) {
			s.outEnd = errCanceled
		}
	}
	if s.inEnd == nil {
		s.inEnd = err
		if s.fault == DropsBuffered && !errors.Is(err, io.EOF) {
			s.buffer = nil
		}
	}
	s.changeLocked()
}

func (s *session) fail(err error) {
	s.mu.Lock()
	s.endLocked(err)
	s.mu.Unlock()
}

// settleLocked half-closes a client's stream once the client has nothing more to write.
func (s *session) settleLocked() {
	out := s.script.send == nil || s.terminal || s.outEnd != nil
	reported := !s.features[featureConsumed] || s.reported == s.received
	in := s.script.receive == nil || s.quit || s.complete && len(s.buffer) == 0 && reported
	if s.server || !out || !in || s.over != nil {
		return
	}
	for _, it := range s.queue {
		if it.half {
			return
		}
	}
	if !s.halved {
		s.queue = append(s.queue, &item{half: true})
		s.changeLocked()
	}
}
