package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/kafka"
)

// balancers are the ways in which a group hands over partitions. Eager ones take all of
// them away first.
var balancers = map[string]kgo.GroupBalancer{
	"cooperative": kgo.CooperativeStickyBalancer(), "eager": kgo.StickyBalancer(), "range": kgo.RangeBalancer(),
}

// A ledger counts what was delivered and acknowledged, over all workers.
type ledger struct {
	mu        sync.Mutex
	acked     map[string]int
	delivered int
	revoked   int
	by        map[string]int // acknowledged, by worker
}

func newLedger() *ledger { return &ledger{acked: map[string]int{}, by: map[string]int{}} }

// work consumes with a number of goroutines until ctx ends. Each needs a while for a message.
func (l *ledger) work(ctx context.Context, t *testing.T, name string, source broker.Source, demand int) *sync.WaitGroup {
	var workers sync.WaitGroup
	source.Request(demand)
	for range demand {
		workers.Go(func() {
			for {
				m, err := source.Next(ctx)
				if err != nil {
					return
				}
				pause(2 * time.Millisecond)
				l.note(t, name, m, m.Ack(context.Background()))
				source.Request(1)
			}
		})
	}
	return &workers
}

func pause(d time.Duration) { <-time.After(d) }

func (l *ledger) note(t *testing.T, name string, m *broker.Message, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delivered++
	switch {
	case err == nil:
		l.acked[string(m.Body)]++
		l.by[name]++
	case errors.Is(err, kafka.ErrRevoked) && errors.Is(err, broker.ErrSettled):
		l.revoked++
	default:
		t.Errorf("Ack of %s by %s: %v", m.ID, name, err)
	}
}

// handled returns how many messages a worker has acknowledged.
func (l *ledger) handled(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.by[name]
}

func (l *ledger) distinct() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// until polls until ok returns true.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); pause(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// members waits until the group has that many members, and each has its partitions.
func (c *cluster) members(t *testing.T, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := c.WaitGroupStable(ctx, group, n); err != nil {
		t.Fatalf("the group has not got %d members: %v", n, err)
	}
}

// brisk are options of a group that rebalances quickly, with a balancer.
func brisk(b kgo.GroupBalancer) []kgo.Opt {
	return []kgo.Opt{kgo.Balancers(b), kgo.HeartbeatInterval(20 * time.Millisecond)}
}

// Two workers share a topic, on two brokers. These tests run in real time. A commit waits
// for a rebalance with a mutex, which stops the clock of a bubble.
func TestTwoWorkersShare(t *testing.T) {
	for name, balancer := range balancers {
		t.Run(name, func(t *testing.T) {
			const parts, each = 6, 200
			c := start(t, 2, kfakeTopic(parts))
			one, two := c.open(t, kafka.Config{}, brisk(balancer)...), c.open(t, kafka.Config{}, brisk(balancer)...)
			c.members(t, 2)
			for p := range int32(parts) {
				c.produce(t, false, records(p, each)...)
			}
			l := newLedger()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			first, second := l.work(ctx, t, "one", one, 4), l.work(ctx, t, "two", two, 4)
			until(t, "all records acknowledged", func() bool { return l.distinct() >= parts*each })
			cancel()
			first.Wait()
			second.Wait()
			if a, b := l.by["one"], l.by["two"]; min(a, b)*100 < 40*(a+b) {
				t.Errorf("acknowledged by the workers = %d and %d, want at least 40 %% each", a, b)
			}
		})
	}
}

// A worker joins and leaves again and again. No record is lost, and none is delivered
// twice, because a rebalance waits for the records that are in work.
func TestRebalanceLosesNothing(t *testing.T) {
	for name, balancer := range balancers {
		t.Run(name, func(t *testing.T) {
			const parts, each, demand = 6, 300, 8
			c := start(t, 2, kfakeTopic(parts))
			l := newLedger()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			config := kafka.Config{RevokeWait: 30 * time.Second}
			steady := l.work(ctx, t, "steady", c.open(t, config, brisk(balancer)...), demand)
			for round := range 3 {
				for p := range int32(parts) {
					c.produce(t, false, records(p, (round+1)*each)[round*each:]...)
				}
				before := l.handled("guest")
				guest, leave := context.WithCancel(ctx)
				source := c.open(t, config, brisk(balancer)...)
				workers := l.work(guest, t, "guest", source, demand)
				until(t, "the guest gets records", func() bool { return l.handled("guest") > before+50 })
				leave()
				workers.Wait()
				stop(t, source)
			}
			until(t, "all records acknowledged", func() bool { return l.distinct() >= 3*parts*each })
			cancel()
			steady.Wait()
			if twice := l.delivered - 3*parts*each; twice != 0 || l.revoked != 0 {
				t.Errorf("delivered twice = %d, refused acknowledgements = %d, want 0", twice, l.revoked)
			}
		})
	}
}

// Of two static members with one name, the newer one gets the partitions. The older one ends
// for good, and its late acknowledgements are refused.
func TestFencedStaticMemberEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 1, kfakeTopic(1))
		c.produce(t, true, records(0, 20)...)
		older := c.open(t, kafka.Config{}, kgo.InstanceID("pod-0"))
		old := take(t, older, 5)
		newer := c.open(t, kafka.Config{}, kgo.InstanceID("pod-0"))
		fresh := take(t, newer, 5)
		if fresh[0].ID != old[0].ID {
			t.Errorf("the newer member begins with %s, want %s, which is not acknowledged", fresh[0].ID, old[0].ID)
		}
		for older.Request(20); ; {
			m, err := older.Next(t.Context())
			if err == nil {
				old = append(old, m) // it was fetched before
				continue
			}
			if !errors.Is(err, broker.ErrPermanent) || !errors.Is(err, kerr.FencedInstanceID) {
				t.Errorf("Next of the older member = %v, want ErrPermanent and the reason", err)
			}
			break
		}
		for _, m := range old {
			if err := m.Ack(t.Context()); !errors.Is(err, kafka.ErrRevoked) {
				t.Errorf("Ack of %s by the older member = %v, want ErrRevoked", m.ID, err)
			}
		}
		ack(t, fresh...)
		time.Sleep(time.Second)
		if got := c.committed(group)[spot{topic, 0}]; got != 5 {
			t.Errorf("committed = %d, want the 5 records of the newer member", got)
		}
	})
}

// An acknowledgement that comes after the partition has left is refused. If the partition
// comes back meanwhile, the acknowledgement must not finish the record of the new
// assignment.
func TestLateAcknowledgementIsFenced(t *testing.T) {
	for name, balancer := range balancers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := start(t, 1, kfakeTopic(1))
				c.produce(t, true, records(0, 5)...)
				opts := []kgo.Opt{kgo.Balancers(balancer), kgo.SessionTimeout(10 * time.Second)}
				source := c.open(t, kafka.Config{RevokeWait: time.Second}, opts...)
				old := take(t, source, 5)
				ack(t, old[0], old[2])
				// The broker forgets the member, which joins again and gets the partition back.
				c.kick(t)
				source.Request(5)
				fresh := next(t, source, 4)
				for _, m := range []*broker.Message{old[1], old[3], old[4]} {
					if err := m.Ack(t.Context()); !errors.Is(err, kafka.ErrRevoked) {
						t.Errorf("Ack of %s after the partition has left = %v, want ErrRevoked", m.ID, err)
					}
				}
				if err := old[1].Nack(t.Context(), broker.Requeue()); !errors.Is(err, broker.ErrSettled) {
					t.Errorf("Nack after the partition has left = %v, want ErrSettled", err)
				}
				time.Sleep(time.Second)
				if got := c.committed(group)[spot{topic, 0}]; got != 1 {
					t.Errorf("committed = %d, want 1: record 1 is not finished in the new assignment", got)
				}
				for i, m := range fresh {
					if want := records(0, 5)[i+1].Value; !bytes.Equal(m.Body, want) {
						t.Errorf("body = %q, want %q", m.Body, want)
					}
				}
				ack(t, fresh...)
				time.Sleep(time.Second)
				if got := c.committed(group)[spot{topic, 0}]; got != 5 {
					t.Errorf("committed = %d, want 5", got)
				}
			})
		})
	}
}

// A rebalance waits for unfinished records, and no longer than RevokeWait.
func TestRevokeWait(t *testing.T) {
	for _, wait := range []time.Duration{time.Minute, 100 * time.Millisecond} {
		t.Run(wait.String(), func(t *testing.T) {
			c := start(t, 1, kfakeTopic(2))
			for p := range int32(2) {
				c.produce(t, true, records(p, 1)...)
			}
			source := c.open(t, kafka.Config{RevokeWait: wait}, brisk(kgo.RangeBalancer())...)
			ms := take(t, source, 2)
			other := c.open(t, kafka.Config{}, brisk(kgo.RangeBalancer())...)
			other.Request(2)
			if wait < time.Minute { // the other member gets one of the partitions and its record
				m := next(t, other, 1)[0]
				until(t, "the first member learns that it has lost the partition", func() bool {
					return errors.Is(lost(t, ms, m.ID).Extend(t.Context()), kafka.ErrRevoked)
				})
				return
			}
			until(t, "the rebalance begins", func() bool { return c.GroupInfo(group).State != "Stable" })
			for _, m := range ms {
				if err := m.Extend(t.Context()); err != nil {
					t.Errorf("Extend of %s: %v, want it ours still", m.ID, err)
				}
			}
			ack(t, ms...)
			c.members(t, 2)
			for p := range int32(2) {
				if got := c.committed(group)[spot{topic, p}]; got != 1 {
					t.Errorf("committed of partition %d = %d, want 1", p, got)
				}
			}
		})
	}
}

// lost returns the message with that ID.
func lost(t *testing.T, ms []*broker.Message, id string) *broker.Message {
	t.Helper()
	for _, m := range ms {
		if m.ID == id {
			return m
		}
	}
	t.Fatalf("message %s is none of the first member's", id)
	return nil
}
