package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// assigned begins an assignment of each partition.
func (c *consumer) assigned(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for topic, numbers := range parts {
		for _, n := range numbers {
			p := place{topic, n}
			c.parts[p] = &partition{place: p}
		}
	}
	c.assignedLocked()
}

// revoked ends assignments in peace. The client has stopped fetching from the partitions.
// Their records have a while to finish, then the offsets are committed. The group waits for
// that before another member gets the partitions.
func (c *consumer) revoked(ctx context.Context, _ *kgo.Client, parts map[string][]int32) {
	c.await(ctx, parts)
	_ = c.commit(ctx, c.take(parts)) // on an error the next owner gets the records again
}

// lost ends assignments that the group has given to others already. A commit would be
// refused, or do harm.
func (c *consumer) lost(_ context.Context, _ *kgo.Client, parts map[string][]int32) { c.take(parts) }

// await waits until the records of the partitions are finished, for RevokeWait at most. It
// does not wait when the source is closing. A poll cannot end before a callback does, and
// the source has no patience then.
func (c *consumer) await(ctx context.Context, parts map[string][]int32) {
	deadline := time.NewTimer(c.config.RevokeWait)
	defer deadline.Stop()
	unfinished, fetching := c.unfinished(parts)
	for _, idle := range unfinished {
		select {
		case <-idle:
		case <-deadline.C:
			return
		case <-fetching:
			return
		case <-ctx.Done():
			return
		}
	}
}

// unfinished returns a channel for each partition with unfinished records, which is closed
// when the partition has none. It also returns the one that is closed with the source.
func (c *consumer) unfinished(parts map[string][]int32) (idle []<-chan struct{}, fetching <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for topic, numbers := range parts {
		for _, n := range numbers {
			if p := c.parts[place{topic, n}]; p != nil && p.tracker.Unfinished() > 0 {
				p.idle = make(chan struct{})
				idle = append(idle, p.idle)
			}
		}
	}
	return idle, c.fetching
}

// take ends the assignments. From now on nothing of them can be settled.
func (c *consumer) take(parts map[string][]int32) (taken []*partition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for topic, numbers := range parts {
		for _, n := range numbers {
			p := c.parts[place{topic, n}]
			if p == nil {
				continue
			}
			p.gone = true
			delete(c.parts, p.place)
			if p.paused { // the client would keep the pause for a later assignment
				c.client.ResumeFetchPartitions(p.asMap())
			}
			taken = append(taken, p)
		}
	}
	return taken
}
