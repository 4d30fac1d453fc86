package streamcredit_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/streamcredit"
)

// frozen is a connection of a process that can be stopped: it reads and writes nothing then,
// and does not close.
type frozen struct {
	net.Conn

	stopped chan struct{}
	closed  chan struct{}
}

func (c *frozen) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	select {
	case <-c.stopped:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (c *frozen) Write(b []byte) (int, error) {
	select {
	case <-c.stopped:
		return len(b), nil // lost
	default:
		return c.Conn.Write(b)
	}
}

func (c *frozen) Close() error {
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	return c.Conn.Close()
}

func newFrozen() *frozen { return &frozen{stopped: make(chan struct{}), closed: make(chan struct{})} }

// dial connects to p, over a connection that can be stopped.
func (c *frozen) dial(t *testing.T, p *grpctest.Pair) *grpc.ClientConn {
	t.Helper()
	return p.Dial(t, grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
		c.Conn = p.NetConn(t)
		return c, nil
	}))
}

// stopClient opens a stream whose server wants heartbeats, and stops its client.
func stopClient(t *testing.T, k kind) *ends {
	t.Helper()
	line := newFrozen()
	t.Cleanup(func() { _ = line.Close() })
	e := connectOver(t, k, opened(streamcredit.WithWindow(1<<20)), opened(streamcredit.WithHeartbeat(time.Second)),
		func(p *grpctest.Pair) *grpc.ClientConn { return line.dial(t, p) })
	time.Sleep(time.Minute)
	close(line.stopped)
	return e
}

func wantStalled(t *testing.T, what string, err error) {
	t.Helper()
	if v, ok := errors.AsType[*streamcredit.ProtocolError](err); !ok || v.Reason != streamcredit.PeerStalled {
		t.Errorf("%s: got %v, want %s", what, err, streamcredit.PeerStalled)
	}
}

// A server's Send that is stuck in the transport ends when its peer is found to be gone, and
// so do the other calls that wait for that write.
func TestAStoppedClientFreesSend(t *testing.T) {
	for name, k := range map[string]kind{"frames": framesDown, "embedded": subscribes, "embedded, both ways": converts} {
		for end, wait := range map[string]func(out outlet) error{
			"Send": nil, "Close": outlet.Close,
			"Finish": func(out outlet) error { return out.Finish(context.Background()) },
		} {
			t.Run(name+", "+end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { freeze(t, k, wait) })
			})
		}
	}
}

// freeze stops the client of a stream, and fills the transport with elements. Where end is not
// nil, it is to end the direction while a Send is stuck.
func freeze(t *testing.T, k kind, end func(out outlet) error) {
	t.Helper()
	e := stopClient(t, k)
	start := time.Now()
	sent := make(chan error, 1)
	go func() {
		for n := int64(1); ; n++ {
			if err := e.server.out.send(context.Background(), n); err != nil {
				sent <- err
				return
			}
		}
	}()
	want := func(what string, err error) {
		wantStalled(t, what, err)
		if took := time.Since(start); took < 2*time.Second || took > 5*time.Second {
			t.Errorf("%s took %v, want about three heartbeats", what, took)
		}
	}
	if end != nil {
		synctest.Wait() // the Send is stuck
		want("the end", end(e.server.out))
	}
	want("Send", <-sent)
	e.leave <- nil
	<-e.left
}
