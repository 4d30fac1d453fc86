package rawend

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
)

// Codes of gRPC.
const (
	canceledCode          = 1
	unknownCode           = 2
	invalidArgumentCode   = 3
	deadlineExceededCode  = 4
	resourceExhaustedCode = 8
	failedPrecondition    = 9
	unimplementedCode     = 12
	internalCode          = 13
	unavailableCode       = 14
	dataLossCode          = 15
)

// A statusError is a status that is not OK.
type statusError struct {
	code    int
	reason  string // of an ErrorInfo of the domain weir
	message string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("status %d %s: %s", e.code, e.reason, e.message)
}

// A stream is one call. At most one goroutine may receive and one may send at a time.
type stream struct {
	c      *conn
	id     uint32
	path   string
	ctx    context.Context // ends with the stream
	cancel context.CancelFunc
	headed bool // headers were written; used by the sender only

	// guarded by c.mu
	window  int64
	in      []byte
	owed    int  // received bytes that were not yet given back to the peer's window
	closed  bool // the peer sends no more
	dead    error
	aborted bool // a send that waits must fail
	partly  bool // a message was sent in part
	trailer map[string][]string
}

// dieLocked ends the stream with err. nil means io.EOF.
func (s *stream) dieLocked(err error) {
	if err == nil {
		err = io.EOF
	}
	if s.dead == nil {
		s.dead = err
	}
	delete(s.c.streams, s.id)
	s.cancel()
	s.c.changed.Broadcast()
}

// recv returns the next message, or io.EOF after the last one.
func (s *stream) recv() ([]byte, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for {
		size := -1
		if len(s.in) >= 5 {
			size = int(binary.BigEndian.Uint32(s.in[1:5]))
		}
		switch {
		case size > mostMessage:
			return nil, &statusError{code: resourceExhaustedCode, message: "the message is too large"}
		case size >= 0 && len(s.in) >= 5+size:
			m := s.in[5 : 5+size : 5+size]
			s.in = s.in[5+size:]
			s.replenishLocked()
			return m, nil
		case s.dead != nil:
			return nil, s.dead
		case s.closed && len(s.in) == 0:
			return nil, io.EOF
		case s.closed:
			return nil, &statusError{code: internalCode, message: "the stream ends within a message"}
		}
		s.replenishLocked()
		s.c.changed.Wait()
	}
}

// replenishLocked gives the peer its window back.
func (s *stream) replenishLocked() {
	if s.owed > 0 && s.dead == nil {
		n := uint32(s.owed)
		s.c.answers = append(s.c.answers, func() error { return s.c.frames.WriteWindowUpdate(s.id, n) })
		s.c.changed.Broadcast()
	}
	s.owed = 0
}

// header writes a server's headers.
func (s *stream) header(fields ...string) {
	if s.headed {
		return
	}
	s.headed = true
	s.c.wmu.Lock()
	defer s.c.wmu.Unlock()
	s.c.putHeaders(s.id, false, append([]string{":status", "200", "content-type", "application/grpc"}, fields...)...)
}

// send writes a message. It waits for the windows, until abort or the end of the stream.
func (s *stream) send(m []byte) error {
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m)))
	for b = append(b, m...); len(b) > 0; {
		n, err := s.room(len(b))
		if err != nil {
			return err
		}
		s.c.wmu.Lock()
		err = s.c.frames.WriteData(s.id, false, b[:n])
		s.c.wmu.Unlock()
		if err != nil {
			return errLost
		}
		b = b[n:]
		s.c.mu.Lock()
		s.partly = len(b) > 0
		s.c.mu.Unlock()
	}
	return nil
}

// room waits until bytes may be sent, and reserves up to n of them.
func (s *stream) room(n int) (int, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for {
		switch room := min(s.window, s.c.window, mostFrame); {
		case s.dead != nil:
			return 0, s.dead
		case s.aborted:
			return 0, &statusError{code: canceledCode, message: "given up"}
		case room > 0:
			n = min(n, int(room))
			s.window -= int64(n)
			s.c.window -= int64(n)
			return n, nil
		}
		s.c.changed.Wait()
	}
}

// abort makes a send that waits fail. After part of a message was sent, the stream can only be reset.
func (s *stream) abort() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.aborted = true
	s.c.changed.Broadcast()
}

// halfClose half-closes a client's stream.
func (s *stream) halfClose() {
	s.c.wmu.Lock()
	defer s.c.wmu.Unlock()
	_ = s.c.frames.WriteData(s.id, true, nil) // the reader learns of errors
}

// reset ends the stream at once.
func (s *stream) reset() {
	s.c.mu.Lock()
	over := s.dead != nil
	s.dieLocked(&statusError{code: canceledCode, message: "reset here"})
	s.c.mu.Unlock()
	if over {
		return
	}
	s.c.wmu.Lock()
	defer s.c.wmu.Unlock()
	_ = s.c.frames.WriteRSTStream(s.id, http2.ErrCodeCancel)
}

// finish ends a server's stream with a status. A nil status is OK.
func (s *stream) finish(err *statusError, fields ...string) {
	s.c.mu.Lock()
	over, partly := s.dead != nil, s.partly
	s.c.mu.Unlock()
	switch {
	case over:
		return
	case partly:
		s.reset()
		return
	}
	s.header()
	fields = append(fields, "grpc-status", "0")
	if err != nil {
		fields[len(fields)-1] = strconv.Itoa(err.code)
		fields = append(fields, "grpc-message", url.PathEscape(err.message), "grpc-status-details-bin",
			base64.RawStdEncoding.EncodeToString(err.encode()))
	}
	s.c.mu.Lock()
	s.dieLocked(nil)
	s.c.mu.Unlock()
	s.c.wmu.Lock()
	defer s.c.wmu.Unlock()
	s.c.putHeaders(s.id, true, fields...)
}

// encode returns the google.rpc.Status, with an ErrorInfo.
func (e *statusError) encode() []byte {
	b := putVarint(nil, 1, uint64(e.code))
	b = putBytes(b, 2, []byte(e.message))
	if e.reason == "" {
		return b
	}
	info := putBytes(putBytes(nil, 1, []byte(e.reason)), 2, []byte("weir"))
	detail := putBytes(putBytes(nil, 1, []byte("type.googleapis.com/google.rpc.ErrorInfo")), 2, info)
	return putBytes(b, 3, detail)
}

// statusOf returns the status in the trailers as a *statusError, or nil for OK.
func statusOf(trailer map[string][]string) error {
	code, err := strconv.Atoi(last(trailer["grpc-status"]))
	if err == nil && code == 0 {
		return nil
	}
	message, escaped := url.PathUnescape(last(trailer["grpc-message"]))
	if escaped != nil {
		message = last(trailer["grpc-message"])
	}
	if err != nil {
		code = unknownCode
	}
	e := &statusError{code: code, message: message}
	if details, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(last(trailer["grpc-status-details-bin"]), "=")); err == nil {
		e.reason = reasonIn(details)
	}
	return e
}

// reasonIn returns the reason of an ErrorInfo in a google.rpc.Status.
func reasonIn(status []byte) (reason string) {
	_ = eachField(status, func(num int, _ uint64, detail []byte) {
		if num == 3 {
			_ = eachField(detail, func(num int, _ uint64, info []byte) {
				if num == 2 {
					_ = eachField(info, func(num int, _ uint64, text []byte) {
						if num == 1 {
							reason = string(text)
						}
					})
				}
			})
		}
	})
	return reason
}

func last(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}
