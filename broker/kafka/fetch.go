package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/weir-go/weir/broker"
)

// Fetch delivers records that were given back, or else waits for new ones. A record that is
// given back meanwhile ends the wait.
func (c *consumer) Fetch(ctx context.Context, n int) ([]*broker.Message, error) {
	poll, cancel := context.WithCancel(ctx)
	defer cancel()
	again, n := c.prepare(ctx, n, cancel)
	if len(again) > 0 {
		return again, nil
	}
	fetches := c.poll(poll, n)
	defer c.client.AllowRebalance()
	messages := c.deliver(fetches)
	return messages, c.failure(fetches)
}

// poll waits for records and returns up to n. The client begins the next fetch as soon as
// its buffer is empty. So poll takes one record first, and knows how much it will empty
// the buffer before it takes the others. Then it stops the client from fetching until the
// next Fetch, which knows the demand of that time.
func (c *consumer) poll(ctx context.Context, n int) kgo.Fetches {
	fetches := c.client.PollRecords(ctx, 1)
	got := fetches.NumRecords()
	if got == 0 {
		return fetches
	}
	if got < n {
		c.mu.Lock()
		c.windowLocked(n - got)
		c.mu.Unlock()
		fetches = append(fetches, c.client.PollRecords(nil, n-got)...) //nolint:staticcheck // nil means not to wait
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked()
	return fetches
}

// prepare returns messages that were given back. If there are none, it returns the number
// of records to poll for, and the next record that is given back calls interrupt.
func (c *consumer) prepare(ctx context.Context, n int, interrupt context.CancelFunc) ([]*broker.Message, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fetching = ctx.Done()
	if again := c.redeliverLocked(n); len(again) > 0 {
		return again, 0
	}
	c.interrupt = interrupt
	n = c.roomLocked(n)
	c.windowLocked(n)
	c.openLocked()
	return nil, n
}

// redeliverLocked returns up to n messages that were given back.
func (c *consumer) redeliverLocked(n int) (ms []*broker.Message) {
	for len(c.again) > 0 && len(ms) < n {
		r := c.again[0]
		c.again[0], c.again = nil, c.again[1:]
		if !r.part.gone {
			ms = append(ms, r.message())
		}
	}
	return ms
}

// roomLocked returns the number of records to poll for. It pauses each partition that so many
// records could bring above MaxAhead. A pause drops the records of the partition that wait
// in the client, and they are fetched again later. So a partition is paused with up to a
// quarter of MaxAhead to go, and resumed at half.
func (c *consumer) roomLocked(n int) int {
	n = min(n, max(1, c.config.MaxAhead/4))
	for _, p := range c.parts {
		if !p.paused && p.tracker.Span() > c.config.MaxAhead-n {
			p.paused = true
			c.client.PauseFetchPartitions(p.asMap())
		}
	}
	return n
}

// resumeLocked lets a partition deliver again when enough of its records are finished. The lock
// makes a pause and a resume reach the client in order.
func (c *consumer) resumeLocked(p *partition) {
	if p.paused && p.tracker.Span() <= c.config.MaxAhead/2 {
		p.paused = false
		c.client.ResumeFetchPartitions(p.asMap())
	}
}

func (p place) asMap() map[string][]int32 { return map[string][]int32{p.topic: {p.partition}} }

// windowLocked sets the size of later fetches to the bytes of the records that are missing, if n
// are wanted. Kafka sends whole batches and at least one. Without demand, and before the size
// of a record is known, the window is one byte, which brings one batch.
func (c *consumer) windowLocked(n int) {
	missing := float64(n) - float64(c.client.BufferedFetchRecords())
	window := int32(min(max(1, c.mean*missing), float64(c.config.MaxBytes)))
	c.client.UpdateFetchMaxBytes(window, window)
}

// deliver makes messages of the records that a poll has returned.
func (c *consumer) deliver(fetches kgo.Fetches) []*broker.Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interrupt = nil
	var ms []*broker.Message
	for it := fetches.RecordIter(); !it.Done(); {
		rec := it.Next()
		p := c.parts[place{rec.Topic, rec.Partition}]
		if p == nil {
			continue // of a partition that left in this moment
		}
		if !p.tracker.Add(rec.Offset, rec.LeaderEpoch) {
			p = c.restart(p)
			p.tracker.Add(rec.Offset, rec.LeaderEpoch)
		}
		r := &record{consumer: c, part: p, rec: rec, attempt: 1}
		ms = append(ms, r.message())
	}
	return ms
}

// restart begins a new assignment of a partition after its log was cut and written anew. The
// records of the old log cannot be acknowledged any more.
func (c *consumer) restart(old *partition) *partition {
	old.gone = true
	p := &partition{place: old.place, paused: old.paused}
	c.parts[p.place] = p
	c.resumeLocked(p)
	return p
}

// batchHeader is the size of a batch without its records.
const batchHeader = 61

// OnFetchBatchRead implements kgo.HookFetchBatchRead. It learns the mean size of records as
// the broker sends them, because the window of a fetch counts these bytes. It soon forgets a
// few large records, since a window that is too large brings too many small ones.
func (c *consumer) OnFetchBatchRead(_ kgo.BrokerMetadata, _ string, _ int32, batch kgo.FetchBatchMetrics) {
	const up, down = 1.0 / 64, 1.0 / 8
	if batch.NumRecords == 0 {
		return
	}
	records := float64(batch.NumRecords)
	size := float64(batchHeader+batch.CompressedBytes) / records
	c.mu.Lock()
	defer c.mu.Unlock()
	change := up
	if size < c.mean {
		change = down
	}
	if c.mean == 0 {
		change = 1
	}
	c.mean += (1 - math.Pow(1-change, records)) * (size - c.mean)
}

// permanent are errors that only a change of the service or of the cluster can mend. The
// client returns UnknownTopicID for a topic that was deleted. It would never read another
// topic with that name.
var permanent = []error{
	kerr.UnknownTopicID, kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed,
	kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.InvalidGroupID,
	kerr.InconsistentGroupProtocol, kerr.FencedInstanceID, kerr.UnsupportedVersion, kgo.ErrClientClosed,
}

// failure returns the errors of a poll. The client repeats by itself what may succeed the
// next time, and returns only the other errors. The records of a deleted topic cannot be
// settled any more.
func (c *consumer) failure(fetches kgo.Fetches) error {
	var errs []error
	fetches.EachError(func(topic string, partition int32, err error) {
		if errors.Is(err, kerr.UnknownTopicID) {
			c.take(place{topic, partition}.asMap())
			err = fmt.Errorf("the topic was deleted: %w", err)
		}
		switch {
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		case isAny(err, permanent):
			errs = append(errs, fmt.Errorf("kafka: %s%w: %w", at(topic, partition), broker.ErrPermanent, err))
		default:
			errs = append(errs, fmt.Errorf("kafka: %s%w", at(topic, partition), err))
		}
	})
	return errors.Join(errs...)
}

// at names the partition of an error, if it has one.
func at(topic string, partition int32) string {
	if topic == "" {
		return ""
	}
	return fmt.Sprintf("%s/%d: ", topic, partition)
}

func isAny(err error, targets []error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}
