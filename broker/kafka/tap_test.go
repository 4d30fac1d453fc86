package kafka_test

import (
	"encoding/binary"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A tap reads along on the connections of a broker. It sees the requests that arrive and
// the records that leave. So tests judge a source by what happens at the broker.
type tap struct {
	mu       sync.Mutex
	requests map[int16]int       // by key
	topics   map[[16]byte]string // by id
	sent     map[spot]sending
}

type spot struct {
	topic     string
	partition int32
}

// A sending is the progress of the connection that got records of a partition last.
type sending struct {
	next int64 // the offset behind the last record
	to   *tapConn
}

func newTap() *tap {
	return &tap{requests: map[int16]int{}, topics: map[[16]byte]string{}, sent: map[spot]sending{}}
}

// count returns the number of requests of a kind.
func (c *tap) count(kind kmsg.Key) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.requests[kind.Int16()]
}

// ahead returns how many records of a topic were sent that are not committed.
func (c *tap) ahead(topic string, committed map[spot]int64) (n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at, s := range c.sent {
		if at.topic == topic {
			n += max(0, s.next-committed[at])
		}
	}
	return n
}

func (c *tap) listen(l net.Listener) net.Listener { return &tapListener{l, c} }

type tapListener struct {
	net.Listener
	tap *tap
}

func (l *tapListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tapConn{Conn: conn, tap: l.tap, pending: map[int32]call{}}, nil
}

// A tapConn reads along on one connection. kfake reads and writes it in two goroutines.
type tapConn struct {
	net.Conn
	tap     *tap
	in, out []byte // of frames that are not complete

	mu      sync.Mutex
	pending map[int32]call // by correlation id
}

type call struct{ key, version int16 }

// Close forgets the records that were sent to this client. The broker does so too.
func (t *tapConn) Close() error {
	t.tap.mu.Lock()
	defer t.tap.mu.Unlock()
	for at, s := range t.tap.sent {
		if s.to == t {
			delete(t.tap.sent, at)
		}
	}
	return t.Conn.Close()
}

func (t *tapConn) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	t.in = frames(append(t.in, b[:n]...), t.request)
	return n, err
}

// Write counts before it writes, so that a test never sees an effect before its cause.
func (t *tapConn) Write(b []byte) (int, error) {
	t.out = frames(append(t.out, b...), t.response)
	return t.Conn.Write(b)
}

// frames calls f for each complete frame and returns the rest.
func frames(b []byte, f func([]byte)) []byte {
	for len(b) >= 4 {
		n := int(binary.BigEndian.Uint32(b))
		if len(b) < 4+n {
			break
		}
		f(b[4 : 4+n])
		b = b[4+n:]
	}
	return append([]byte(nil), b...)
}

func (t *tapConn) request(b []byte) {
	key, version := int16(binary.BigEndian.Uint16(b)), int16(binary.BigEndian.Uint16(b[2:]))
	t.mu.Lock()
	t.pending[int32(binary.BigEndian.Uint32(b[4:]))] = call{key, version}
	t.mu.Unlock()
	t.tap.mu.Lock()
	t.tap.requests[key]++
	t.tap.mu.Unlock()
}

func (t *tapConn) response(b []byte) {
	id := int32(binary.BigEndian.Uint32(b))
	t.mu.Lock()
	call := t.pending[id]
	delete(t.pending, id)
	t.mu.Unlock()
	if call.key != kmsg.Fetch.Int16() && call.key != kmsg.Metadata.Int16() {
		return
	}
	resp := kmsg.ResponseForKey(call.key)
	resp.SetVersion(call.version)
	body := b[4:]
	if resp.IsFlexible() {
		body = body[1:] // the tags of the header, of which there are none
	}
	if resp.ReadFrom(body) != nil {
		return
	}
	t.tap.mu.Lock()
	defer t.tap.mu.Unlock()
	switch resp := resp.(type) {
	case *kmsg.MetadataResponse:
		for _, topic := range resp.Topics {
			if topic.Topic != nil {
				t.tap.topics[topic.TopicID] = *topic.Topic
			}
		}
	case *kmsg.FetchResponse:
		t.tap.fetched(resp, t)
	}
}

// fetched counts the records of a response. The caller holds c.mu.
func (c *tap) fetched(resp *kmsg.FetchResponse, to *tapConn) {
	for _, topic := range resp.Topics {
		name := topic.Topic
		if name == "" {
			name = c.topics[topic.TopicID]
		}
		for _, p := range topic.Partitions {
			for b := p.RecordBatches; len(b) > 12; {
				size := 12 + int(binary.BigEndian.Uint32(b[8:]))
				var batch kmsg.RecordBatch
				if size > len(b) || batch.ReadFrom(b[:size]) != nil {
					break
				}
				at := spot{name, p.Partition}
				next := batch.FirstOffset + int64(batch.LastOffsetDelta) + 1
				if last := c.sent[at]; last.to == to {
					next = max(next, last.next)
				}
				c.sent[at] = sending{next, to}
				b = b[size:]
			}
		}
	}
}
