package rawend

import (
	"errors"
	"io"
	"time"
)

// greet returns the Open of this end.
func (s *session) greet() *control {
	o := open{
		minVersion: 1, maxVersion: 1,
		features: map[uint64]bool{featureConsumed: true, featureDrain: true, featureHeartbeat: true, featureBatch: true},
		willSend: s.script.send != nil, willReceive: s.script.receive != nil,
		maxMessage: s.script.receive[receiveMaxMessage], maxBuffered: s.script.receive[receiveBytes],
		heartbeatNanos: s.script.heartbeatMs * int64(time.Millisecond),
	}
	if !s.server {
		o.features[featureUnfinished] = true
	}
	if s.script.send[sendReject] != 0 && s.fault != HidesBound {
		o.maxCredit = s.script.send[sendMaxCredit]
	}
	if n := s.grantLocked(); n > 0 {
		o.initial = &control{kind: kindRequest, n: n}
	}
	return &control{kind: kindOpen, open: o}
}

// accept is the server's side of the handshake.
func (s *session) accept() error {
	first := make(chan error, 1)
	var b []byte
	go func() {
		var err error
		b, err = s.st.recv()
		first <- err
	}()
	timer := time.NewTimer(handshakeTimeout)
	defer timer.Stop()
	var err error
	select {
	case err = <-first:
	case <-timer.C:
		return violation("HANDSHAKE_TIMEOUT")
	}
	if errors.Is(err, io.EOF) {
		return violation("UNEXPECTED_FRAME")
	}
	if err != nil {
		return err
	}
	m, err := s.decode(b)
	if err != nil {
		return err
	}
	if s.script, err = decodeScript(m.script); err != nil {
		return err
	}
	s.script.orDefault()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.meetLocked(m); err != nil {
		return err
	}
	s.st.header("weir-credit-version", "1")
	s.putLocked(s.greet())
	return nil
}

// dial is the client's side of the handshake.
func (s *session) dial() error {
	limit := handshakeTimeout
	if s.script.handshakeMs > 0 {
		limit = time.Duration(s.script.handshakeMs) * time.Millisecond
	}
	var late bool
	timer := time.AfterFunc(limit, func() {
		s.mu.Lock()
		late = true
		s.mu.Unlock()
		s.st.reset()
	})
	b, err := s.st.recv()
	timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case late:
		return violation("HANDSHAKE_TIMEOUT")
	case errors.Is(err, io.EOF):
		return violation("UNEXPECTED_FRAME")
	case err != nil:
		return err
	}
	m, err := s.decode(b)
	if err != nil {
		return err
	}
	return s.meetLocked(m)
}

// meetLocked handles the peer's Open.
func (s *session) meetLocked(m message) error {
	if m.c == nil || m.c.kind != kindOpen {
		return violation("UNEXPECTED_FRAME")
	}
	o := m.c.open
	s.peer = o
	if o.minVersion > 1 {
		return violation("VERSION")
	}
	for f := range o.features {
		s.features[f] = f != featureUnfinished
	}
	if s.features[featureHeartbeat] {
		s.beatEvery = time.Duration(o.heartbeatNanos)
	}
	s.heard = time.Now()
	if o.initial != nil {
		return s.demandLocked(o.initial, true)
	}
	return nil
}

// firstRequest returns the time that the peer has for its first demand. Zero means no limit.
func (s *session) firstRequest() time.Duration {
	limit := time.Duration(s.script.send[sendFirstRequest]) * time.Millisecond
	if s.script.send != nil && limit == 0 && s.server {
		limit = firstRequest
	}
	return limit
}

// awaitRequest ends the session if no demand comes within limit.
func (s *session) awaitRequest(limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.asked && s.outEnd == nil && !s.terminal && !s.stopped {
		if !s.waitLocked(timer.C) {
			s.endLocked(violation("FIRST_REQUEST_TIMEOUT"))
			return
		}
	}
}
