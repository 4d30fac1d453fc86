package redis_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/redis"
)

// patience bounds each wait of a test. No test needs it all.
const patience = 30 * time.Second

// open makes a source that is closed at the end of the test.
func open(t testing.TB, c redis.Config) broker.Source {
	t.Helper()
	source, err := redis.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNow(t, source) })
	return source
}

// closeNow closes a source that may hold messages.
func closeNow(t testing.TB, source broker.Source) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = source.Close(ctx)
}

func next(t testing.TB, source broker.Source) *broker.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := source.Next(ctx)
	if err != nil {
		t.Fatalf("Next: got %v, want a message", err)
	}
	return m
}

// take requests n messages and returns them.
func take(t testing.TB, source broker.Source, n int) []*broker.Message {
	t.Helper()
	source.Request(n)
	var messages []*broker.Message
	for range n {
		messages = append(messages, next(t, source))
	}
	return messages
}

// do fails the test if a settlement fails.
func do(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func bodies(messages []*broker.Message) (list []string) {
	for _, m := range messages {
		list = append(list, string(m.Body))
	}
	return list
}

// add adds entries with these bodies, and returns their IDs.
func (s *server) add(t testing.TB, stream string, bodies ...string) (ids []string) {
	t.Helper()
	for _, body := range bodies {
		id, err := s.client.XAdd(t.Context(), &goredis.XAddArgs{Stream: stream, Values: []string{"body", body}}).Result()
		do(t, err)
		ids = append(ids, id)
	}
	return ids
}

// pending returns "consumer: id, deliveries" of each pending entry.
func (s *server) pending(t testing.TB, stream string) (list []string) {
	t.Helper()
	entries, err := s.client.XPendingExt(t.Context(), &goredis.XPendingExtArgs{
		Stream: stream, Group: group, Start: "-", End: "+", Count: 1000,
	}).Result()
	do(t, err)
	for _, e := range entries {
		list = append(list, fmt.Sprintf("%s: %s, %d", e.Consumer, e.ID, e.RetryCount))
	}
	return list
}

func wantPending(t testing.TB, s *server, stream string, want ...string) {
	t.Helper()
	if got := s.pending(t, stream); !slices.Equal(got, want) {
		t.Errorf("pending entries: got %q, want %q", got, want)
	}
}

// die reads n entries as another consumer, which then does nothing more. They were idle for
// as long as it says.
func (s *server) die(t testing.TB, stream, consumer string, n int, idle time.Duration) {
	t.Helper()
	read, err := s.client.XReadGroup(t.Context(), &goredis.XReadGroupArgs{
		Group: group, Consumer: consumer, Streams: []string{stream, ">"}, Count: int64(n),
	}).Result()
	do(t, err)
	for _, m := range read[0].Messages {
		do(t, s.client.Do(t.Context(), "XCLAIM", stream, group, consumer, 0, m.ID,
			"IDLE", idle.Milliseconds(), "JUSTID").Err())
	}
}

// await waits until ok.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// A lossy network loses the reply to the next command whose name it is given: the server has
// executed the command, and then the connection breaks.
type lossy struct{ lose atomic.Pointer[string] }

func (l *lossy) loseReplyTo(command string) { l.lose.Store(&command) }

// done reports whether a reply was lost.
func (l *lossy) done() bool { return l.lose.Load() == nil }

func (l *lossy) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &lossyConn{Conn: c, net: l}, nil
}

type lossyConn struct {
	net.Conn

	net    *lossy
	losing atomic.Bool
}

func (c *lossyConn) Write(p []byte) (int, error) {
	if name := c.net.lose.Load(); name != nil && bytes.Contains(bytes.ToUpper(p), []byte(*name)) {
		c.losing.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *lossyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil && c.losing.Load() {
		c.net.lose.Store(nil)
		_ = c.Close()
		return 0, net.ErrClosed
	}
	return n, err
}
