package rawend

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	initialWindow = 65535   // of HTTP/2, for a connection and for each stream
	mostFrame     = 16384   // bytes of a frame, HTTP/2's default
	mostMessage   = 4 << 20 // bytes of the largest message to receive, gRPC's default
)

// errLost is the error of a stream after its connection was lost.
var errLost = &statusError{code: 14, message: "the connection is lost"}

// A conn is one HTTP/2 connection. One goroutine reads, and another writes the answers to the frames that it
// read, so that reading never waits for writing.
type conn struct {
	net    net.Conn
	server bool
	handle func(s *stream) // serves a call; nil on a client
	wg     sync.WaitGroup  // the goroutines

	wmu    sync.Mutex // guards the fields below; locked while a frame is written, never under mu
	frames *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder

	mu      sync.Mutex // guards the fields below, and the state of all streams
	changed *sync.Cond // on mu
	answers []func() error
	streams map[uint32]*stream
	next    uint32 // the id of a client's next stream
	window  int64  // bytes that may be sent
	initial int64  // the window of a new stream
	lost    bool
}

func newConn(c net.Conn, handle func(s *stream)) *conn {
	out := &conn{
		net: c, server: handle != nil, handle: handle, frames: http2.NewFramer(c, c),
		streams: map[uint32]*stream{}, next: 1, window: initialWindow, initial: initialWindow,
	}
	out.changed = sync.NewCond(&out.mu)
	out.hpack = hpack.NewEncoder(&out.block)
	out.frames.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return out
}

// run serves the connection until it is lost, and then waits for all calls.
func (c *conn) run() {
	defer c.wg.Wait()
	defer c.lose()
	if c.server {
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(c.net, preface); err != nil {
			return
		}
		c.answer(func() error { return c.frames.WriteSettings() })
	}
	c.wg.Go(c.write)
	for {
		f, err := c.frames.ReadFrame()
		var reset http2.StreamError
		switch {
		case errors.As(err, &reset):
			continue
		case err != nil:
			return
		}
		c.take(f)
	}
}

// greet writes the client's preface and settings.
func (c *conn) greet() error {
	if _, err := io.WriteString(c.net, http2.ClientPreface); err != nil {
		return err
	}
	return c.frames.WriteSettings()
}

// lose ends all streams.
func (c *conn) lose() {
	_ = c.net.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = true
	for _, s := range c.streams {
		s.dieLocked(errLost)
	}
	c.changed.Broadcast()
}

// answer queues a frame for the writer.
func (c *conn) answer(write func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers = append(c.answers, write)
	c.changed.Broadcast()
}

// write is the goroutine that writes the answers.
func (c *conn) write() {
	for {
		c.mu.Lock()
		for len(c.answers) == 0 && !c.lost {
			c.changed.Wait()
		}
		answers, lost := c.answers, c.lost
		c.answers = nil
		c.mu.Unlock()
		if lost {
			return
		}
		c.wmu.Lock()
		for _, write := range answers {
			if write() != nil {
				break // the reader learns of it
			}
		}
		c.wmu.Unlock()
	}
}

// take handles a frame.
func (c *conn) take(f http2.Frame) {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			c.settings(f)
			c.answer(c.frames.WriteSettingsAck)
		}
	case *http2.PingFrame:
		if data := f.Data; !f.IsAck() {
			c.answer(func() error { return c.frames.WritePing(true, data) })
		}
	case *http2.WindowUpdateFrame:
		c.grow(f.StreamID, int64(f.Increment))
	case *http2.MetaHeadersFrame:
		c.headers(f)
	case *http2.DataFrame:
		c.data(f)
	case *http2.RSTStreamFrame:
		c.mu.Lock()
		if s := c.streams[f.StreamID]; s != nil {
			s.dieLocked(&statusError{code: canceledCode, message: "the peer has reset the stream"})
		}
		c.mu.Unlock()
	}
}

func (c *conn) settings(f *http2.SettingsFrame) {
	size, ok := f.Value(http2.SettingInitialWindowSize)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		s.window += int64(size) - c.initial
	}
	c.initial = int64(size)
	c.changed.Broadcast()
}

func (c *conn) grow(id uint32, by int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id == 0 {
		c.window += by
	} else if s := c.streams[id]; s != nil {
		s.window += by
	}
	c.changed.Broadcast()
}

func (c *conn) headers(f *http2.MetaHeadersFrame) {
	fields := map[string][]string{}
	for _, h := range f.Fields {
		fields[h.Name] = append(fields[h.Name], h.Value)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[f.StreamID]
	switch {
	case s == nil && c.server:
		s = c.addLocked(f.StreamID)
		s.path = f.PseudoValue("path")
		s.closed = f.StreamEnded()
		c.wg.Go(func() { c.handle(s) })
	case s != nil && f.StreamEnded():
		s.trailer = fields
		s.closed = true
		s.dieLocked(statusOf(fields))
	}
}

func (c *conn) addLocked(id uint32) *stream {
	s := &stream{c: c, id: id, window: c.initial}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	c.streams[id] = s
	if c.lost {
		s.dieLocked(errLost)
	}
	return s
}

func (c *conn) data(f *http2.DataFrame) {
	size := f.Length
	if size > 0 {
		c.answer(func() error { return c.frames.WriteWindowUpdate(0, size) })
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[f.StreamID]
	if s == nil {
		return
	}
	s.in = append(s.in, f.Data()...)
	s.owed += int(size)
	s.closed = s.closed || f.StreamEnded()
	c.changed.Broadcast()
}

// open begins a call of a client.
func (c *conn) open(path string) *stream {
	c.wmu.Lock() // stream ids must rise on the wire
	defer c.wmu.Unlock()
	c.mu.Lock()
	s := c.addLocked(c.next)
	s.headed = true
	c.next += 2
	c.mu.Unlock()
	c.putHeaders(s.id, false, ":method", "POST", ":scheme", "http", ":path", path, ":authority", "raw",
		"content-type", "application/grpc", "te", "trailers")
	return s
}

// putHeaders writes headers; wmu is held. The reader learns of errors.
func (c *conn) putHeaders(id uint32, end bool, fields ...string) {
	c.block.Reset()
	for i := 1; i < len(fields); i += 2 {
		_ = c.hpack.WriteField(hpack.HeaderField{Name: fields[i-1], Value: fields[i]}) // to memory
	}
	_ = c.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: end})
}
