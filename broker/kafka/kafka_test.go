package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/kafka"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Names that all tests use.
const (
	topic = "orders"
	dead  = "orders.dead"
	group = "payments"
)

// quiet is long for a broker, and shorter than the time after which the client closes a
// connection that rests. The tap forgets the records of a closed connection.
const quiet = 10 * time.Second

// open joins the group. The source is closed at the end of the test, if it was not before.
func (c *cluster) open(t testing.TB, config kafka.Config, opts ...kgo.Opt) broker.Source {
	t.Helper()
	config.Seeds, config.Topics, config.Group = c.addrs, []string{topic}, group
	source, err := kafka.Open(config, append(opts, c.dialer())...)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		_ = source.Close(ctx) // gives back the messages that the test has left
	})
	return source
}

// records returns n records for a partition, with their numbers as values.
func records(partition int32, n int) []*kgo.Record {
	rs := make([]*kgo.Record, n)
	for i := range rs {
		rs[i] = &kgo.Record{Topic: topic, Partition: partition, Value: fmt.Appendf(nil, "%d/%05d", partition, i)}
	}
	return rs
}

// take requests n messages and waits for them.
func take(t testing.TB, source broker.Source, n int) []*broker.Message {
	t.Helper()
	source.Request(n)
	return next(t, source, n)
}

func next(t testing.TB, source broker.Source, n int) []*broker.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ms := make([]*broker.Message, n)
	for i := range ms {
		m, err := source.Next(ctx)
		if err != nil {
			t.Fatalf("Next %d of %d: %v", i+1, n, err)
		}
		ms[i] = m
	}
	return ms
}

// nothing fails the test if a message arrives within d.
func nothing(t testing.TB, source broker.Source, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if m, err := source.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Next = %v, %v, want nothing for %v", m, err, d)
	}
}

func ack(t testing.TB, ms ...*broker.Message) {
	t.Helper()
	for _, m := range ms {
		if err := m.Ack(t.Context()); err != nil {
			t.Fatalf("Ack of %s: %v", m.ID, err)
		}
	}
}

func stop(t testing.TB, source broker.Source) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := source.Close(ctx); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// Without demand the broker gets no fetch and sends nothing. With demand it sends that many
// records, if each is a batch of its own.
func TestFetchesOnlyWhatIsRequested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 1, kfakeTopic(1))
		c.produce(t, true, records(0, 300)...)
		source := c.open(t, kafka.Config{})
		time.Sleep(time.Minute)
		if got := c.count(kmsg.Fetch); got != 0 {
			t.Errorf("fetches without demand = %d, want 0", got)
		}
		for _, n := range []int{1, 7, 40, 3, 16} {
			ms := take(t, source, n)
			time.Sleep(quiet)
			// A fetch that was begun before the demand was used up may bring a batch.
			if got := c.ahead(topic, c.committed(group)); got < int64(n) || got > int64(n)+1 {
				t.Errorf("the broker has sent %d records that are not committed, want the %d requested, or one more", got, n)
			}
			ack(t, ms...)
			time.Sleep(time.Second)
		}
	})
}

// The size of a fetch follows the bytes that the broker sends. Records that the producer has
// compressed are much smaller there than in memory.
func TestFetchesOnlyWhatIsRequestedOfCompressedBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const batches, each, demand = 200, 5, 20
		c := start(t, 1, kfakeTopic(1))
		for range batches {
			c.produce(t, false, large(each)...)
		}
		source := c.open(t, kafka.Config{})
		ack(t, take(t, source, 10*demand)...) // so that the source knows the records
		time.Sleep(time.Second)
		for range 5 {
			ms := take(t, source, demand)
			time.Sleep(quiet)
			// A fetch ends with a whole batch, and one more may come before the demand is used up.
			if got := c.ahead(topic, c.committed(group)); got < demand || got > demand+2*each {
				t.Errorf("the broker has sent %d records that are not committed, want the %d requested, and two batches of %d at most",
					got, demand, each)
			}
			ack(t, ms...)
			time.Sleep(time.Second)
		}
	})
}

// large returns records of partition 0 that compress to almost nothing.
func large(n int) []*kgo.Record {
	rs := make([]*kgo.Record, n)
	for i := range rs {
		rs[i] = &kgo.Record{Topic: topic, Value: make([]byte, 5000)}
	}
	return rs
}

// An empty topic costs one long poll after the other.
func TestIdleCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 1, kfakeTopic(4))
		source := c.open(t, kafka.Config{})
		source.Request(10)
		time.Sleep(time.Minute)
		before := c.count(kmsg.Fetch)
		time.Sleep(time.Minute)
		if got := c.count(kmsg.Fetch) - before; got > 13 {
			t.Errorf("fetches a minute of an empty topic = %d, want 12, one each 5 s", got)
		}
		// Once the demand is used up, at most the fetch that was under way ends.
		c.produce(t, true, records(0, 10)...)
		ack(t, next(t, source, 10)...)
		before = c.count(kmsg.Fetch)
		time.Sleep(time.Minute)
		if got := c.count(kmsg.Fetch) - before; got > 1 {
			t.Errorf("fetches a minute without demand = %d, want at most the one that was under way", got)
		}
	})
}

// Only the offset up to which every record is finished is committed.
func TestCommitsTheLowestContiguousOffset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 1, kfakeTopic(1))
		c.produce(t, true, records(0, 10)...)
		source := c.open(t, kafka.Config{})
		ms := take(t, source, 10)
		for _, step := range []struct {
			finish int
			want   int64
		}{{9, 0}, {1, 0}, {0, 2}, {3, 2}, {2, 4}, {8, 4}, {5, 4}, {4, 6}, {6, 7}, {7, 10}} {
			ack(t, ms[step.finish])
			time.Sleep(time.Second)
			if got := c.committed(group)[spot{topic, 0}]; got != step.want {
				t.Errorf("after record %d the committed offset is %d, want %d", step.finish, got, step.want)
			}
		}
	})
}

// Many acknowledgements make few commits, and the last one is committed soon.
func TestCommitsAreBundled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 1, kfakeTopic(1))
		c.produce(t, false, records(0, 1000)...)
		source := c.open(t, kafka.Config{CommitInterval: time.Second})
		for range 1000 {
			ack(t, take(t, source, 1)...)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		if got := c.committed(group)[spot{topic, 0}]; got != 1000 {
			t.Errorf("committed = %d, want 1000", got)
		}
		if got := c.count(kmsg.OffsetCommit); got > 13 {
			t.Errorf("commits in 10 s = %d, want one a second", got)
		}
	})
}

// Close commits what is finished, gives back the rest, and leaves the group, so that the
// next member goes on at once.
func TestCloseCommitsAndLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 1, kfakeTopic(1))
		c.produce(t, true, records(0, 6)...)
		source := c.open(t, kafka.Config{})
		source.Request(5)
		ms := next(t, source, 3)
		ack(t, ms[0], ms[2])
		var closing sync.WaitGroup
		closing.Go(func() { stop(t, source) })
		synctest.Wait()
		ack(t, ms[1]) // Close waits for it
		closing.Wait()
		if got := c.committed(group)[spot{topic, 0}]; got != 3 {
			t.Errorf("committed after Close = %d, want 3", got)
		}
		if got := c.count(kmsg.LeaveGroup); got != 1 {
			t.Errorf("LeaveGroup requests = %d, want 1", got)
		}
		began := time.Now()
		for i, m := range take(t, c.open(t, kafka.Config{}), 3) {
			if want := fmt.Sprintf("0/%05d", i+3); string(m.Body) != want {
				t.Errorf("body = %q, want %q", m.Body, want)
			}
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("the next member waited for %v, want no session timeout", took)
		}
	})
}
