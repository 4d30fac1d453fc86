package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/kafka/internal/offsets"
	"github.com/weir-go/weir/internal/check"
)

// ErrRevoked is the error of a message after its partition has left this process. Kafka delivers
// the message to the new owner of the partition, unless the topic was deleted. It wraps
// [broker.ErrSettled].
var ErrRevoked = fmt.Errorf("kafka: the partition has left this consumer: %w", broker.ErrSettled)

// Open joins the consumer group and returns its source. It does not block and does not wait
// for a connection. opts are further options of the client, such as TLS, SASL, balancers, a
// logger, or timeouts of the group. The source sets offsets, commits, callbacks of partitions
// and sizes of fetches itself. Options for these have no effect.
//
// Close of the source commits, leaves the group and closes the client.
func Open(config Config, opts ...kgo.Opt) (broker.Source, error) {
	_, source, err := open(config, opts)
	return source, err
}

func open(config Config, opts []kgo.Opt) (*consumer, broker.Source, error) {
	config, err := config.validate()
	if err != nil {
		return nil, nil, err
	}
	c, err := newConsumer(config, opts)
	if err != nil {
		return nil, nil, err
	}
	source, err := broker.NewSource(c, config.Source)
	if err != nil {
		c.stop()
		c.client.CloseAllowingRebalance()
		return nil, nil, err
	}
	return c, source, nil
}

// A consumer is the broker.Fetcher of one member of a consumer group.
//
// The group's callbacks run while Fetch waits, but never between the moment at which
// PollRecords returns records and the one at which they are in their trackers
// (kgo.BlockRebalanceOnPoll). So a record never enters the tracker of a later assignment.
type consumer struct {
	config Config
	client *kgo.Client

	commits sync.Mutex    // held during a commit, so that offsets are stored in order
	dirty   chan struct{} // holds an element if there may be something to commit
	closing chan struct{} // closed when Close begins
	loop    sync.WaitGroup

	mu        sync.Mutex
	parts     map[place]*partition // the partitions of this member
	again     []*record            // given back, to be delivered again, oldest first
	interrupt context.CancelFunc   // ends the poll that is running
	fetching  <-chan struct{}      // closed when the context of Fetch ends
	gate      gate
	mean      float64 // bytes of a record at the broker, on average
}

// A place names a partition.
type place struct {
	topic     string
	partition int32
}

// A partition is one assignment of a partition to this member. Its fields are guarded by
// consumer.mu.
type partition struct {
	place
	tracker offsets.Tracker
	stored  offsets.Mark // the last one that was committed
	paused  bool
	gone    bool          // no longer ours, so settlements come too late
	idle    chan struct{} // if not nil, closed when no record is unfinished
}

func newConsumer(config Config, opts []kgo.Opt) (*consumer, error) {
	c := &consumer{
		config: config, parts: map[place]*partition{}, gate: gate{topics: map[string]bool{}},
		dirty: make(chan struct{}, 1), closing: make(chan struct{}),
	}
	c.mu.Lock() // callbacks may come before NewClient returns, and wait here for c.client
	defer c.mu.Unlock()
	client, err := kgo.NewClient(append(slices.Clip(opts),
		kgo.SeedBrokers(config.Seeds...), kgo.ConsumerGroup(config.Group), kgo.ConsumeTopics(config.Topics...),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.WithHooks(c),
		kgo.OnPartitionsAssigned(c.assigned), kgo.OnPartitionsRevoked(c.revoked), kgo.OnPartitionsLost(c.lost),
		// With MaxConcurrentFetches(0) the client would fetch only while it polls, but from
		// one broker at a time. A broker without records would then hold up all others for
		// FetchMaxWait. So the source pauses the topics instead, see gate.
		kgo.MaxConcurrentFetches(-1),
		kgo.FetchMaxBytes(1), kgo.FetchMaxPartitionBytes(1), // one batch, until there is demand
		kgo.RequiredAcks(kgo.AllISRAcks()), // a dead letter is the only copy that counts
	)...)
	if err != nil {
		return nil, check.One(ErrConfig, "%w", err)
	}
	c.client = client
	c.loop.Go(c.commitLoop)
	return c, nil
}

// Close commits, leaves the group and closes the client.
func (c *consumer) Close(ctx context.Context) error {
	c.stop()
	err := errors.Join(c.commit(ctx, nil), c.client.LeaveGroupContext(ctx))
	c.client.CloseAllowingRebalance()
	return err
}

// stop ends the goroutine of c.
func (c *consumer) stop() {
	close(c.closing)
	c.loop.Wait()
}
