// Package rawend is an end of the credit protocol that shares no code with weir, gRPC or generated
// messages: HTTP/2 frames and protobuf fields by hand. It was written from credit.proto alone, and does what
// the scripts of the conformance suite say. With a [Fault] it does one thing wrong, so that each rule can be
// seen to fail.
package rawend

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// A Fault is one thing that an end does wrong.
type Fault int

// The faults. None is the zero value.
const (
	None                 Fault = iota
	Expires                    // the allowance for elements stops at 1000: rule 72
	BeatsSlowly                // twice the silence that was asked for: rule 73
	BatchesTooMuch             // batches of 41 elements: rule 74
	AsksTooMuch                // more than max_credit: rule 75
	WantsReports               // no more than 1,000 elements that are not reported as consumed: rule 76
	AnnouncesNothing           // no next_bytes: rule 77
	IgnoresAnnouncements       // next_bytes gives no time: rule 77
	Floods                     // control without a bound: rule 78
	DropsBuffered              // an error takes what is buffered: rule 79
	LosesTheLast               // the last element is accepted and not written, where the handler returns then: rule 80
	IgnoresTrailers            // OK is the end, whatever the trailers say: rule 81
	ReportsLate                // consumed is reported only with demand: rule 82
	TrustsOK                   // OK means consumed: rule 83
	HidesBound                 // no max_credit: rule 84
	WaitsForEver               // heartbeats are asked for and not missed: rule 85
)

const (
	runPath     = "/weir.conformance.v1.ConformanceService/Run"
	nextPath    = "/weir.conformance.v1.ConformanceService/Next"
	outcomePath = "/weir.conformance.v1.ConformanceService/Outcome"
	channelPath = "/weir.credit.v1.CreditStream/Channel"

	unfinishedTrailer = "weir-credit-unfinished"
	consumedTrailer   = "weir-credit-consumed"
)

// grace is how long an end that has said all waits for what is on its way.
const grace = time.Second

// A Server is a server end. The zero value does nothing wrong.
type Server struct {
	Fault Fault

	mu      sync.Mutex // guards what follows
	reports map[string]chan *report
}

// Serve serves the connections of l until l is closed, and waits for their calls.
func (s *Server) Serve(l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	var mu sync.Mutex
	var conns []net.Conn
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_ = c.Close() // it may have been closed
		}
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		mu.Lock()
		conns = append(conns, c)
		mu.Unlock()
		wg.Go(newConn(c, s.handle).run)
	}
}

func (s *Server) handle(st *stream) {
	switch st.path {
	case runPath, channelPath:
		s.session(st)
	case outcomePath:
		s.outcome(st)
	default:
		st.finish(&statusError{code: unimplementedCode, message: "no method " + st.path})
	}
}

func (s *Server) outcome(st *stream) {
	b, err := st.recv()
	if err != nil {
		return
	}
	var id string
	_ = eachField(b, func(num int, _ uint64, f []byte) {
		if num == 1 {
			id = string(f)
		}
	})
	select {
	case r := <-s.report(id):
		st.header()
		_ = st.send(putBytes(nil, 1, r.encode())) // the reader learns of errors
		st.finish(nil)
	case <-st.ctx.Done():
	}
}

// report returns where the report of a session is left.
func (s *Server) report(id string) chan *report {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reports == nil {
		s.reports = map[string]chan *report{}
	}
	if s.reports[id] == nil {
		s.reports[id] = make(chan *report, 1)
	}
	return s.reports[id]
}

// session is one of the credit protocol.
func (s *Server) session(st *stream) {
	se := newSession(st, true, st.path == channelPath, &script{}, s.Fault)
	err := se.accept()
	p := &player{session: se}
	p.r.id = se.script.id
	if err != nil {
		p.r.sends, p.r.receives, p.r.sending, p.r.receiving = true, true, err, err
	} else {
		var wg sync.WaitGroup
		wg.Go(se.write)
		wg.Go(se.read)
		wg.Go(se.watch)
		if limit := se.firstRequest(); limit > 0 {
			wg.Go(func() { se.awaitRequest(limit) })
		}
		p.play()
		se.flush(grace)
		defer wg.Wait()
	}
	se.mu.Lock()
	se.stopped = true
	se.changeLocked()
	se.mu.Unlock()
	st.abort()
	st.finish(p.status(), se.trailers()...)
	if p.r.id != "" {
		s.report(p.r.id) <- &p.r
	}
}

// trailers warns of what may not have been written.
func (s *session) trailers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.script.send != nil && !s.terminal && s.outEnd == nil && len(s.queue) > 0 && s.fault != LosesTheLast {
		return []string{unfinishedTrailer, "1"}
	}
	return nil
}

// status is what a handler returns.
func (p *player) status() *statusError {
	for _, err := range []error{p.r.sending, p.r.receiving} {
		if kind, s := kindOf(err); kind == kindOfFailed {
			return s
		}
	}
	return nil
}

// accept is a server's handshake.
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

// meetLocked acts on the peer's Open.
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

// firstRequest is how long the peer has to ask for anything; zero: for ever.
func (s *session) firstRequest() time.Duration {
	limit := time.Duration(s.script.send[sendFirstRequest]) * time.Millisecond
	if s.script.send != nil && limit == 0 && s.server {
		limit = firstRequest
	}
	return limit
}

// awaitRequest ends the session if nothing was asked for in time.
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

// Drive is a client end: over c it asks the suite for work, in four loops, until there is no more.
func Drive(ctx context.Context, c net.Conn, fault Fault) error {
	conn := newConn(c, nil)
	if err := conn.greet(); err != nil {
		return err
	}
	var ran sync.WaitGroup
	ran.Go(conn.run)
	defer ran.Wait()
	defer func() { _ = c.Close() }() // it may be lost already
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = conn.loop(fault) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (c *conn) loop(fault Fault) error {
	var previous []byte
	for {
		b, err := c.call(nextPath, previous)
		if err != nil {
			return err
		}
		var raw []byte
		var framed, done bool
		if err := eachField(b, func(num int, v uint64, f []byte) {
			switch num {
			case 1:
				raw = f
			case 2:
				framed = v != 0
			case 3:
				done = v != 0
			}
		}); err != nil || done {
			return err
		}
		sc, err := decodeScript(raw)
		if err != nil {
			return err
		}
		previous = putBytes(nil, 1, c.session(sc, framed, fault).encode())
	}
}

// call makes a unary call.
func (c *conn) call(path string, request []byte) ([]byte, error) {
	st := c.open(path)
	if err := st.send(request); err != nil {
		return nil, err
	}
	st.halfClose()
	b, err := st.recv()
	if err == nil {
		if _, err = st.recv(); errors.Is(err, io.EOF) {
			err = nil
		}
	}
	return b, err
}

// session is one of the credit protocol.
func (c *conn) session(sc *script, framed bool, fault Fault) *report {
	path := runPath
	if framed {
		path = channelPath
	}
	se := newSession(c.open(path), false, framed, sc, fault)
	p := &player{session: se}
	p.r.id = sc.id
	se.mu.Lock()
	se.owed = 0
	se.putLocked(se.greet())
	se.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(se.write)
	if err := se.dial(); err != nil {
		se.fail(err)
		p.r.sends, p.r.receives, p.r.sending, p.r.receiving = true, true, err, err
	} else {
		wg.Go(se.read)
		wg.Go(se.watch)
		if limit := se.firstRequest(); limit > 0 {
			wg.Go(func() { se.awaitRequest(limit) })
		}
		p.play()
		se.leave()
	}
	se.st.reset()
	wg.Wait()
	return &p.r
}

// dial is a client's handshake.
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

// leave waits a moment for the server to end a call that is all said.
func (s *session) leave() {
	s.mu.Lock()
	if s.over == nil && s.outEnd == nil && s.script.send != nil && !s.terminal {
		s.outEnd = errCanceled
	}
	s.settleLocked()
	halving := s.halved
	for _, it := range s.queue {
		halving = halving || it.half
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	for halving && s.over == nil && s.waitLocked(timer.C) {
	}
	s.mu.Unlock()
}
