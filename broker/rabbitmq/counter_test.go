package rabbitmq_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// A counter stands between clients and the server, reads the frames of both, and counts the
// messages that are on their way or unacknowledged. It counts a delivery when the server has
// sent it, and no longer when the client has sent its settlement.
type counter struct {
	listener net.Listener
	target   string
	work     sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	channels map[channelID]*channel
	conns    map[net.Conn]struct{}
	misuse   map[string]int       // by queue
	consumes map[string]int       // consumers that were started, by queue
	stray    int                  // deliveries that are to go to an unknown consumer
	returned map[string]time.Time // the last time that a client gave back a message, by queue
	done     bool
}

// A channelID names a channel of a connection.
type channelID struct {
	conn   net.Conn
	number uint16
}

type channel struct {
	queues  map[string]string // by consumer tag
	unacked map[uint64]string // the queue, by delivery tag
}

func newCounter(target string) (*counter, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &counter{
		listener: l, target: target, channels: map[channelID]*channel{}, conns: map[net.Conn]struct{}{},
		misuse: map[string]int{}, consumes: map[string]int{}, returned: map[string]time.Time{},
	}
	c.work.Go(c.serve)
	return c, nil
}

func (c *counter) Addr() string { return c.listener.Addr().String() }

// Unacked returns how many messages of the queue are unacknowledged.
func (c *counter) Unacked(queue string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range c.channels {
		for _, q := range ch.unacked {
			if q == queue {
				n++
			}
		}
	}
	return n
}

// Returned returns for how long no client has given back a message. The server needs a
// moment to have it ready again.
func (c *counter) Returned(queue string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.returned[queue])
}

// Misuse returns how many channels the server has closed because of a wrong settlement.
func (c *counter) Misuse(queue string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.misuse[queue]
}

// Consumes returns how many consumers were started.
func (c *counter) Consumes(queue string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.consumes[queue]
}

// Stray has the client drop the next n deliveries, as it does with those that arrive after
// the end of their consumer.
func (c *counter) Stray(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stray = n
}

// Cut ends all connections.
func (c *counter) Cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		_ = conn.Close()
	}
}

func (c *counter) Close() error {
	c.mu.Lock()
	c.done = true
	c.mu.Unlock()
	c.Cut()
	err := c.listener.Close()
	c.work.Wait()
	return err
}

func (c *counter) serve() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.work.Go(func() { c.join(client) })
	}
}

func (c *counter) join(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !c.keep(client, server) {
		return
	}
	defer c.forget(client, server)
	var both sync.WaitGroup
	both.Go(func() {
		defer server.Close()
		r := bufio.NewReader(client)
		if _, err := io.CopyN(server, r, 8); err == nil { // AMQP 0 0 9 1
			copyFrames(server, r, func(channel uint16, class, method uint16, args []byte) {
				c.fromClient(channelID{client, channel}, class, method, args)
			})
		}
	})
	copyFrames(client, bufio.NewReader(server), func(channel uint16, class, method uint16, args []byte) {
		c.fromServer(channelID{client, channel}, class, method, args)
	})
	_ = client.Close()
	both.Wait()
}

func (c *counter) keep(conns ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		c.conns[conn] = struct{}{}
	}
	return !c.done
}

// forget gives back the messages of a connection that has ended.
func (c *counter) forget(client, server net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, client)
	delete(c.conns, server)
	for id := range c.channels {
		if id.conn == client {
			delete(c.channels, id)
		}
	}
}

// copyFrames passes on frames, each after it was seen.
func copyFrames(to io.Writer, from *bufio.Reader, seen func(channel, class, method uint16, args []byte)) {
	const head, methodFrame = 7, 1
	for {
		frame := make([]byte, head, 512)
		if _, err := io.ReadFull(from, frame); err != nil {
			return
		}
		size := int(binary.BigEndian.Uint32(frame[3:])) + 1
		frame = append(frame, make([]byte, size)...)
		if _, err := io.ReadFull(from, frame[head:]); err != nil {
			return
		}
		if p := frame[head : len(frame)-1]; frame[0] == methodFrame && len(p) >= 4 {
			seen(binary.BigEndian.Uint16(frame[1:]), binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:]), p[4:])
		}
		if _, err := to.Write(frame); err != nil {
			return
		}
	}
}

// The methods of the protocol that matter here.
const (
	classChannel, classBasic = 20, 60

	channelClose = 40
	basicConsume = 20
	basicDeliver = 60
	basicAck     = 80
	basicReject  = 90
	basicNack    = 120
)

func (c *counter) fromClient(id channelID, class, method uint16, args []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.channels[id]
	if ch == nil {
		ch = &channel{queues: map[string]string{}, unacked: map[uint64]string{}}
		c.channels[id] = ch
	}
	switch {
	case class == classChannel && method == channelClose:
		delete(c.channels, id)
	case class == classBasic && method == basicConsume:
		queue, rest := shortString(args[2:])
		tag, _ := shortString(rest)
		ch.queues[tag] = queue
		c.consumes[queue]++
	case class == classBasic && (method == basicAck || method == basicReject || method == basicNack):
		last := binary.BigEndian.Uint64(args)
		multiple := method != basicReject && args[8]&1 != 0
		for tag := range ch.unacked {
			if tag == last || multiple && tag <= last {
				if method != basicAck {
					c.returned[ch.unacked[tag]] = time.Now()
				}
				delete(ch.unacked, tag)
			}
		}
	}
}

func (c *counter) fromServer(id channelID, class, method uint16, args []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.channels[id]
	if ch == nil {
		return
	}
	switch {
	case class == classChannel && method == channelClose:
		if text, _ := shortString(args[2:]); strings.Contains(text, "unknown delivery tag") {
			for _, queue := range ch.queues {
				c.misuse[queue]++
			}
		}
		delete(c.channels, id)
	case class == classBasic && method == basicDeliver:
		tag, rest := shortString(args)
		ch.unacked[binary.BigEndian.Uint64(rest)] = ch.queues[tag]
		if c.stray > 0 {
			c.stray--
			args[1] ^= 1 // a letter of the tag
		}
	}
}

func shortString(b []byte) (s string, rest []byte) {
	n := 1 + int(b[0])
	return string(b[1:n]), b[n:]
}
