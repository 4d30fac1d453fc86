package streamcredit_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/internal/grpctest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// A handler that returns Send's error, wrapped or not, tells its client why.
func TestAnElementTooLargeHasAStatus(t *testing.T) {
	for name, wrap := range map[string]func(error) error{
		"bare":    func(err error) error { return err },
		"wrapped": func(err error) error { return fmt.Errorf("sending the report: %w", err) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := receiveRaw(t, func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
					both, _, err := streamcredit.ServeFrames(stream, streamcredit.WithSendOnly())
					if err != nil {
						return err
					}
					err = both.Out.Send(stream.Context(), make([]byte, 11))
					if !errors.Is(err, streamcredit.ErrTooLarge) {
						t.Errorf("Send: got %v, want ErrTooLarge", err)
					}
					if got := both.Out.Stats(); got.Credit != 5 || got.Sent != 0 {
						t.Errorf("after it: got %+v, want a credit of 5 and nothing sent", got)
					}
					return wrap(err)
				}, &creditpb.Open{Features: allFeatures, MaxMessageBytes: 10, Initial: &creditpb.Request{N: 5}})
				for {
					if _, _, err := r.recv(); err != nil {
						wantViolation(t, err, streamcredit.MessageTooLarge)
						return
					}
				}
			})
		})
	}
}

// Under a policy that drops, an element that is too large is one that is dropped. Under the
// others it ends the outbox, with that status.
func TestAnOutboxOfElementsTooLarge(t *testing.T) {
	for policy, goesOn := range map[streamcredit.Policy]bool{
		streamcredit.DropOldest: true, streamcredit.DropNewest: true, streamcredit.Latest: true,
		streamcredit.Block: false, streamcredit.Fail: false, streamcredit.DefaultPolicy: false,
	} {
		synctest.Test(t, func(t *testing.T) {
			m := streamcredit.NewMeter("")
			e := connect(t, framesDown, opened(streamcredit.WithMaxMessageBytes(10)), opened(streamcredit.WithMeter(m)))
			b, err := streamcredit.NewOutbox(t.Context(), e.server.out.(outOf[[]byte]).Sender, streamcredit.OutboxConfig{Policy: policy})
			if err != nil {
				t.Fatal(err)
			}
			for _, element := range [][]byte{toBytes(1), make([]byte, 11), make([]byte, 1<<20), toBytes(2)} {
				if err := b.Put(t.Context(), element); err != nil && !errors.Is(err, streamcredit.ErrTooLarge) {
					t.Errorf("policy %d, Put: got %v, want no error, or ErrTooLarge", policy, err)
				}
				synctest.Wait()
			}
			closed := b.Close(within(t, time.Minute))
			got, end := rest(t, e.client.in)
			if goesOn {
				if !slices.Equal(got, []int64{1, 2}) || !errors.Is(end, io.EOF) || closed != nil {
					t.Errorf("policy %d: got %v, %v and Close %v; want 1 and 2, io.EOF and no error", policy, got, end, closed)
				}
				if s := b.Stats(); s.Dropped != 2 || m.Stats().Dropped != 2 {
					t.Errorf("policy %d: got %+v and %d dropped in the meter, want 2", policy, s, m.Stats().Dropped)
				}
				return
			}
			if !errors.Is(closed, streamcredit.ErrTooLarge) {
				t.Errorf("policy %d, Close: got %v, want ErrTooLarge", policy, closed)
			}
			wantViolation(t, end, streamcredit.MessageTooLarge)
		})
	}
}

// One subscriber that takes no large elements does not lose its subscription, and the zero
// configuration is one that a topic takes.
func TestATopicOfElementsTooLarge(t *testing.T) {
	for name, c := range map[string]streamcredit.OutboxConfig{
		"zero": {}, "latest": {Policy: streamcredit.Latest}, "drop newest": {Policy: streamcredit.DropNewest},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var topic streamcredit.Topic[[]byte]
				p := grpctest.Start(t, func(r grpc.ServiceRegistrar) {
					creditpb.RegisterCreditStreamServer(r, frames{channel: func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
						both, _, err := streamcredit.ServeFrames(stream, streamcredit.WithSendOnly())
						if err != nil {
							return err
						}
						return topic.Serve(stream.Context(), both.Out, c)
					}})
				})
				subscribe := func(opts ...streamcredit.DuplexOption) *streamcredit.Receiver[[]byte] {
					both, err := streamcredit.DialFrames(t.Context(), creditpb.NewCreditStreamClient(p.Conn).Channel, append(opts, streamcredit.WithReceiveOnly())...)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = both.Close() })
					return both.In
				}
				small, large := subscribe(streamcredit.WithMaxMessageBytes(10)), subscribe()
				synctest.Wait()
				for _, size := range []int{1, 11, 2, 1000, 3} {
					topic.Publish(make([]byte, size))
					synctest.Wait()
				}
				topic.Close()
				sizes := func(in *streamcredit.Receiver[[]byte]) (sizes []int, end error) {
					for {
						e, err := in.Recv(within(t, time.Minute))
						if err != nil {
							return sizes, err
						}
						sizes = append(sizes, len(e))
					}
				}
				if got, end := sizes(small); !slices.Equal(got, []int{1, 2, 3}) || !errors.Is(end, io.EOF) {
					t.Errorf("the small subscriber: got %v and %v, want 1, 2, 3 and io.EOF", got, end)
				}
				if got, end := sizes(large); !slices.Equal(got, []int{1, 11, 2, 1000, 3}) || !errors.Is(end, io.EOF) {
					t.Errorf("the other one: got %v and %v, want all and io.EOF", got, end)
				}
				synctest.Wait()
				if got := topic.Stats().Dropped; got != 2 {
					t.Errorf("dropped: got %d, want 2", got)
				}
			})
		})
	}
}
