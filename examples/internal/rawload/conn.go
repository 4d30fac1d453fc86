package rawload

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A conn is a connection and its calls. One goroutine adds and flushes calls,
// another reads.
type conn struct {
	load             *Load
	start            time.Time
	net              net.Conn
	headers, message []byte
	writing          []byte // the data that flush writes

	mu     sync.Mutex // guards the fields below
	calls  []record   // the call of stream 2i+1 is calls[i]
	out    bytes.Buffer
	frames *http2.Framer // writes to out

	unanswered int // of calls
}

func dial(ctx context.Context, l *Load, start time.Time) (*conn, error) {
	var d net.Dialer
	socket, err := d.DialContext(ctx, "tcp", l.Addr)
	if err != nil {
		return nil, err
	}
	c := &conn{load: l, start: start, net: socket}
	c.headers, c.message = l.request()
	c.calls = make([]record, 0, int(1.1*l.Rate*(l.Warm+l.Length).Seconds())/l.Conns+1000)
	c.frames = http2.NewFramer(&c.out, nil)
	c.out.WriteString(http2.ClientPreface)
	_ = c.frames.WriteSettings(settings...) // writing to c.out does not fail
	_ = c.frames.WriteWindowUpdate(0, 1<<31-1-65535)
	return c, nil
}

// add queues a call that was due at a time after the start.
func (c *conn) add(due time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := uint32(2*len(c.calls) + 1)
	c.calls = append(c.calls, record{due: due})
	c.unanswered++
	_ = c.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.headers, EndHeaders: true})
	_ = c.frames.WriteData(id, true, c.message)
}

// flush writes the queued frames. It may block if the peer does not read. It must not hold
// the lock then, because the peer may wait for the reader.
func (c *conn) flush() error {
	c.mu.Lock()
	c.writing = append(c.writing[:0], c.out.Bytes()...)
	c.out.Reset()
	c.mu.Unlock()
	if len(c.writing) == 0 {
		return nil
	}
	_, err := c.net.Write(c.writing)
	return err
}

// read reads answers until the connection ends.
func (c *conn) read() {
	var status string
	headers := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == "grpc-status" {
			status = f.Value
		}
	})
	in := http2.NewFramer(nil, bufio.NewReaderSize(c.net, 64<<10))
	in.SetReuseFrames()
	for {
		frame, err := in.ReadFrame()
		if err != nil {
			return
		}
		switch f := frame.(type) {
		case *http2.HeadersFrame: // too small for a continuation frame
			status = ""
			if _, err := headers.Write(f.HeaderBlockFragment()); err != nil {
				return
			}
			if f.StreamEnded() {
				c.answered(f.StreamID, status)
			}
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.reply(func() { _ = c.frames.WriteSettingsAck() })
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				c.reply(func() { _ = c.frames.WritePing(true, f.Data) })
			}
		}
	}
}

// reply queues a frame. It goes out with the next call.
func (c *conn) reply(write func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	write()
}

func (c *conn) answered(stream uint32, status string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := int(stream-1) / 2
	if i >= len(c.calls) {
		return // not a call of ours
	}
	c.unanswered--
	x := &c.calls[i]
	x.latency = time.Since(c.start) - x.due
	x.outcome = c.load.classify(status, x.latency)
}
