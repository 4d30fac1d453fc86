package rawend

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Drive is a client end. It plays the scripts of the suite at the other end of c, in four loops at once, until
// there are no more or ctx ends. It closes c.
func Drive(ctx context.Context, c net.Conn, fault Fault) error {
	conn := newConn(c, nil)
	if err := conn.greet(); err != nil {
		return err
	}
	var ran sync.WaitGroup
	ran.Go(conn.run)
	defer ran.Wait()
	defer func() { _ = c.Close() }() // it may be closed already
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

// session runs one stream of the credit protocol and returns its report.
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

// leave waits up to grace for the server to end the call, if this end has half-closed.
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
	for halving && s.over == nil {
		halving = s.waitLocked(timer.C)
	}
	s.mu.Unlock()
}
