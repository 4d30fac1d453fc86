package streamcredit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/weir-go/weir/streamcredit"
)

const (
	topicPublish = iota
	topicPublishLarge
	topicJoin
	topicRecv
	topicRequest
	topicShut
	topicOpen
	topicSleep
	topicCancel
	topicLeave
	topicStop
	topicBreak
	topicClose
)

var topicKinds = []stepKind{
	topicPublish: {"publish", 80}, topicPublishLarge: {"publish large", 8}, topicJoin: {"join", 20}, topicRecv: {"recv", 40},
	topicRequest: {"request", 40}, topicShut: {"shut", 12}, topicOpen: {"open", 14}, topicSleep: {"sleep", 6},
	topicCancel: {"cancel", 4}, topicLeave: {"leave", 4}, topicStop: {"stop", 4}, topicBreak: {"break", 4},
	topicClose: {"close", 2},
}

// A listener is one subscriber of a topicMachine.
type listener struct {
	*ends
	tape

	valve  *valve
	meter  *streamcredit.Meter
	policy streamcredit.Policy
	out    outlet
	in     inlet
	recv   *call
	serve  *call

	from     int64 // the first element that is published for it
	canceled bool  // the receiver wants no more
	cut      bool  // something else has ended, or may end
	stopped  bool  // the context of Serve has ended
}

// A topicMachine plays a script on a topic and its subscribers.
type topicMachine struct {
	t           testing.TB
	topic       streamcredit.Topic[[]byte]
	subscribers []*listener
	slept       nap
	next        int64
	large       map[int64]bool
	due         uint64 // published elements, times the subscribers of each
	closed      bool
}

const mostSubscribers = 4

func (m *topicMachine) join(arg int) {
	if len(m.subscribers) == mostSubscribers {
		return
	}
	synctest.Wait()
	s := &listener{valve: &valve{}, meter: streamcredit.NewMeter("topic"), policy: [...]streamcredit.Policy{
		streamcredit.DropOldest, streamcredit.DropNewest, streamcredit.Latest, streamcredit.Fail,
	}[arg%4], from: m.next}
	receiver := opened(streamcredit.WithManualDemand(), streamcredit.WithMaxMessageBytes(largest))
	sender := opened(streamcredit.WithMeter(s.meter), streamcredit.WithFirstRequestTimeout(0))
	s.ends = connect(m.t, framesDown, receiver, sender, s.valve.options()...)
	s.out, s.in = s.down()
	begin(&s.serve, func(ctx context.Context, c *call) {
		c.err = m.topic.Serve(ctx, s.out.(outOf[[]byte]).Sender, streamcredit.OutboxConfig{Capacity: 1 + arg/4%4, Policy: s.policy})
	})
	synctest.Wait()
	m.subscribers = append(m.subscribers, s)
}

// playTopic plays a script and returns what went wrong first. It runs in a bubble.
func playTopic(t testing.TB, _ struct{}, script []move) error {
	m := &topicMachine{t: t, large: map[int64]bool{}}
	defer m.release()
	for i := range 2 {
		m.join(i)
	}
	return playScript(m, script)
}

func (m *topicMachine) step(o move) error {
	arg := o.arg
	s := m.subscribers[arg%len(m.subscribers)]
	switch arg /= len(m.subscribers); o.kind {
	case topicPublish, topicPublishLarge:
		return m.publish(o.kind == topicPublishLarge)
	case topicJoin:
		m.join(o.arg)
	case topicRecv:
		s.receive(&s.recv, s.in, false)
	case topicRequest:
		return s.receiver(func() error { return s.in.Request(int64(1 + arg%8)) })
	case topicShut:
		s.valve.shut(arg % 2)
	case topicOpen:
		s.valve.open(arg % 2)
	case topicSleep:
		m.slept.sleep(time.Duration(arg) * 10 * time.Millisecond)
	case topicCancel:
		s.canceled = true
		return s.receiver(func() error { s.in.Cancel("the script says so"); return nil })
	case topicLeave:
		s.canceled, s.cut = true, true
		go s.in.Close() // it waits for the transport, and says nothing here
	case topicStop:
		s.stopped = true
		s.serve.cancel()
	case topicBreak:
		s.cut = true
		s.cancel()
	default:
		m.closed = true
		m.topic.Close()
	}
	return nil
}

// publish is exact about the number of subscribers, so it waits until all is at rest.
func (m *topicMachine) publish(large bool) error {
	synctest.Wait()
	if !m.closed {
		m.due += uint64(m.topic.Stats().Subscribers)
	}
	e := toBytes(m.next)
	if large {
		e = enlarged(e)
	}
	m.large[m.next] = large
	m.next++
	began := time.Now()
	m.topic.Publish(e)
	if took := time.Since(began); took > 0 {
		return fmt.Errorf("Publish: took %v, want no time", took)
	}
	return nil
}

// receiver calls f, a method of the receiver that may write. It does not wait for a stuck
// transport.
func (s *listener) receiver(f func() error) error {
	return unless(s.valve.isShut(clientEnd), f)
}

func (m *topicMachine) check() error {
	sent, flight, stuck := uint64(0), uint64(0), false
	for i, s := range m.subscribers {
		if err := m.checkListener(s); err != nil {
			return fmt.Errorf("subscriber %d: %w", i, err)
		}
		sent += s.out.Stats().Sent
		stuck = stuck || s.valve.isShut(serverEnd)
	}
	stats := m.topic.Stats()
	queued := m.due - sent - stats.Dropped
	for _, s := range m.subscribers {
		if s.serve.running() {
			flight += 4 + 1 // as many as the largest outbox holds, and one being sent
		} else if stuck {
			flight++ // it counts when its stream has ended
		}
	}
	if stats.Dropped+sent > m.due || queued > flight {
		return fmt.Errorf("sent %d and dropped %d of %d, want all but at most %d", sent, stats.Dropped, m.due, flight)
	}
	return nil
}

// checkListener: a subscriber gets the elements in order, none that was published before it
// came, and none twice. A policy that drops nothing leaves no gap.
func (m *topicMachine) checkListener(s *listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.from - 1
	for _, n := range s.got {
		if n <= last || m.large[n] || s.policy == streamcredit.Fail && n != last+1 {
			return fmt.Errorf("received: got %v, want all or some from %d on, in order", s.got, s.from)
		}
		last = n
	}
	open := !s.valve.isShutAnywhere()
	if s.serve.running() && open && (s.canceled || s.cut || s.stopped) {
		return fmt.Errorf("Serve waits at the end (canceled %t, cut %t, stopped %t), want it to return", s.canceled, s.cut, s.stopped)
	}
	if !s.serve.running() && !s.canceled && !s.cut && !s.stopped && !m.closed && s.policy != streamcredit.Fail {
		return fmt.Errorf("Serve: got %w, want it to go on", s.serve.err)
	}
	if s.recv.running() && open && (s.in.Stats().Buffered > 0 || !s.serve.running() && s.serve.err == nil) {
		return fmt.Errorf("a Recv waits with %+v, want it to return", s.in.Stats())
	}
	return nil
}

// settle ends what has not ended, and looks for what is lost.
func (m *topicMachine) settle() error {
	for _, s := range m.subscribers {
		s.valve.openBoth()
		letGo(s.recv)
	}
	synctest.Wait()
	m.closed = true
	m.topic.Close()
	for i, s := range m.subscribers {
		if err := m.exhaust(s); err != nil {
			return fmt.Errorf("subscriber %d (policy %d): %w", i, s.policy, err)
		}
	}
	time.Sleep(5 * time.Second)
	sent, dropped := uint64(0), uint64(0)
	for i, s := range m.subscribers {
		if s.serve.running() {
			return fmt.Errorf("Serve %d waits at the end, want it to return", i)
		}
		s.end()
		_ = s.in.Close() // a client's receiver must be closed
		synctest.Wait()
		sent += s.out.Stats().Sent
		dropped += s.meter.Stats().Dropped
	}
	stats := m.topic.Stats()
	if stats.Subscribers != 0 || sent+stats.Dropped != m.due || dropped > stats.Dropped {
		return fmt.Errorf("got %+v, %d sent, %d dropped by outboxes, want together the %d that were due", stats, sent, dropped, m.due)
	}
	return nil
}

// exhaust takes all elements, and compares the end with the result of Serve.
func (m *topicMachine) exhaust(s *listener) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = s.in.Request(1000)
	if err := s.exhaust(ctx, s.in, false, s.canceled); err != nil {
		return err
	}
	synctest.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("Recv waits with %+v, and Serve runs %t", s.in.Stats(), s.serve.running())
	}
	if err := m.checkListener(s); err != nil {
		return err
	}
	err := s.serve.err
	switch {
	case s.serve.running():
		return errors.New("Serve waits at the end, want it to return")
	case s.canceled || s.cut:
		return nil
	case errors.Is(s.last, io.EOF):
		if err != nil && !s.stopped {
			return fmt.Errorf("Serve: got %w, want no error after a proper end", err)
		}
	case errors.Is(s.last, streamcredit.ErrGoingAway):
		if !errors.Is(err, context.Canceled) {
			return fmt.Errorf("Serve: got %w, and the subscriber %w", err, s.last)
		}
	case s.policy == streamcredit.Fail:
		if status.Code(s.last) != codes.ResourceExhausted || status.Code(err) != codes.ResourceExhausted {
			return fmt.Errorf("Serve: got %w, and the subscriber %w, want %v", err, s.last, codes.ResourceExhausted)
		}
	default:
		return fmt.Errorf("Serve: got %w, and the subscriber %w", err, s.last)
	}
	return nil
}

// release ends everything that a failed script has left.
func (m *topicMachine) release() {
	for _, s := range m.subscribers {
		s.valve.openBoth()
		letGo(s.serve, s.recv)
		s.end()
	}
	synctest.Wait()
}

// Subscribers of all policies that come and go, with stuck transports: Publish never waits, each
// gets its elements in order, every element is sent or counted, and each end is told.
func TestATopicIsItsModel(t *testing.T) {
	checkScripts(t, rapid.Just(struct{}{}), moves(topicKinds), 60, playTopic)
}
