package kafka_test

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A cluster is a Kafka server in this process, with a tap on its connections in memory. The tap
// sees the requests that arrive and the records that leave. So tests judge a source by what
// happens at the broker.
type cluster struct {
	*kfake.Cluster
	addrs   []string
	network kfake.VirtualNetwork

	mu       sync.Mutex
	requests map[int16]int       // by key
	topics   map[[16]byte]string // by id
	sent     map[spot]int64      // the offset behind the last record that was sent
	records  int                 // that were sent, repetitions included
	bytes    int                 // of batches that were sent
}

type spot struct {
	topic     string
	partition int32
}

func start(t testing.TB, brokers int, opts ...kfake.Opt) *cluster {
	t.Helper()
	c := &cluster{requests: map[int16]int{}, topics: map[[16]byte]string{}, sent: map[spot]int64{}}
	ports := make([]int, brokers)
	for i := range ports {
		ports[i] = 9000 + i
	}
	fake, err := kfake.NewCluster(append(opts, kfake.Ports(ports...), kfake.ListenFn(c.listen))...)
	if err != nil {
		t.Fatalf("kfake: %v", err)
	}
	c.Cluster, c.addrs = fake, fake.ListenAddrs()
	t.Cleanup(fake.Close)
	return c
}

// count returns the number of requests of a kind.
func (c *cluster) count(kind kmsg.Key) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.requests[kind.Int16()]
}

// ahead returns how many records the broker has sent that are not committed.
func (c *cluster) ahead(group string) (n int64) {
	committed := c.committed(group)
	c.mu.Lock()
	defer c.mu.Unlock()
	for at, next := range c.sent {
		n += max(0, next-committed[at])
	}
	return n
}

// client returns a client for the tests themselves.
func (c *cluster) client(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(c.addrs...), c.dialer())...)
	if err != nil {
		t.Fatalf("client: %v", err)
	}
	t.Cleanup(client.Close)
	return client
}

// committed returns the offsets that the group has stored.
func (c *cluster) committed(group string) map[spot]int64 {
	at := map[spot]int64{}
	info := c.GroupInfo(group)
	if info == nil {
		return at
	}
	for topic, parts := range info.Commits {
		for p, commit := range parts {
			at[spot{topic, p}] = commit.Offset
		}
	}
	return at
}

// produce writes records, each a batch of its own if single is true.
func (c *cluster) produce(t testing.TB, single bool, records ...*kgo.Record) {
	t.Helper()
	opts := []kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner())}
	if single {
		opts = append(opts, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(1))
	}
	client := c.client(t, opts...)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if !single {
		if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
			t.Fatalf("produce: %v", err)
		}
		return
	}
	for _, r := range records {
		if err := client.ProduceSync(ctx, r).FirstErr(); err != nil {
			t.Fatalf("produce: %v", err)
		}
	}
}

// dialer connects to the brokers in memory, so that all runs in a bubble of synctest.
func (c *cluster) dialer() kgo.Opt { return kgo.Dialer(c.network.DialContext) }

func (c *cluster) listen(network, addr string) (net.Listener, error) {
	l, err := c.network.Listen(network, addr)
	if err != nil {
		return nil, err
	}
	return &tapListener{l, c}, nil
}

type tapListener struct {
	net.Listener
	c *cluster
}

func (l *tapListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tapConn{Conn: conn, c: l.c, pending: map[int32]call{}}, nil
}

// A tapConn reads along on one connection. kfake reads and writes it in two goroutines.
type tapConn struct {
	net.Conn
	c       *cluster
	in, out []byte // of frames that are not complete

	mu      sync.Mutex
	pending map[int32]call // by correlation id
}

type call struct{ key, version int16 }

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
	t.c.mu.Lock()
	t.c.requests[key]++
	t.c.mu.Unlock()
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
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	switch resp := resp.(type) {
	case *kmsg.MetadataResponse:
		for _, topic := range resp.Topics {
			if topic.Topic != nil {
				t.c.topics[topic.TopicID] = *topic.Topic
			}
		}
	case *kmsg.FetchResponse:
		t.c.fetched(resp)
	}
}

// fetched counts the records of a response. The caller holds c.mu.
func (c *cluster) fetched(resp *kmsg.FetchResponse) {
	for _, topic := range resp.Topics {
		name := topic.Topic
		if name == "" {
			name = c.topics[topic.TopicID]
		}
		for _, p := range topic.Partitions {
			c.bytes += len(p.RecordBatches)
			for b := p.RecordBatches; len(b) > 12; {
				size := 12 + int(binary.BigEndian.Uint32(b[8:]))
				var batch kmsg.RecordBatch
				if size > len(b) || batch.ReadFrom(b[:size]) != nil {
					break
				}
				c.records += int(batch.NumRecords)
				at := spot{name, p.Partition}
				c.sent[at] = max(c.sent[at], batch.FirstOffset+int64(batch.LastOffsetDelta)+1)
				b = b[size:]
			}
		}
	}
}

// kfakeTopic makes the topics of the tests.
func kfakeTopic(partitions int32) kfake.Opt { return kfake.SeedTopics(partitions, topic, dead) }

// kick makes the group forget its member, as after a session timeout.
func (c *cluster) kick(t testing.TB) {
	t.Helper()
	c.ControlKey(kmsg.Heartbeat.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
		resp.ErrorCode = kerr.UnknownMemberID.Code
		return resp, nil, true
	})
}
