package kafka

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/weir-go/weir/broker"
)

// The headers of a dead letter, in addition to the headers of the record.
const (
	HeaderReason    = "weir-reason"    // why it was set aside
	HeaderTopic     = "weir-topic"     // where it came from
	HeaderPartition = "weir-partition" // the same, as a decimal number
	HeaderOffset    = "weir-offset"    // the same, as a decimal number
	HeaderAttempt   = "weir-attempt"   // deliveries by the process that gave up
)

// A record is the broker.Settler of one delivered record.
type record struct {
	consumer *consumer
	part     *partition
	rec      *kgo.Record
	attempt  int
}

// message makes the message for one delivery.
func (r *record) message() *broker.Message {
	return broker.NewMessage(broker.Message{
		ID:         r.id(),
		Key:        string(r.rec.Key),
		Body:       r.rec.Value,
		Attributes: attributes(r.rec.Headers),
		Attempt:    r.attempt,
	}, r)
}

// id returns topic/partition/offset.
func (r *record) id() string {
	return r.rec.Topic + "/" + strconv.Itoa(int(r.rec.Partition)) + "/" + strconv.FormatInt(r.rec.Offset, 10)
}

// attributes returns the headers that are text. Of several with one name, the last counts.
func attributes(headers []kgo.RecordHeader) map[string]string {
	if len(headers) == 0 {
		return nil
	}
	m := make(map[string]string, len(headers))
	for _, h := range headers {
		if utf8.Valid(h.Value) {
			m[h.Key] = string(h.Value)
		}
	}
	return m
}

// Ack finishes the record. Its commit follows within the interval of commits.
func (r *record) Ack(context.Context) error { return r.consumer.finish(r) }

// Extend does nothing, because Kafka knows no time for a single record.
func (r *record) Extend(context.Context) error { return r.consumer.alive(r) }

// Requeue makes this process deliver the record again, before new ones.
func (r *record) Requeue(context.Context) error {
	c := r.consumer
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.part.gone {
		return ErrRevoked
	}
	c.again = append(c.again, &record{consumer: c, part: r.part, rec: r.rec, attempt: r.attempt + 1})
	if c.interrupt != nil {
		c.interrupt()
	}
	return nil
}

// DeadLetter produces the record to the dead letter topic and waits until all replicas in
// sync have it. Only then it is finished.
func (r *record) DeadLetter(ctx context.Context, reason string) error {
	c := r.consumer
	if c.config.DeadLetterTopic == "" {
		return fmt.Errorf("kafka: record %s cannot be set aside: no DeadLetterTopic", r.id())
	}
	if err := c.alive(r); err != nil {
		return err
	}
	dead := &kgo.Record{
		Topic: c.config.DeadLetterTopic, Key: r.rec.Key, Value: r.rec.Value, Timestamp: r.rec.Timestamp,
		Headers: append(slices.Clip(r.rec.Headers),
			text(HeaderReason, reason), text(HeaderTopic, r.rec.Topic),
			text(HeaderPartition, strconv.Itoa(int(r.rec.Partition))),
			text(HeaderOffset, strconv.FormatInt(r.rec.Offset, 10)),
			text(HeaderAttempt, strconv.Itoa(r.attempt))),
	}
	if err := c.client.ProduceSync(ctx, dead).FirstErr(); err != nil {
		return fmt.Errorf("kafka: dead letter to %s: %w", dead.Topic, err)
	}
	return c.finish(r)
}

func text(key, value string) kgo.RecordHeader {
	return kgo.RecordHeader{Key: key, Value: []byte(value)}
}

// alive returns ErrRevoked if the record is no longer ours.
func (c *consumer) alive(r *record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.part.gone {
		return ErrRevoked
	}
	return nil
}

// finish notes that a record is finished, and has it committed if it was the oldest.
func (c *consumer) finish(r *record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := r.part
	if p.gone {
		return ErrRevoked
	}
	if !p.tracker.Finish(r.rec.Offset) {
		return broker.ErrSettled
	}
	if p.tracker.Unfinished() == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
	if p.tracker.Committable() != p.stored {
		c.wakeCommits()
	}
	c.resumeLocked(p)
	return nil
}
