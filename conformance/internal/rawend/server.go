package rawend

import (
	"net"
	"sync"
	"time"
)

const (
	runPath     = "/weir.conformance.v1.ConformanceService/Run"
	nextPath    = "/weir.conformance.v1.ConformanceService/Next"
	outcomePath = "/weir.conformance.v1.ConformanceService/Outcome"
	channelPath = "/weir.credit.v1.CreditStream/Channel"

	unfinishedTrailer = "weir-credit-unfinished"
	consumedTrailer   = "weir-credit-consumed"
)

// grace is the time that an end waits, after its last message, for messages that are still on their way.
const grace = time.Second

// A Server is a server end. The zero value makes no mistake.
type Server struct {
	Fault Fault

	mu      sync.Mutex // guards the fields below
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
			_ = c.Close() // it may be closed already
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
		_ = st.send(putBytes(nil, 1, r.encode())) // the reader sees the error as well
		st.finish(nil)
	case <-st.ctx.Done():
	}
}

// report returns the channel for the report of a session.
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

// session serves one stream of the credit protocol.
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

// trailers returns the trailer that warns of elements that may not have been written.
func (s *session) trailers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.script.send != nil && !s.terminal && s.outEnd == nil && len(s.queue) > 0 && s.fault != LosesTheLast {
		return []string{unfinishedTrailer, "1"}
	}
	return nil
}

// status returns the status of the call, which is the first failure of a direction, or nil.
func (p *player) status() *statusError {
	for _, err := range []error{p.r.sending, p.r.receiving} {
		if kind, s := kindOf(err); kind == kindOfFailed {
			return s
		}
	}
	return nil
}
