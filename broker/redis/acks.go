package redis

import (
	"context"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	// ackers is the number of pipelines of acknowledgements at the same time.
	ackers = 2
	// maxAcks bounds the acknowledgements of one pipeline.
	maxAcks = 100
	// ackTime bounds the time of one pipeline.
	ackTime = 10 * time.Second
)

// An ack is an acknowledgement on its way.
type ack struct {
	id string
	n  int64 // how many Redis has acknowledged, 0 or 1
}

// ack acknowledges an entry, together with the entries of other calls. It returns 1 if Redis has
// acknowledged the entry, and otherwise 0.
func (f *fetcher) ack(ctx context.Context, id string) (int64, error) {
	one := &ack{id: id}
	if err := f.acks.Do(ctx, one); err != nil {
		return 0, err
	}
	return one.n, nil
}

// sendAcks sends a pipeline. Each acknowledgement has an answer of its own.
func (f *fetcher) sendAcks(ctx context.Context, acks []*ack) []error {
	errs := make([]error, len(acks))
	node, err := f.node(ctx)
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	cmds := make([]*goredis.IntCmd, len(acks))
	pipe := node.Pipeline()
	for i, one := range acks {
		cmds[i] = pipe.XAck(ctx, f.Stream, f.Group, one.id)
	}
	_, _ = pipe.Exec(ctx) // each command has its error
	for i, one := range acks {
		one.n, errs[i] = cmds[i].Result()
	}
	return errs
}
