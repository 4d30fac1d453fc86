package weirtest_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/weirtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type demo struct {
	demopb.UnimplementedDemoServiceServer
}

func (demo) Work(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) {
	return &demopb.WorkResponse{Message: "done"}, nil
}

func (demo) Exchange(grpc.BidiStreamingServer[demopb.ExchangeRequest, demopb.ExchangeResponse]) error {
	return nil
}

func register(r grpc.ServiceRegistrar) { demopb.RegisterDemoServiceServer(r, demo{}) }

// Code that asks a gate for a permit, and does something else when it is refused.
func ExampleNewGate() {
	gate, err := weirtest.NewGate(admit.QueueFull, 1)
	if err != nil {
		log.Fatal(err)
	}
	buy := func() string {
		permit, err := gate.Acquire(context.Background(), admit.Call{})
		if err != nil {
			return "from the cache: " + err.Error()
		}
		permit.Release(admit.Success)
		return "from the database"
	}
	fmt.Println(buy())
	fmt.Println(buy())
	// Output:
	// from the cache: admit: refused: queue_full
	// from the database
}

// A client whose retries survive a server that drains.
func ExampleNewServer() {
	gate, err := weirtest.NewGate(admit.Draining, 2)
	if err != nil {
		log.Fatal(err)
	}
	server, err := weirtest.NewServer(gate, func(r grpc.ServiceRegistrar) { demopb.RegisterDemoServiceServer(r, demo{}) })
	if err != nil {
		log.Fatal(err)
	}
	retries, err := interceptors.Client(interceptors.ClientConfig{Retry: &retry.Config{}})
	if err != nil {
		log.Fatal(err)
	}
	conn, err := server.Dial(retries...)
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	resp, err := demopb.NewDemoServiceClient(conn).Work(context.Background(), &demopb.WorkRequest{})
	fmt.Println(resp.GetMessage(), err)
	fmt.Println("refused:", gate.Stats().Refused[admit.Default][admit.Draining])
	// Output:
	// done <nil>
	// refused: 2
}

// A handler of errors, without a server.
func ExampleError() {
	err := fmt.Errorf("buy: %w", weirtest.Error(admit.OverShare, "write"))
	if r, ok := interceptors.RefusalFrom(err); ok {
		fmt.Println(status.Code(err), r.Reason, r.Gate, r.Remote)
	}
	// Output:
	// ResourceExhausted over_share write true
}

// Every reason that there is.
func reasons() (all []admit.Reason) {
	for r := admit.Reason(0); !strings.HasPrefix(r.String(), "reason("); r++ {
		all = append(all, r)
	}
	return all
}

// A gate refuses for each reason, as often as it is told, also calls that come at once.
func TestGateRefusesSoOften(t *testing.T) {
	for _, why := range reasons() {
		for _, n := range []int{0, 1, 7, weirtest.Always} {
			g, err := weirtest.NewGate(why, n, admit.WithName("x"))
			if err != nil {
				t.Fatal(err)
			}
			var refused, admitted atomic.Int64
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					p, err := g.Acquire(t.Context(), admit.Call{})
					var r *admit.Refusal
					switch {
					case err == nil:
						admitted.Add(1)
						p.Release(admit.Success)
					case errors.As(err, &r) && r.Reason == why && r.Gate == "x" && r.RetryAfter > 0:
						refused.Add(1)
					default:
						t.Errorf("Acquire: got %v, want a refusal for %v by x", err, why)
					}
				})
			}
			all.Wait()
			want := int64(n)
			if n < 0 {
				want = 20
			}
			if refused.Load() != want || admitted.Load() != 20-want {
				t.Errorf("NewGate(%v, %d): got %d of 20 refused, want %d", why, n, refused.Load(), want)
			}
			if got := g.Stats().Refused[admit.Default][why]; got != uint64(want) {
				t.Errorf("NewGate(%v, %d): got %d refusals counted, want %d", why, n, got, want)
			}
		}
	}
}

func TestGateInADryRun(t *testing.T) {
	g, err := weirtest.NewGate(admit.QueueFull, weirtest.Always, admit.WithDryRun(true))
	if err != nil {
		t.Fatal(err)
	}
	p, err := g.Acquire(t.Context(), admit.Call{})
	if err != nil {
		t.Fatalf("Acquire: got %v, want a permit", err)
	}
	p.Release(admit.Ignored)
}

// The server's refusals have what real ones have, and streams count, too.
func TestServerRefusesAsARealOne(t *testing.T) {
	for _, why := range reasons() {
		synctest.Test(t, func(t *testing.T) {
			g, err := weirtest.NewGate(why, 2)
			if err != nil {
				t.Fatal(err)
			}
			s, err := weirtest.NewServer(g, register, interceptors.WithCode(admit.OverShare, codes.Aborted))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			conn, err := s.Dial()
			if err != nil {
				t.Fatal(err)
			}
			stub := demopb.NewDemoServiceClient(conn)
			var trailer metadata.MD
			_, err = stub.Work(t.Context(), &demopb.WorkRequest{}, grpc.Trailer(&trailer))
			want := codes.Unavailable
			if why == admit.OverShare {
				want = codes.Aborted
			}
			if why == admit.OverQuota || why == admit.TooManyOpen {
				want = codes.ResourceExhausted
			}
			if got := status.Code(err); got != want {
				t.Errorf("%v: got %v, want %v", why, got, want)
			}
			wantRefusal(t, err, why)
			wantDetails(t, err, trailer)

			stream, err := stub.Exchange(t.Context())
			if err == nil {
				_, err = stream.Recv()
			}
			wantRefusal(t, err, why)
			if _, err := stub.Work(t.Context(), &demopb.WorkRequest{}); err != nil {
				t.Errorf("%v: the third call: got %v, want nil", why, err)
			}
		})
	}
}

func wantRefusal(t *testing.T, err error, why admit.Reason) {
	t.Helper()
	r, ok := interceptors.RefusalFrom(err)
	if !ok || r.Reason != why.String() || !r.Remote || r.Gate != "default" {
		t.Errorf("RefusalFrom(%v): got %+v, %v, want a remote one for %v by default", err, r, ok, why)
	}
}

func wantDetails(t *testing.T, err error, trailer metadata.MD) {
	t.Helper()
	var info *errdetails.ErrorInfo
	var retry *errdetails.RetryInfo
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		}
	}
	want := []string{strconv.FormatInt(retry.GetRetryDelay().AsDuration().Milliseconds(), 10)}
	if got := trailer["grpc-retry-pushback-ms"]; info == nil || retry == nil || !slices.Equal(got, want) {
		t.Errorf("details and trailer of %v: got %v, %v and %q, want both and the same delay", err, info, retry, got)
	}
}

func TestErrorIsAsFromTheWire(t *testing.T) {
	for _, why := range reasons() {
		err := weirtest.Error(why, "default")
		wantRefusal(t, err, why)
		if errors.Is(err, admit.ErrRefused) {
			t.Errorf("%v: got an error that matches ErrRefused, want none: nothing of this process refused", why)
		}
	}
}

func TestWrongUse(t *testing.T) {
	const none = admit.Reason(200)
	_, err := weirtest.NewGate(none, 1)
	wantError(t, "NewGate", err, "got reason(200)")
	wantError(t, "Error", weirtest.Error(none, "x"), "got reason(200)")
	wantError(t, "Error without a name", weirtest.Error(admit.Draining, ""), "name: got an empty one")
	_, err = weirtest.NewGate(admit.Draining, 1, admit.WithName(""))
	wantError(t, "NewGate", err, "name: got an empty one")
	_, err = weirtest.NewServer(nil, nil)
	wantError(t, "NewServer", err, "gate: got nil")
	wantError(t, "NewServer", err, "register: got nil")
	_, err = weirtest.NewServer(new(admit.Gate), func(grpc.ServiceRegistrar) {}, nil, interceptors.WithClassFor(99, nil))
	wantError(t, "NewServer", err, "got a zero Gate")
	wantError(t, "NewServer", err, "option 0: got nil")
	g, err := weirtest.NewGate(admit.Draining, 1)
	if err != nil {
		t.Fatal(err)
	}
	_, err = weirtest.NewServer(g, func(grpc.ServiceRegistrar) {}, interceptors.WithMatcher(interceptors.Methods("shop.Checkout/Buy")))
	wantError(t, "NewServer", err, `got "shop.Checkout/Buy"`)
}

func wantError(t *testing.T, what string, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: got %v, want an error that says %q", what, err, text)
	}
}

// Close ends calls, and may come twice; then there is no dialing.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := weirtest.NewGate(admit.Draining, 0)
		if err != nil {
			t.Fatal(err)
		}
		s, err := weirtest.NewServer(g, func(r grpc.ServiceRegistrar) { demopb.RegisterDemoServiceServer(r, hanging{}) })
		if err != nil {
			t.Fatal(err)
		}
		conn, err := s.Dial()
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() {
			_, err := demopb.NewDemoServiceClient(conn).Work(t.Context(), &demopb.WorkRequest{})
			ended <- err
		}()
		synctest.Wait()
		if got := g.Stats().InFlight; got != 1 {
			t.Errorf("permits of a call: got %d, want 1", got)
		}
		go s.Close()
		s.Close()
		if err := <-ended; err == nil {
			t.Error("a call while the server closes: got nil, want an error")
		}
		_, err = s.Dial()
		wantError(t, "Dial", err, "the server is closed")
		if got := g.Stats().InFlight; got != 0 {
			t.Errorf("permits after Close: got %d in use, want 0", got)
		}
	})
}

type hanging struct {
	demopb.UnimplementedDemoServiceServer
}

func (hanging) Work(ctx context.Context, _ *demopb.WorkRequest) (*demopb.WorkResponse, error) {
	<-ctx.Done()
	return nil, status.FromContextError(ctx.Err()).Err()
}
