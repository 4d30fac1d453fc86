package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/weir-go/weir/broker/kafka/internal/offsets"
)

const (
	// commitPatience bounds one commit. A broker that does not answer must not hold up a
	// rebalance for its whole timeout.
	commitPatience = 10 * time.Second
	// commitRetry is the least time between a commit that failed and the next one.
	commitRetry = time.Second
)

// commitLoop commits when there is something new, at most once an interval.
func (c *consumer) commitLoop() {
	failures := 0
	for {
		select {
		case <-c.closing:
			return
		case <-c.dirty:
		}
		wait := c.config.CommitInterval
		if err := c.commit(context.Background(), nil); err != nil {
			failures++
			wait = max(wait, commitRetry)
			c.wakeCommits() // the group may be in a rebalance, and the next try succeeds
			c.tell(failures, err)
		} else {
			failures = 0
		}
		pause := time.NewTimer(wait)
		select {
		case <-c.closing:
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

// tell reports an error of a commit. The log gets the first one of several in a row.
func (c *consumer) tell(failures int, err error) {
	if failures == 1 {
		c.config.Source.Logger.Warn("kafka: cannot commit, will try again", "group", c.config.Group, "err", err)
	}
	if c.config.Source.OnError != nil {
		c.config.Source.OnError(err)
	}
}

func (c *consumer) wakeCommits() {
	select {
	case c.dirty <- struct{}{}:
	default:
	}
}

// commit stores the offsets of this member's partitions, and of leaving ones. Partitions
// that have left already are not in c.parts, so an offset of theirs cannot be stored late.
func (c *consumer) commit(ctx context.Context, leaving []*partition) error {
	ctx, cancel := context.WithTimeout(ctx, commitPatience)
	defer cancel()
	c.commits.Lock()
	defer c.commits.Unlock()
	upTo, sent := c.progress(leaving)
	if len(sent) == 0 {
		return nil
	}
	var errs []error
	c.client.CommitOffsetsSync(ctx, upTo,
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
			if err != nil {
				errs = append(errs, fmt.Errorf("kafka: commit: %w", err))
				return
			}
			errs = append(errs, c.store(sent, resp))
		})
	return errors.Join(errs...)
}

// progress returns the offsets to commit, and the mark of each partition.
func (c *consumer) progress(leaving []*partition) (map[string]map[int32]kgo.EpochOffset, map[*partition]offsets.Mark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	upTo := map[string]map[int32]kgo.EpochOffset{}
	sent := map[*partition]offsets.Mark{}
	add := func(p *partition) {
		m := p.tracker.Committable()
		if m == p.stored {
			return
		}
		if upTo[p.topic] == nil {
			upTo[p.topic] = map[int32]kgo.EpochOffset{}
		}
		upTo[p.topic][p.partition] = kgo.EpochOffset{Epoch: m.Epoch, Offset: m.Next}
		sent[p] = m
	}
	for _, p := range c.parts {
		add(p)
	}
	for _, p := range leaving {
		add(p)
	}
	return upTo, sent
}

// store notes the offsets that the broker has stored, and returns an error for the others.
func (c *consumer) store(sent map[*partition]offsets.Mark, resp *kmsg.OffsetCommitResponse) error {
	codes := map[place]int16{}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			codes[place{t.Topic, p.Partition}] = p.ErrorCode
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for p, m := range sent {
		code, answered := codes[p.place]
		switch {
		case !answered:
			errs = append(errs, fmt.Errorf("kafka: commit: no answer for %s/%d", p.topic, p.partition))
		case code != 0:
			errs = append(errs, fmt.Errorf("kafka: commit of %s/%d: %w", p.topic, p.partition, kerr.ErrorForCode(code)))
		default:
			p.stored = m
		}
	}
	return errors.Join(errs...)
}
