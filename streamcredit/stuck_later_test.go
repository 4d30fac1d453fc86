package streamcredit_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/streamcredit"
)

// A handler that comes to write only after its peer was found to be gone is freed, too. Its
// elements wait for the transport, and no Send does.
func TestAStoppedClientFreesWhatIsWrittenLater(t *testing.T) {
	for name, end := range map[string]func(out outlet) error{
		"Close":  outlet.Close,
		"Finish": func(out outlet) error { return out.Finish(context.Background()) },
		"CloseWithError": func(out outlet) error {
			return out.CloseWithError(errors.New("the handler has failed"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := stopClient(t, framesDown)
				start := time.Now()
				sendAll(t, e.server.out, 1, 18_000) // more than HTTP/2 takes, less than Send waits for
				if took := time.Since(start); took > 0 {
					t.Fatalf("Send took %v, want it not to wait", took)
				}
				time.Sleep(time.Minute) // the failure is long past
				start = time.Now()
				wantStalled(t, name, end(e.server.out))
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("it took %v, want it soon", took)
				}
				e.leave <- nil
				<-e.left
			})
		})
	}
}

// Recv may write, too: what it has consumed.
func TestAStoppedClientFreesRecv(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := newFrozen()
		defer line.Close()
		const count = 5
		done := make(chan error, 1)
		h := handlers{convert: func(stream convertServer) error {
			both, _, err := streamcredit.Serve(stream, streamcredit.WithHeartbeat(time.Second))
			if err != nil {
				return err
			}
			time.Sleep(time.Minute)
			close(line.stopped)
			for range 2 { // the second one is not stuck, but what follows it is
				err = errors.Join(err, both.Out.Send(stream.Context(), &demopb.ConvertResponse{Payload: make([]byte, 100<<10)}))
			}
			time.Sleep(time.Minute)
			for range count {
				_, recv := both.In.Recv(context.WithoutCancel(stream.Context()))
				err = errors.Join(err, recv)
			}
			done <- err
			return err
		}}
		p := grpctest.Start(t, func(r grpc.ServiceRegistrar) { demopb.RegisterStreamServiceServer(r, h) })
		both, err := streamcredit.Dial(t.Context(), demopb.NewStreamServiceClient(line.dial(t, p)).Convert, streamcredit.WithHeartbeat(0))
		if err != nil {
			t.Fatal(err)
		}
		for n := range count {
			if err := both.Out.Send(t.Context(), &demopb.ConvertRequest{Number: int64(n)}); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		if err := <-done; err != nil {
			t.Errorf("got %v, want no error: the elements had arrived", err)
		}
		if took := time.Since(start); took > 2*time.Minute+3*time.Second {
			t.Errorf("it took %v, want no wait for the transport", took)
		}
	})
}

// Sends of several goroutines end, the one that is stuck and those behind it.
func TestAStoppedClientFreesAllSends(t *testing.T) {
	for name, k := range map[string]kind{"frames": framesDown, "embedded": subscribes, "embedded, both ways": converts} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := stopClient(t, k)
				const senders = 4
				sent := make(chan error)
				for range senders {
					go func() {
						for {
							if err := e.server.out.send(context.Background(), 1); err != nil {
								sent <- err
								return
							}
						}
					}()
				}
				start := time.Now()
				for range senders {
					wantStalled(t, "Send", <-sent)
				}
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("it took %v, want about three heartbeats", took)
				}
				e.leave <- nil
				<-e.left
			})
		})
	}
}
