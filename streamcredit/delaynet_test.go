package streamcredit_test

import (
	"net"
	"time"
)

// delayed is a connection whose writes arrive later: a long line, of any bandwidth.
type delayed struct {
	net.Conn
	delay time.Duration
	line  chan parcel
	cut   chan struct{}
}

type parcel struct {
	due time.Time
	b   []byte
}

func delay(c net.Conn, d time.Duration) net.Conn {
	l := &delayed{Conn: c, delay: d, line: make(chan parcel, 1<<16), cut: make(chan struct{})}
	go l.carry() // ends with Close
	return l
}

func (l *delayed) carry() {
	for {
		select {
		case p := <-l.line:
			time.Sleep(time.Until(p.due))
			if _, err := l.Conn.Write(p.b); err != nil {
				_ = l.Conn.Close() // the other side's read says so
			}
		case <-l.cut:
			return
		}
	}
}

func (l *delayed) Write(b []byte) (int, error) {
	select {
	case l.line <- parcel{time.Now().Add(l.delay), append([]byte(nil), b...)}:
		return len(b), nil
	case <-l.cut:
		return 0, net.ErrClosed
	}
}

func (l *delayed) Close() error {
	select {
	case <-l.cut:
	default:
		close(l.cut)
	}
	return l.Conn.Close()
}

// delayedListener delays what the server writes.
type delayedListener struct {
	net.Listener
	delay time.Duration
}

func (l delayedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return delay(c, l.delay), nil
}
