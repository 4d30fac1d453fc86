package streamcredit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

// A station is a topic and its server. Subscribers say which policy they want in the count
// of their query, and the size of their outbox in payload_bytes.
type station struct {
	streamcredit.Topic[*demopb.SubscribeResponse]

	client demopb.StreamServiceClient

	mu    sync.Mutex // guards what follows
	sent  uint64     // to those who have left
	ended []error    // what Serve returned
}

func newStation(t *testing.T) *station {
	t.Helper()
	s := &station{}
	s.client = handlers{subscribe: func(stream subscribeServer) error {
		out, query, err := streamcredit.ServeSend(stream, streamcredit.WithFirstRequestTimeout(0))
		if err != nil {
			return err
		}
		err = s.Serve(stream.Context(), out, streamcredit.OutboxConfig{
			Policy: streamcredit.Policy(query.GetCount()), Capacity: int(query.GetPayloadBytes()),
		})
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sent += out.Stats().Sent
		s.ended = append(s.ended, err)
		return err
	}}.start(t)
	return s
}

func (s *station) subscribe(t *testing.T, p streamcredit.Policy, size int, opts ...streamcredit.ReceiveOption) inlet {
	t.Helper()
	in := tap(t, s.client, int64(p), int32(size), opts...)
	synctest.Wait()
	return subscribeIn(in)
}

// A subscriber that never asks for anything, beside one that keeps up: that one gets
// everything, whatever the policy of the other, which holds no more than its outbox.
func TestASlowSubscriberSlowsNobodyDown(t *testing.T) {
	const published, size = 1000, 8
	for name, policy := range policies {
		if policy == streamcredit.Block {
			continue // see TestATopicRefusesBlock
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStation(t)
				slow := s.subscribe(t, policy, size, streamcredit.WithManualDemand())
				fast := s.subscribe(t, policy, size)
				got := make(chan int64, published)
				go fast.all(t.Context(), func(n int64, err error) bool { // the bubble waits for it
					if err == nil {
						got <- n
					}
					return true
				})
				for n := range published {
					s.Publish(event(n + 1))
					synctest.Wait()
				}
				for want := range int64(published) {
					if n := <-got; n != want+1 {
						t.Fatalf("the fast one: got %d, want %d", n, want+1)
					}
				}
				stats := s.Stats()
				if policy == streamcredit.Fail {
					if _, err := slow.recv(within(t, time.Minute)); status.Code(err) != codes.ResourceExhausted {
						t.Errorf("the slow one: got %v, want %v", err, codes.ResourceExhausted)
					}
					if len(s.ended) != 1 || status.Code(s.ended[0]) != codes.ResourceExhausted || stats.Subscribers != 1 {
						t.Errorf("Serve: got %v with %+v, want one that has ended with %v", s.ended, stats, codes.ResourceExhausted)
					}
					return
				}
				held := map[streamcredit.Policy]uint64{streamcredit.Latest: 1}[policy]
				if held == 0 {
					held = size
				}
				if stats != (streamcredit.TopicStats{Subscribers: 2, Published: published, Dropped: published - held}) {
					t.Errorf("Stats: got %+v, want all dropped for the slow one but %d", stats, held)
				}
				if err := slow.Request(published); err != nil {
					t.Fatal(err)
				}
				want := map[streamcredit.Policy]int64{
					streamcredit.DropOldest: published - size + 1, streamcredit.DropNewest: 1, streamcredit.Latest: published,
				}[policy]
				take(t, slow, want, want+int64(held)-1)
			})
		})
	}
}

func TestATopicRefusesBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t)
		in := s.subscribe(t, streamcredit.Block, 8)
		if _, err := in.recv(within(t, time.Minute)); err == nil {
			t.Error("Recv: got no error, want the handler's")
		}
		if len(s.ended) != 1 {
			t.Fatalf("Serve: got %v, want one error", s.ended)
		}
		wantInvalid(t, "Serve", s.ended[0], "Policy: got Block, want one that does not wait for a slow subscriber")
	})
}

func TestATopicRefusesAWrongOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t)
		s.subscribe(t, streamcredit.Fail+1, 8)
		s.subscribe(t, streamcredit.Latest, -1)
		if len(s.ended) != 2 || !errors.Is(s.ended[0], streamcredit.ErrInvalid) || !errors.Is(s.ended[1], streamcredit.ErrInvalid) {
			t.Errorf("Serve: got %v, want two errors that wrap ErrInvalid", s.ended)
		}
	})
}

// Many subscribers that come and go at any time: each gets what was published meanwhile, in
// order, and every element is accounted for: sent or dropped.
func TestATopicOfManySubscribers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const subscribers, published, size = 100, 200, 16
		s := newStation(t)
		var listening sync.WaitGroup
		due := uint64(0) // elements times the subscribers that were there
		for i := range subscribers {
			in := s.subscribe(t, streamcredit.DropOldest, size)
			listening.Go(func() {
				r := rand.New(rand.NewPCG(7, uint64(i)))
				last, pace := int64(0), time.Duration(r.IntN(20))*time.Millisecond
				in.all(within(t, time.Hour), func(n int64, err error) bool {
					if err != nil || n <= last {
						t.Errorf("subscriber %d: got %d, %v; want one after %d", i+1, n, err, last)
					}
					last = n
					time.Sleep(pace)
					return r.IntN(200) > 0
				})
				_ = in.Close() // of what it has not received it says nothing
			})
		}
		for n := range published {
			synctest.Wait()
			due += uint64(s.Stats().Subscribers)
			s.Publish(event(n + 1))
			time.Sleep(5 * time.Millisecond)
		}
		s.Close()
		listening.Wait()
		synctest.Wait()
		stats := s.Stats()
		if stats.Subscribers != 0 || stats.Published != published || len(s.ended) != subscribers {
			t.Errorf("at the end: got %+v and %d that have ended, want no subscribers and %d published", stats, len(s.ended), published)
		}
		if got := s.sent + stats.Dropped; got != due {
			t.Errorf("sent and dropped: got %d and %d, together %d, want %d", s.sent, stats.Dropped, got, due)
		}
		for _, err := range s.ended {
			if err != nil && status.Code(err) != codes.Canceled {
				t.Errorf("Serve: got %v, want nil, or that the client has left", err)
			}
		}
	})
}

// Close sends what is in the outboxes, and ends all subscriptions, and those to come.
func TestATopicCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t)
		in := s.subscribe(t, streamcredit.DropOldest, 8, streamcredit.WithManualDemand())
		for n := range 3 {
			s.Publish(event(n + 1))
		}
		s.Close()
		s.Publish(event(4)) // does nothing
		s.Close()           // likewise
		synctest.Wait()
		if len(s.ended) != 0 {
			t.Errorf("Serve before everything was sent: got %v, want it to wait", s.ended)
		}
		if err := in.Request(8); err != nil {
			t.Fatal(err)
		}
		take(t, in, 1, 3)
		if _, err := in.recv(within(t, time.Minute)); !errors.Is(err, io.EOF) {
			t.Errorf("Recv: got %v, want EOF", err)
		}
		late := s.subscribe(t, streamcredit.DropOldest, 8)
		if _, err := late.recv(within(t, time.Minute)); !errors.Is(err, io.EOF) {
			t.Errorf("Recv of one that comes too late: got %v, want EOF", err)
		}
		synctest.Wait()
		if fmt.Sprint(s.ended) != "[<nil> <nil>]" {
			t.Errorf("Serve: got %v, want two nil", s.ended)
		}
		if got := s.Stats(); got != (streamcredit.TopicStats{Published: 3}) {
			t.Errorf("Stats: got %+v, want 3 published and nothing else", got)
		}
	})
}

// A subscriber that leaves is forgotten, and what it did not get counts as dropped.
func TestASubscriberLeaves(t *testing.T) {
	for name, leave := range map[string]func(in inlet){
		"Cancel": func(in inlet) { in.Cancel("enough") },
		"Close":  func(in inlet) { _ = in.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStation(t)
				in := s.subscribe(t, streamcredit.DropOldest, 5, streamcredit.WithManualDemand())
				if err := in.Request(2); err != nil {
					t.Fatal(err)
				}
				for n := range 10 {
					synctest.Wait()
					s.Publish(event(n + 1))
				}
				take(t, in, 1, 2)
				leave(in)
				synctest.Wait()
				if len(s.ended) != 1 || s.ended[0] != nil && !errors.Is(s.ended[0], context.Canceled) && status.Code(s.ended[0]) != codes.Canceled || name == "Cancel" && s.ended[0] != nil {
					t.Errorf("Serve: got %v, want it to have returned nil", s.ended)
				}
				if got := s.Stats(); got != (streamcredit.TopicStats{Published: 10, Dropped: 8}) {
					t.Errorf("Stats: got %+v, want no subscriber, and 8 of 10 dropped", got)
				}
			})
		})
	}
}

// The end of Serve's context ends the subscription.
func TestServeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := connect(t, subscribes, opened(streamcredit.WithManualDemand()), nil)
		var topic streamcredit.Topic[*demopb.SubscribeResponse]
		out := e.server.out.(outOf[*demopb.SubscribeResponse]).Sender
		err := topic.Serve(within(t, time.Second), out, streamcredit.OutboxConfig{Policy: streamcredit.Latest})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Serve: got %v, want the context's error", err)
		}
		if got := topic.Stats().Subscribers; got != 0 {
			t.Errorf("subscribers: got %d, want none", got)
		}
	})
}

// A receiver that cancels when its subscription has failed: all that it did not get is counted.
func TestATopicThatFailsACanceledSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var topic streamcredit.Topic[*demopb.SubscribeResponse]
		gate := make(chan struct{})
		result := make(chan error, 1)
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(gated{stream, gate})
			if err != nil {
				return err
			}
			err = topic.Serve(stream.Context(), out, streamcredit.OutboxConfig{Capacity: 4, Policy: streamcredit.Fail})
			result <- err
			return err
		}}.start(t)
		in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithWindow(64))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for i := range 6 { // one is being written, four wait, one is too many
			topic.Publish(event(i + 1))
			synctest.Wait()
		}
		in.Cancel("enough")
		synctest.Wait()
		close(gate)
		err = <-result
		synctest.Wait()
		if s := topic.Stats(); s.Dropped != 5 {
			t.Errorf("topic: got %+v, want 5 of 6 dropped: one was sent", s)
		}
		if err != nil && status.Code(err) != codes.ResourceExhausted {
			t.Errorf("Serve: got %v, want nil or RESOURCE_EXHAUSTED", err)
		}
		_ = in.Close()
	})
}

// A subscription that fails while its transport is stuck: its element counts when the stream has ended.
func TestATopicCountsAStuckElement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var topic streamcredit.Topic[*demopb.SubscribeResponse]
		gate := make(chan struct{})
		result := make(chan error, 1)
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(gated{stream, gate})
			if err != nil {
				return err
			}
			err = topic.Serve(stream.Context(), out, streamcredit.OutboxConfig{Capacity: 4, Policy: streamcredit.Fail})
			result <- err
			return err
		}}.start(t)
		in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithWindow(64))
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		synctest.Wait()
		for i := range 6 { // one is being written, four wait, one is too many
			topic.Publish(event(i + 1))
			synctest.Wait()
		}
		if err := <-result; status.Code(err) != codes.ResourceExhausted {
			t.Errorf("Serve: got %v, want %v", err, codes.ResourceExhausted)
		}
		if _, err := in.Recv(within(t, time.Minute)); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("Recv: got %v, want %v", err, codes.ResourceExhausted)
		}
		close(gate)
		synctest.Wait()
		if got := topic.Stats(); got != (streamcredit.TopicStats{Published: 6, Dropped: 6}) {
			t.Errorf("Stats: got %+v, want all 6 dropped", got)
		}
	})
}

// gated is a stream whose transport is stuck for elements.
type gated struct {
	subscribeServer
	gate chan struct{}
}

func (g gated) Send(m *demopb.SubscribeResponse) error {
	if m.GetNumber() > 0 {
		<-g.gate
	}
	return g.subscribeServer.Send(m)
}

// Elements that are published for a subscriber whose end is stuck in its transport count as dropped.
func TestATopicCountsWhatALeavingSubscriberMisses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var topic streamcredit.Topic[*demopb.SubscribeResponse]
		gate := make(chan struct{})
		client := handlers{subscribe: func(stream subscribeServer) error {
			out, _, err := streamcredit.ServeSend(gated{stream, gate})
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(stream.Context(), time.Second)
			defer cancel()
			err = topic.Serve(ctx, out, streamcredit.OutboxConfig{Capacity: 4})
			<-gate
			time.Sleep(time.Second) // or the stream ends before the write does
			return err
		}}.start(t)
		in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, streamcredit.WithWindow(64))
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		synctest.Wait()
		topic.Publish(event(1)) // is being written
		time.Sleep(time.Second + 100*time.Millisecond)
		if got := topic.Stats().Subscribers; got != 1 {
			t.Fatalf("subscribers: got %d, want the one that is about to leave", got)
		}
		topic.Publish(event(2))
		time.Sleep(10 * time.Second)
		close(gate)
		synctest.Wait()
		if got := topic.Stats(); got != (streamcredit.TopicStats{Published: 2, Dropped: 1}) {
			t.Errorf("Stats: got %+v, want 2 published and the second one dropped", got)
		}
	})
}
