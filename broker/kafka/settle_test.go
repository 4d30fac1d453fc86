package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/kafka"
)

func TestMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 1, kfakeTopic(3))
		headers := []kgo.RecordHeader{
			{Key: "text", Value: []byte("ä €")},
			{Key: "binary", Value: []byte{0xff}},
			{Key: "twice", Value: []byte("1")},
			{Key: "twice", Value: []byte("2")},
		}
		c.produce(t, true, &kgo.Record{Topic: topic, Partition: 2, Key: []byte("k"), Value: []byte("body"), Headers: headers})
		m := take(t, c.open(t, kafka.Config{}), 1)[0]
		if m.ID != "orders/2/0" || m.Key != "k" || string(m.Body) != "body" || m.Attempt != 1 {
			t.Errorf("message = %+v, want orders/2/0 with key, body and attempt 1", m)
		}
		if want := map[string]string{"text": "ä €", "twice": "2"}; !maps.Equal(m.Attributes, want) {
			t.Errorf("attributes = %v, want %v", m.Attributes, want)
		}
		if err := m.Extend(t.Context()); err != nil {
			t.Errorf("Extend: %v", err)
		}
		ack(t, m)
	})
}

// A message that is given back waits for demand, comes before new ones, and counts its
// attempts. It wakes a Fetch that waits for records.
func TestRequeue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 1, kfakeTopic(1))
		c.produce(t, true, records(0, 1)...)
		source := c.open(t, kafka.Config{})
		m := take(t, source, 1)[0]
		for attempt := 2; attempt < 5; attempt++ {
			source.Request(1) // waits at the broker
			time.Sleep(time.Second)
			if err := m.Nack(t.Context(), broker.Requeue()); err != nil {
				t.Fatalf("Nack: %v", err)
			}
			again := next(t, source, 1)[0]
			if again.ID != m.ID || again.Attempt != attempt {
				t.Errorf("message = %s, attempt %d, want %s, attempt %d", again.ID, again.Attempt, m.ID, attempt)
			}
			m = again
		}
		if err := m.Nack(t.Context(), broker.Requeue()); err != nil {
			t.Fatalf("Nack: %v", err)
		}
		nothing(t, source, time.Minute)
		if got := c.committed(group)[spot{topic, 0}]; got != 0 {
			t.Errorf("committed = %d, want nothing while the record is unfinished", got)
		}
		c.produce(t, true, records(0, 1)...)
		ms := take(t, source, 2)
		if ms[0].ID != m.ID {
			t.Errorf("first message = %s, want %s, which was given back", ms[0].ID, m.ID)
		}
		ack(t, ms...)
	})
}

func TestDeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 1, kfakeTopic(1))
		rs := records(0, 3)
		rs[1].Key, rs[1].Headers = []byte("k"), []kgo.RecordHeader{{Key: "trace", Value: []byte("1")}}
		c.produce(t, true, rs...)
		source := c.open(t, kafka.Config{DeadLetterTopic: dead})
		ms := take(t, source, 3)
		ack(t, ms[0], ms[2])
		refused := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: dead, Err: kerr.NotEnoughReplicas, Count: -1})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := ms[1].Nack(ctx, broker.DeadLetter("no")); err == nil {
			t.Fatal("Nack = nil while the broker refuses the dead letter, want an error")
		}
		if got := c.committed(group)[spot{topic, 0}]; got != 1 {
			t.Errorf("committed = %d without the dead letter, want 1", got)
		}
		refused.Remove()
		if err := ms[1].Nack(t.Context(), broker.DeadLetter("the amount is negative")); err != nil {
			t.Fatalf("Nack: %v", err)
		}
		time.Sleep(time.Second)
		if got := c.committed(group)[spot{topic, 0}]; got != 3 {
			t.Errorf("committed = %d after the dead letter, want 3", got)
		}
		r := c.letters(t)[0]
		if string(r.Key) != "k" || string(r.Value) != "0/00001" {
			t.Errorf("dead letter = %q: %q, want the key and the value of the record", r.Key, r.Value)
		}
		var headers []string
		for _, h := range r.Headers {
			headers = append(headers, h.Key+"="+string(h.Value))
		}
		want := "trace=1 weir-reason=the amount is negative weir-topic=orders weir-partition=0 weir-offset=1 weir-attempt=1"
		if got := strings.Join(headers, " "); got != want {
			t.Errorf("headers = %s, want %s", got, want)
		}
	})
}

// letters returns the records of the dead letter topic.
func (c *cluster) letters(t testing.TB) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	fetches := c.client(t, kgo.ConsumeTopics(dead)).PollFetches(ctx)
	if err := fetches.Err(); err != nil {
		t.Fatalf("dead letters: %v", err)
	}
	return fetches.Records()
}

// Without a topic for it, a dead letter fails, and the message is still unsettled.
func TestDeadLetterNeedsATopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 1, kfakeTopic(1))
		c.produce(t, true, records(0, 1)...)
		m := take(t, c.open(t, kafka.Config{}), 1)[0]
		if err := m.Nack(t.Context(), broker.DeadLetter("no")); err == nil || errors.Is(err, broker.ErrSettled) {
			t.Errorf("Nack = %v, want an error that leaves the message unsettled", err)
		}
		ack(t, m)
	})
}

// A record that takes long holds up its partition at MaxAhead, and no other.
func TestSlowRecordStopsItsPartitionAtMaxAhead(t *testing.T) {
	for _, demand := range []int{1, 5, 64} {
		t.Run(fmt.Sprint(demand), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const maxAhead, each = 20, 200
				c := start(t, 1, kfakeTopic(3))
				for p := range int32(3) {
					c.produce(t, false, records(p, each)...)
				}
				source := c.open(t, kafka.Config{MaxAhead: maxAhead})
				source.Request(demand)
				done := map[byte]int{}
				var slow *broker.Message
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for {
					m, err := source.Next(ctx)
					if err != nil {
						break
					}
					source.Request(1)
					if string(m.Body) == "1/00000" {
						slow = m
						continue
					}
					done[m.Body[0]]++
					ack(t, m)
				}
				if done['0'] != each || done['2'] != each {
					t.Errorf("finished in the other partitions = %d and %d, want %d", done['0'], done['2'], each)
				}
				if got := done['1'] + 1; got > maxAhead || got < maxAhead/2 {
					t.Errorf("delivered in the slow partition = %d, want %d to %d", got, maxAhead/2, maxAhead)
				}
				ack(t, slow)
				for range each - done['1'] - 1 {
					ack(t, take(t, source, 1)...)
				}
				time.Sleep(time.Second)
				for p := range int32(3) {
					if got := c.committed(group)[spot{topic, p}]; got != each {
						t.Errorf("committed of partition %d = %d, want %d", p, got, each)
					}
				}
			})
		})
	}
}

// A record, and a batch, that is larger than the window of bytes passes alone.
func TestLargeRecordPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 1, kfakeTopic(1))
		rs := records(0, 5)
		rs[2].Value = make([]byte, 900<<10)
		c.produce(t, true, rs...)
		source := c.open(t, kafka.Config{MaxBytes: 1000})
		for i := range rs {
			m := take(t, source, 1)[0]
			if want := len(rs[i].Value); len(m.Body) != want {
				t.Errorf("body %d has %d bytes, want %d", i, len(m.Body), want)
			}
			ack(t, m)
		}
	})
}
