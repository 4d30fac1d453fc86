package streamcredit_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weir-go/weir/internal/grpctest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// The peer is never silent for longer than was asked for, whenever the last element came.
func TestHeartbeatsComeInTime(t *testing.T) {
	for _, interval := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, 10 * time.Second} {
		for _, pause := range []time.Duration{0, interval / 7, interval / 2, interval - 1, interval, interval + 1, interval * 5 / 3} {
			synctest.Test(t, func(t *testing.T) {
				const elements = 20
				r := receiveRaw(t, func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
					both, _, err := streamcredit.ServeFrames(stream, streamcredit.WithSendOnly())
					if err != nil {
						return err
					}
					for range elements {
						time.Sleep(pause)
						if err := both.Out.Send(stream.Context(), []byte("element")); err != nil {
							return err
						}
					}
					<-stream.Context().Done()
					return stream.Context().Err()
				}, &creditpb.Open{Features: allFeatures, Heartbeat: durationpb.New(interval), Initial: &creditpb.Request{N: elements}})
				beats, seen := 0, 0
				for range 60 {
					start := time.Now()
					f, n, err := r.recv()
					if err != nil {
						t.Fatal(err)
					}
					if silent := time.Since(start); silent > interval {
						t.Errorf("interval %v, an element every %v: got silence of %v", interval, pause, silent)
					}
					seen += n
					if f.GetControl().GetHeartbeat() != nil {
						if beats++; seen < elements && pause <= interval/2 {
							t.Errorf("interval %v, an element every %v: got a heartbeat between elements, want none", interval, pause)
						}
					}
				}
				if beats == 0 {
					t.Errorf("interval %v, an element every %v: got no heartbeat, want some", interval, pause)
				}
			})
		}
	}
}

// A hiccup in the way of one of a few intervals does not look like the end of the peer.
func TestHeartbeatsSurviveAHiccup(t *testing.T) {
	for phase := range 24 {
		synctest.Test(t, func(t *testing.T) {
			const interval = 500 * time.Millisecond
			line := &slowLine{}
			opts := opened(streamcredit.WithHeartbeat(interval))
			e := connectOver(t, framesDown, opts, opts, line.over(t))
			time.Sleep(5*time.Second + interval*time.Duration(phase)/8)
			line.pause.Store(int64(interval * 17 / 10))
			time.Sleep(time.Minute)
			sendAll(t, e.server.out, 1, 3)
			take(t, e.client.in, 1, 3)
		})
	}
}

// A large element that takes long is no silence, in either direction.
func TestALargeElementIsNoSilence(t *testing.T) {
	for name, k := range map[string]kind{"frames down": framesDown, "frames up": framesUp} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const size = 2 << 20
				line := &slowLine{rate: 1 << 20}
				opts := opened(streamcredit.WithHeartbeat(500*time.Millisecond), streamcredit.WithManualDemand())
				e := connectOver(t, k, opts, opts, line.over(t))
				out, in := e.down()
				from, to := out.(outOf[[]byte]).Sender, in.(inOf[[]byte]).Receiver
				if err := in.Request(3); err != nil {
					t.Fatal(err)
				}
				later(func() {
					for range 3 {
						if err := from.Send(t.Context(), make([]byte, size)); err != nil {
							t.Errorf("Send: got %v, want no error", err)
						}
					}
				})
				for range 3 {
					if b, err := to.Recv(within(t, time.Minute)); err != nil || len(b) != size {
						t.Fatalf("Recv: got %d bytes, %v; want %d", len(b), err, size)
					}
				}
			})
		})
	}
}

// Batches that take long are no silence either, whatever the receiver takes.
func TestBatchesAreNoSilence(t *testing.T) {
	for _, rate := range []int64{64 << 10, 100 << 10, 1 << 20} {
		for name, k := range map[string]kind{"frames down": framesDown, "frames up": framesUp} {
			t.Run(fmt.Sprintf("%s at %d bytes a second", name, rate), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const count = 2_000
					line := &slowLine{rate: rate}
					opts := opened(streamcredit.WithHeartbeat(100*time.Millisecond), streamcredit.WithWindow(1_000), streamcredit.WithMaxMessageBytes(1<<20))
					e := connectOver(t, k, opts, opts, line.over(t))
					out, in := e.down()
					from, to := out.(outOf[[]byte]).Sender, in.(inOf[[]byte]).Receiver
					later(func() {
						for n, err := 0, error(nil); n < count && err == nil; n++ {
							err = from.Send(t.Context(), make([]byte, 1_000))
						}
					})
					for n := range count {
						if _, err := to.Recv(within(t, time.Hour)); err != nil {
							t.Fatalf("Recv %d: got %v, want an element", n+1, err)
						}
					}
				})
			})
		}
	}
}

// A peer that announces an element and goes silent is found all the same.
func TestAnAnnouncedElementThatNeverComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 10 << 20
		over := make(chan error, 1)
		r := receiveRaw(t, func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
			both, _, err := streamcredit.ServeFrames(stream, streamcredit.WithSendOnly(), streamcredit.WithHeartbeat(time.Second))
			if err == nil {
				err = errors.Join(both.Out.Send(stream.Context(), []byte("element")), both.Out.WaitCredit(stream.Context()))
			}
			over <- err
			return err
		}, &creditpb.Open{Features: allFeatures, Initial: &creditpb.Request{N: 1}})
		r.say(&creditpb.Control{Kind: &creditpb.Control_Heartbeat{Heartbeat: &creditpb.Heartbeat{NextBytes: size}}})
		start := time.Now()
		err := <-over
		took := time.Since(start)
		if v, ok := errors.AsType[*streamcredit.ProtocolError](err); !ok || v.Reason != streamcredit.PeerStalled || took < 3*time.Second || took > 10*time.Minute {
			t.Errorf("got %v after %v, want %s after some minutes", err, took, streamcredit.PeerStalled)
		}
	})
}

// A slow line carries so many bytes a second to the client and from it, and pauses once.
type slowLine struct {
	net.Conn

	rate  int64        // 0: any
	pause atomic.Int64 // before the next bytes; a duration
	out   chan []byte
	cut   chan struct{}
	once  sync.Once // closes cut

	pumping sync.WaitGroup
}

// packet is what a line carries at once, in bytes.
const packet = 1 << 10

func (l *slowLine) carry(n int) {
	time.Sleep(time.Duration(l.pause.Swap(0)))
	if l.rate > 0 {
		time.Sleep(time.Duration(n) * time.Second / time.Duration(l.rate))
	}
}

func (l *slowLine) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b[:min(len(b), packet)])
	l.carry(n)
	return n, err
}

// Write leaves b to a goroutine: gRPC holds a lock while it writes, and time stands still in a
// bubble where a goroutine waits for one.
func (l *slowLine) Write(b []byte) (int, error) {
	select {
	case l.out <- slices.Clone(b):
		return len(b), nil
	case <-l.cut:
		return 0, net.ErrClosed
	}
}

func (l *slowLine) pump() {
	for {
		select {
		case b := <-l.out:
			for p := range slices.Chunk(b, packet) {
				l.carry(len(p))
				if _, err := l.Conn.Write(p); err != nil {
					_ = l.Conn.Close() // its reader says so
				}
			}
		case <-l.cut:
			return
		}
	}
}

func (l *slowLine) Close() error {
	l.once.Do(func() { close(l.cut) })
	return l.Conn.Close()
}

// over returns how to dial over the line.
func (l *slowLine) over(t *testing.T) func(p *grpctest.Pair) *grpc.ClientConn {
	return func(p *grpctest.Pair) *grpc.ClientConn {
		t.Cleanup(l.pumping.Wait) // after the connection was closed
		return p.Dial(t, grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			l.Conn, l.out, l.cut = p.NetConn(t), make(chan []byte, 1<<12), make(chan struct{})
			l.pumping.Go(l.pump) // ends with Close
			return l, nil
		}))
	}
}
