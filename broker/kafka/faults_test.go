package kafka_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/kafka"
)

func TestConfig(t *testing.T) {
	_, err := kafka.Open(kafka.Config{
		Topics: []string{"a"}, DeadLetterTopic: "a", MaxAhead: -1, MaxBytes: -1, CommitInterval: -1, RevokeWait: -1,
		Source: broker.SourceConfig{MaxHold: -1},
	})
	if !errors.Is(err, kafka.ErrConfig) {
		t.Fatalf("Open = %v, want ErrConfig", err)
	}
	for _, want := range []string{
		"Seeds: got [], want at least one address",
		"Group: got none, want the name of a consumer group",
		`DeadLetterTopic: got "a", which is one of Topics, want another topic`,
		"MaxAhead: got -1, want more than 0, or 0 for 4096",
		"MaxBytes: got -1, want 1 to 1073741824, or 0 for 1048576",
		"CommitInterval: got -1ns, want more than 0, or 0 for 100ms",
		"RevokeWait: got -1ns, want more than 0, or 0 for 1s",
		"Source: MaxHold: got -1ns, want more than 0, or 0 for 1h0m0s",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want it to say %q", err, want)
		}
	}
	good := kafka.Config{Seeds: []string{"127.0.0.1:1"}, Group: "g", Topics: []string{"a"}}
	good.Source.ExtendEvery = -1
	if _, err := kafka.Open(good); !errors.Is(err, kafka.ErrConfig) {
		t.Errorf("Open with a wrong Source = %v, want ErrConfig", err)
	}
}

// Brokers without records do not hold up the one that has some.
func TestIdleBrokerHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 3, kfakeTopic(9))
		c.produce(t, true, records(4, 100)...)
		source := c.open(t, kafka.Config{})
		ack(t, take(t, source, 1)...)
		began := time.Now()
		for range 33 {
			ack(t, take(t, source, 3)...)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("99 records took %v, want no wait for the other brokers", took)
		}
	})
}

// After an election that loses records, the log goes on at a lower offset. Its new records
// are delivered although their offsets were seen before. Acknowledgements of the old ones
// do not finish them. kfake says that everything was lost when a partition moves.
func TestLogIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 3, kfakeTopic(1))
		c.produce(t, true, records(0, 5)...)
		source := c.open(t, kafka.Config{})
		old := take(t, source, 5)
		ack(t, old[0])
		if err := c.MoveTopicPartition(topic, 0, (c.LeaderFor(topic, 0)+1)%3); err != nil {
			t.Fatal(err)
		}
		source.Request(4)
		fresh := next(t, source, 4)
		for i, m := range fresh {
			if m.ID != old[i].ID {
				t.Errorf("message = %s, want %s", m.ID, old[i].ID)
			}
		}
		for _, m := range old[1:] {
			if err := m.Ack(t.Context()); !errors.Is(err, broker.ErrSettled) {
				t.Errorf("Ack of %s of the old log = %v, want ErrSettled", m.ID, err)
			}
		}
		ack(t, fresh...)
		ack(t, take(t, source, 1)...)
		time.Sleep(time.Minute)
		if got := c.committed(group)[spot{topic, 0}]; got != 5 {
			t.Errorf("committed = %d, want 5", got)
		}
	})
}

// A commit that fails is repeated, and its error is reported.
func TestCommitIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 1, kfakeTopic(1))
		c.produce(t, true, records(0, 3)...)
		var failed atomic.Int64
		config := kafka.Config{Source: broker.SourceConfig{OnError: func(err error) {
			if errors.Is(err, kerr.RebalanceInProgress) {
				failed.Add(1)
			}
		}}}
		source := c.open(t, config)
		ms := take(t, source, 3)
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: topic, Err: kerr.RebalanceInProgress, Count: 3})
		ack(t, ms...)
		time.Sleep(time.Minute)
		if got := c.committed(group)[spot{topic, 0}]; got != 3 {
			t.Errorf("committed = %d, want 3", got)
		}
		if got := failed.Load(); got != 3 {
			t.Errorf("reported errors of commits = %d, want 3", got)
		}
	})
}

// A consumer that may not read the topic ends, instead of waiting for ever.
func TestPermanentError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, 1, kfakeTopic(1))
		c.produce(t, true, records(0, 1)...)
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Err: kerr.TopicAuthorizationFailed, Count: -1})
		source := c.open(t, kafka.Config{})
		source.Request(1)
		if _, err := source.Next(t.Context()); !errors.Is(err, broker.ErrPermanent) || !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Errorf("Next = %v, want ErrPermanent and the reason", err)
		}
	})
}

// A source whose topic is deleted ends, also if a topic with that name is made again. A
// new source reads that one.
func TestTopicIsDeleted(t *testing.T) {
	for name, again := range map[string]bool{"for good": false, "and made again": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := start(t, 1, kfakeTopic(1))
				c.produce(t, true, records(0, 3)...)
				source := c.open(t, kafka.Config{})
				ms := take(t, source, 3)
				ack(t, ms[0])
				time.Sleep(time.Second)
				c.deleteTopic(t)
				if again {
					if err := c.CreateTopic(topic, 1, nil); err != nil {
						t.Fatal(err)
					}
					c.produce(t, true, records(0, 2)...)
				}
				source.Request(1)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := source.Next(ctx)
				if !errors.Is(err, broker.ErrPermanent) || !strings.Contains(err.Error(), topic+"/0: ") || !strings.Contains(err.Error(), "deleted") {
					t.Errorf("Next = %v, want ErrPermanent, the partition and that the topic was deleted", err)
				}
				for _, m := range ms[1:] {
					if err := m.Ack(t.Context()); !errors.Is(err, kafka.ErrRevoked) {
						t.Errorf("Ack of %s = %v, want ErrRevoked", m.ID, err)
					}
				}
				stop(t, source)
				if !again {
					return
				}
				fresh := take(t, c.open(t, kafka.Config{}), 2)
				for i, m := range fresh {
					if got, want := string(m.Body), string(records(0, 2)[i].Value); got != want {
						t.Errorf("message %d of the new topic = %q, want %q", i, got, want)
					}
				}
				ack(t, fresh...)
			})
		})
	}
}
