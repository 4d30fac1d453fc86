package streamcredit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/weir-go/weir/internal/racetest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// A peer is one side of a stream of the soak, which does what chance says.
type peer struct {
	t        *testing.T
	rng      *rand.Rand
	k        kind
	name     string
	manual   bool
	explicit bool

	// What it has seen.
	accepted int64 // elements that Send took
	finish   error // of Finish; errLeft: it was not called
	received int64
	end      error // of Recv; errLeft: it has left before
}

// errLeft says that a peer has left a direction before its end.
var errLeft = errors.New("it has left")

const soakLargest = 4 << 10 // bytes of an element of Frames

// newPeer returns a peer and the options of its end.
func newPeer(t *testing.T, name string, k kind, rng *rand.Rand, budget *streamcredit.Budget) (*peer, []streamcredit.DuplexOption) {
	p := &peer{t: t, name: name, k: k, rng: rng, manual: rng.IntN(3) == 0, explicit: rng.IntN(5) == 0, finish: errLeft, end: errLeft}
	opts := opened(streamcredit.WithBudget(budget), streamcredit.WithFirstRequestTimeout(20*time.Second))
	add := func(one int, o streamcredit.DuplexOption) {
		if rng.IntN(one) == 0 {
			opts = append(opts, o)
		}
	}
	if p.manual {
		opts = append(opts, streamcredit.WithManualDemand())
	} else {
		add(2, streamcredit.WithWindow([]int{1, 2, 7, 64}[rng.IntN(4)]))
	}
	if p.explicit {
		opts = append(opts, streamcredit.WithExplicitConsume())
	}
	add(3, streamcredit.WithHeartbeat(time.Second))
	bound := streamcredit.WithMaxPeerCredit
	if rng.IntN(2) == 0 {
		bound = streamcredit.WithMaxPeerDemand
	}
	add(4, bound(10))
	add(4, streamcredit.WithByteWindow(200))
	add(3, streamcredit.WithMaxMessageBytes(soakLargest))
	return p, opts
}

// pause waits a little, seldom long.
func (p *peer) pause() {
	switch p.rng.IntN(40) {
	case 0:
		time.Sleep(time.Duration(p.rng.IntN(4000)) * time.Millisecond) // a stall
	case 1, 2, 3, 4:
		time.Sleep(time.Duration(p.rng.IntN(20)) * time.Millisecond)
	}
}

// hasty returns a context that may end soon.
func (p *peer) hasty(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.rng.IntN(4) > 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, time.Duration(1+p.rng.IntN(5))*time.Millisecond)
}

// run uses both directions of its side, and returns what a handler is to return.
func (p *peer) run(ctx context.Context, s side) error {
	var both sync.WaitGroup
	if s.out != nil {
		rng := rand.New(rand.NewPCG(p.rng.Uint64(), 1))
		both.Go(func() {
			q := &peer{t: p.t, rng: rng, k: p.k, name: p.name}
			p.accepted, p.finish = q.send(ctx, s.out)
		})
	}
	if s.in != nil {
		rng := rand.New(rand.NewPCG(p.rng.Uint64(), 2))
		both.Go(func() {
			q := &peer{t: p.t, rng: rng, k: p.k, name: p.name, manual: p.manual, explicit: p.explicit}
			p.received, p.end = q.receive(ctx, s.in)
		})
	}
	both.Wait()
	if p.rng.IntN(8) == 0 {
		return status.Error(codes.Aborted, "the peer has had enough")
	}
	return nil
}

// send sends some elements and ends the direction in one of the ways that there are.
func (p *peer) send(ctx context.Context, out outlet) (accepted int64, end error) {
	count := int64(p.rng.IntN(200))
	for accepted < count {
		p.pause()
		if p.k.framed() && p.rng.IntN(30) == 0 { // too large for some
			if err := out.(outOf[[]byte]).Send(ctx, append(toBytes(accepted+1), make([]byte, 2*soakLargest)...)); err == nil {
				accepted++
				continue
			} else if !errors.Is(err, streamcredit.ErrTooLarge) {
				break // Finish says why
			}
		}
		short, cancel := p.hasty(ctx)
		err := out.send(short, accepted+1)
		cancel()
		if err == nil {
			accepted++
		} else if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			break
		}
	}
	switch p.rng.IntN(8) {
	case 0:
		return accepted, errLeft
	case 1:
		_ = out.CloseWithError(status.Error(codes.Aborted, "the source has failed")) // the receiver says so
		return accepted, errLeft
	case 2:
		_ = out.Close()
		return accepted, errLeft
	default:
		return accepted, out.Finish(ctx)
	}
}

// receive takes elements until the end, or until it has had enough.
func (p *peer) receive(ctx context.Context, in inlet) (received int64, end error) {
	enough := int64(p.rng.IntN(400))
	for received < enough {
		p.pause()
		if p.manual {
			p.demand(ctx, in)
		}
		short, cancel := p.hasty(ctx)
		n, err := in.recv(short)
		cancel()
		switch {
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && short.Err() != nil:
			continue
		case err != nil:
			return received, err
		}
		if received++; n != received {
			p.t.Errorf("%s: Recv: got element %d, want %d", p.name, n, received)
		}
		if p.explicit {
			if err := in.Consume(1); err != nil {
				p.t.Errorf("%s: Consume: got %v, want no error", p.name, err)
			}
		}
	}
	if p.rng.IntN(2) == 0 {
		in.Cancel("enough")
	}
	return received, errLeft
}

// demand asks for elements, or drains.
func (p *peer) demand(ctx context.Context, in inlet) {
	if in.Stats().Outstanding < 3 {
		_ = in.Request(int64(1 + p.rng.IntN(20))) // the end of the stream: Recv says so
	}
	if p.rng.IntN(20) == 0 {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, _ = in.Drain(short) // likewise
	}
}

// account compares what both sides of a direction have seen.
func account(t *testing.T, name string, from, to *peer) {
	t.Helper()
	left, unconsumed := errors.AsType[*streamcredit.UnconsumedError](from.finish)
	switch {
	case to.received > from.accepted+1: // the one that Send was about to write when the stream ended
		t.Errorf("%s: got %d elements, want at most the %d that Send accepted", name, to.received, from.accepted)
	case errors.Is(to.end, io.EOF) && to.received < from.accepted:
		t.Errorf("%s: got io.EOF after %d elements, want the %d that Send accepted", name, to.received, from.accepted)
	case from.finish == nil && to.end != errLeft && to.received != from.accepted:
		t.Errorf("%s: Finish returned no error, and %d of %d elements were received, and then %v", name, to.received, from.accepted, to.end)
	case from.finish == nil && to.received < from.accepted && (to.name == "client" || from.accepted <= 16):
		// beyond 16 a server that leaves early may have consumed more than it could report
		t.Errorf("%s: Finish returned no error, and %d of %d elements were received", name, to.received, from.accepted)
	case unconsumed && (left.Sent != uint64(from.accepted) || left.Consumed > uint64(to.received)):
		t.Errorf("%s: got %+v, want at most %d of %d consumed", name, left, to.received, from.accepted)
	}
	for _, err := range []error{from.finish, to.end} {
		if code := status.Code(err); code == codes.Internal || code == codes.Unknown && !known(err) {
			t.Errorf("%s: got the error %v with the code %v, want one that says why", name, err, code)
		}
	}
}

// known reports whether an error that is no status is one of the package's, or of a context.
func known(err error) bool {
	for _, e := range []error{io.EOF, errLeft, streamcredit.ErrCanceled, streamcredit.ErrClosed, streamcredit.ErrGoingAway, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// A soak is many streams at once that share two budgets.
type soak struct {
	t       *testing.T
	seed    uint64
	until   time.Time
	budgets [2]*streamcredit.Budget // of the clients and of the servers

	mu    sync.Mutex // guards what follows
	count map[string]int
}

// session is one stream from its beginning to its end.
func (s *soak) session(rng *rand.Rand) {
	k := kind(rng.IntN(numberOfKinds))
	client, clientOpts := newPeer(s.t, "client", k, rand.New(rand.NewPCG(rng.Uint64(), 3)), s.budgets[0])
	server, serverOpts := newPeer(s.t, "server", k, rand.New(rand.NewPCG(rng.Uint64(), 4)), s.budgets[1])
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+rng.IntN(40))*time.Second)
	defer cancel()
	e := &ends{ctx: ctx, cancel: cancel}
	served := make(chan bool, 1)
	conn, stop := s.serve(rng, func(r grpc.ServiceRegistrar) {
		e.register(r, k, serverOpts, func(side side, err error) error {
			defer func() { served <- err == nil }()
			if err != nil {
				return err
			}
			return server.run(context.Background(), side)
		})
	})
	err := e.dial(conn, k, clientOpts)
	if err == nil {
		_ = client.run(ctx, e.client)
		closeSide(e.client)
	}
	stop()
	select {
	case ok := <-served:
		if ok && err == nil {
			account(s.t, fmt.Sprintf("kind %d, up", k), client, server)
			account(s.t, fmt.Sprintf("kind %d, down", k), server, client)
		}
	default: // the connection was cut before
	}
	s.note(client, server, err)
}

// note counts ends, so that it can be seen that all kinds come up.
func (s *soak) note(client, server *peer, dial error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if dial != nil {
		s.count["no stream: "+status.Code(dial).String()]++
		return
	}
	for _, p := range []*peer{client, server} {
		s.count[fmt.Sprintf("finish %.40v", p.finish)]++
		s.count[fmt.Sprintf("recv %.40v", p.end)]++
	}
	s.count["elements"] += int(client.received + server.received)
}

// serve starts a server and a connection, which may be lost at any time. stop waits for the handlers.
func (s *soak) serve(rng *rand.Rand, register func(grpc.ServiceRegistrar)) (conn *grpc.ClientConn, stop func()) {
	l := bufconn.Listen(64 << 10)
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	register(server)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(l) }()
	p := &proxy{how: severing(rng.IntN(3)), up: rng.IntN(2) == 0, left: math.MaxInt}
	if rng.IntN(3) == 0 {
		p.left = 1 + rng.IntN(3000)
	}
	conn, err := grpc.NewClient("passthrough:///soak", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.dial(ctx, l) }))
	if err != nil {
		s.t.Error(err)
	}
	return conn, func() {
		_ = conn.Close()
		server.Stop()
		<-ended
	}
}

// flood is a raw client that says nothing but control.
func (s *soak) flood(rng *rand.Rand) {
	conn, stop := s.serve(rand.New(rand.NewPCG(1, 1)), func(r grpc.ServiceRegistrar) {
		creditpb.RegisterCreditStreamServer(r, frames{channel: func(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
			both, _, err := streamcredit.ServeFrames(stream, streamcredit.WithBudget(s.budgets[1]))
			if err != nil {
				return err
			}
			_, err = both.In.Recv(context.Background())
			return err
		}})
	})
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stream, err := creditpb.NewCreditStreamClient(conn).Channel(ctx)
	if err != nil {
		return // the connection was cut
	}
	say := func(c *creditpb.Control) error {
		return stream.Send(&creditpb.Frame{Body: &creditpb.Frame_Control{Control: c}})
	}
	err = say(helloFrom(&creditpb.Open{WillSend: true, WillReceive: true}))
	for err == nil {
		if rng.IntN(2) == 0 {
			err = say(&creditpb.Control{Kind: &creditpb.Control_Request{Request: &creditpb.Request{N: 1}}})
		} else {
			err = say(&creditpb.Control{Kind: &creditpb.Control_Heartbeat{Heartbeat: &creditpb.Heartbeat{Echo: true}}})
		}
	}
	for err = nil; err == nil; {
		_, err = stream.Recv()
	}
	if code := status.Code(err); code != codes.ResourceExhausted && code != codes.Unavailable && code != codes.DeadlineExceeded && code != codes.Canceled {
		s.t.Errorf("a flood: got %v, want CONTROL_FLOOD, or the end of the connection", err)
	}
}

// soakFor runs so many streams at once for so long, in virtual time.
func soakFor(t *testing.T, seed uint64, streams int, length time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &soak{t: t, seed: seed, until: time.Now().Add(length), count: map[string]int{}}
		for i := range s.budgets {
			var err error
			if s.budgets[i], err = streamcredit.NewBudget(streamcredit.BudgetConfig{Messages: int64(8 * streams), Bytes: 1 << 20}); err != nil {
				t.Fatal(err)
			}
		}
		var all sync.WaitGroup
		for i := range streams {
			all.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(i)))
				for time.Now().Before(s.until) && !t.Failed() {
					if rng.IntN(40) == 0 {
						s.flood(rng)
					} else {
						s.session(rng)
					}
				}
			})
		}
		all.Wait()
		for i, b := range s.budgets {
			if got := b.Stats(); got != (streamcredit.BudgetStats{}) {
				t.Errorf("budget %d at the end: got %+v, want nothing", i, got)
			}
		}
		t.Logf("seed %d: %v", seed, s.count)
	})
}

// Random peers, for ten minutes of virtual time: every element is accounted for, and budgets, credit and
// goroutines return to nothing. WEIR_SOAK_MINUTES and WEIR_SOAK_SEED choose others.
func TestSoak(t *testing.T) {
	number := func(name string, otherwise uint64) uint64 {
		if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
			return n
		}
		return otherwise
	}
	minutes := uint64(10)
	if racetest.Enabled || testing.Short() {
		minutes = 1
	}
	length := time.Duration(number("WEIR_SOAK_MINUTES", minutes)) * time.Minute
	seed := number("WEIR_SOAK_SEED", uint64(time.Now().UnixNano()))
	for _, procs := range []int{1, 2, 8} {
		t.Run(fmt.Sprintf("GOMAXPROCS=%d", procs), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			soakFor(t, seed+uint64(procs), 12, length)
		})
	}
}
