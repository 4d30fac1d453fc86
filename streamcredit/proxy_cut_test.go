package streamcredit_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/internal/racetest"
	"github.com/weir-go/weir/streamcredit"
)

// cutElements is how many elements go each way in the conversation that is cut: more than a window.
const cutElements, cutWindow = 6, 4

// A half is what one side has seen of one direction.
type half struct {
	accepted int64 // by Send
	finish   error // of Finish
	received int64
	end      error // of Recv
	credit   int64 // at the end
	sender   bool
	receiver bool
}

// converse sends and receives everything at one side. It ends when both are over.
func converse(ctx context.Context, t *testing.T, s side) (sent, got half) {
	var both sync.WaitGroup
	if s.out != nil {
		sent.sender = true
		both.Go(func() {
			for n := int64(1); n <= cutElements && sent.finish == nil; n++ {
				if sent.finish = s.out.send(ctx, n); sent.finish == nil {
					sent.accepted++
				}
			}
			if sent.finish == nil {
				sent.finish = s.out.Finish(ctx)
			} else if err := s.out.Finish(ctx); err == nil {
				t.Errorf("Finish after Send had returned %v: got no error", sent.finish)
			}
			sent.credit = s.out.Credit()
		})
	}
	if s.in != nil {
		got.receiver = true
		both.Go(func() {
			for got.end == nil {
				var n int64
				if n, got.end = s.in.recv(ctx); got.end == nil {
					if got.received++; n != got.received {
						t.Errorf("Recv: got element %d, want %d", n, got.received)
					}
				}
			}
			got.credit = s.in.Stats().Outstanding
		})
	}
	both.Wait()
	return sent, got
}

// judge compares the two sides of a direction.
func (sent half) judge(t *testing.T, name string, got half) {
	t.Helper()
	if !sent.sender || !got.receiver {
		return
	}
	if got.received > sent.accepted+1 { // the one in Send may have arrived
		t.Errorf("%s: %d elements received, want at most the %d that Send accepted and one", name, got.received, sent.accepted)
	}
	if sent.finish == nil && got.received != cutElements {
		t.Errorf("%s: Finish returned no error, and %d of %d elements were received", name, got.received, cutElements)
	}
	if errors.Is(got.end, io.EOF) && got.received != cutElements {
		t.Errorf("%s: Recv returned io.EOF after %d of %d elements", name, got.received, cutElements)
	}
	if sent.credit != 0 || got.credit != 0 {
		t.Errorf("%s: credit at the end is %d and %d, want none", name, sent.credit, got.credit)
	}
	wantStatus(t, name+", Finish", sent.finish)
	if !errors.Is(got.end, io.EOF) {
		wantStatus(t, name+", Recv", got.end)
	}
}

// wantStatus wants an error with a code that tells callers what to do; nil is fine.
func wantStatus(t *testing.T, what string, err error) {
	t.Helper()
	if errors.Is(err, streamcredit.ErrCanceled) {
		return
	}
	if ctx := status.FromContextError(err); ctx.Code() != codes.Unknown { // as a server's gRPC takes it
		err = ctx.Err()
	}
	switch code := status.Code(err); code {
	case codes.OK, codes.Unavailable, codes.Canceled, codes.DataLoss, codes.DeadlineExceeded:
	default:
		t.Errorf("%s: got %v with the code %v, want the status of a lost connection", what, err, code)
	}
}

// cut has one conversation over a proxy that severs it after so many bytes. It reports whether it was
// severed, which it is not where less is said.
func cut(t *testing.T, k kind, how severing, up bool, after int) bool {
	t.Helper()
	p := &proxy{how: how, up: up, left: after}
	synctest.Test(t, func(t *testing.T) {
		budgets := [2]*streamcredit.Budget{}
		for i := range budgets {
			var err error
			if budgets[i], err = streamcredit.NewBudget(streamcredit.BudgetConfig{Messages: 1 << 10, Bytes: 1 << 20}); err != nil {
				t.Fatal(err)
			}
		}
		opts := func(i int) []streamcredit.DuplexOption {
			return opened(streamcredit.WithWindow(cutWindow), streamcredit.WithBudget(budgets[i]), streamcredit.WithHeartbeat(time.Second))
		}
		var serverSent, serverGot half
		var served atomic.Bool
		var running atomic.Int32
		e := &ends{}
		conn := p.through(t, func(r grpc.ServiceRegistrar) {
			e.register(r, k, opts(1), func(s side, err error) error {
				running.Add(1)
				defer running.Add(-1)
				if err == nil {
					served.Store(true)
					serverSent, serverGot = converse(t.Context(), t, s)
					err = errors.Join(failureOf(serverSent.finish), failureOf(serverGot.end))
				} else {
					wantStatus(t, "Serve", err)
				}
				return err
			})
		})
		e.ctx, e.cancel = context.WithCancel(t.Context())
		defer e.cancel()
		start := time.Now()
		var clientSent, clientGot half
		err := e.dial(conn, k, opts(0))
		if err == nil {
			clientSent, clientGot = converse(e.ctx, t, e.client)
			closeSide(e.client)
		} else {
			wantStatus(t, "Dial", err)
		}
		time.Sleep(time.Minute) // the connection is open: a stalled server has nothing but its heartbeats
		synctest.Wait()
		if n := running.Load(); n != 0 {
			t.Errorf("got %d handlers a minute later, want none", n)
		}
		if served.Load() {
			clientSent.judge(t, "up", serverGot)
			serverSent.judge(t, "down", clientGot)
		}
		for i, b := range budgets {
			if got := b.Stats(); got != (streamcredit.BudgetStats{}) {
				t.Errorf("budget %d at the end: got %+v, want nothing", i, got)
			}
		}
		if took := time.Since(start) - time.Minute; took > 31*time.Second {
			t.Errorf("the client ended after %v, want it within gRPC's 20 s to connect and the handshake's 10 s", took)
		}
	})
	return p.cut
}

// failureOf is err but for an end in order.
func failureOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func closeSide(s side) {
	switch {
	case s.close != nil:
		_ = s.close() // the call has ended with what Finish or Recv said
	case s.in != nil:
		_ = s.in.Close()
	default:
		_ = s.out.Close()
	}
}

// A connection that is lost after any byte, in any way, leaves nothing behind, and no element without a reason.
func TestACutAtEveryByte(t *testing.T) {
	step := 1
	if racetest.Enabled || testing.Short() {
		step = 7 // time is dear there
	}
	for _, k := range []kind{subscribes, uploads, converts, framesBoth} {
		for _, how := range []severing{byFIN, byRST, byStall} {
			for _, up := range []bool{false, true} {
				name := map[bool]string{false: "from the server", true: "from the client"}[up]
				t.Run([]string{"subscribe", "upload", "convert", "frames"}[k]+"/"+how.String()+"/"+name, func(t *testing.T) {
					after := 1
					for cut(t, k, how, up, after) && !t.Failed() {
						after += step
					}
					if t.Failed() {
						t.Logf("the connection was cut after %d bytes", after)
					}
					if after < 200 {
						t.Errorf("got a conversation of %d bytes, want one that is worth cutting", after)
					}
					t.Logf("%d bytes", after)
				})
			}
		}
	}
}
