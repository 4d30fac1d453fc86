package redis

import (
	"context"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	// ackers is the number of pipelines of acknowledgements at the same time. While all are
	// under way, acknowledgements gather for the next one.
	ackers = 2
	// maxAcks bounds the acknowledgements of one pipeline.
	maxAcks = 100
	// ackTime bounds the time of one pipeline.
	ackTime = 10 * time.Second
)

// acks sends acknowledgements in pipelines. One is sent at once if an acker is free.
type acks struct {
	f *fetcher

	mu      sync.Mutex // guards the fields below
	waiting []*ack
	busy    int // running ackers
	work    sync.WaitGroup
}

// An ack is an acknowledgement on its way.
type ack struct {
	ctx    context.Context
	id     string
	n      int64
	err    error
	result chan struct{} // closed when n and err are set
}

// do acknowledges an entry, and returns how many Redis has acknowledged, 0 or 1. It is not
// sent any more after ctx has ended.
func (a *acks) do(ctx context.Context, id string) (int64, error) {
	one := &ack{ctx: ctx, id: id, result: make(chan struct{})}
	a.mu.Lock()
	a.waiting = append(a.waiting, one)
	if a.busy < ackers {
		a.busy++
		a.work.Go(a.run)
	}
	a.mu.Unlock()
	select {
	case <-one.result:
		return one.n, one.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// run sends acknowledgements until none waits.
func (a *acks) run() {
	for {
		a.mu.Lock()
		n := min(maxAcks, len(a.waiting))
		if n == 0 {
			a.busy--
			a.mu.Unlock()
			return
		}
		batch := a.waiting[:n:n]
		a.waiting = a.waiting[n:]
		a.mu.Unlock()
		a.send(batch)
	}
}

// send sends a pipeline. Each acknowledgement has an answer of its own.
func (a *acks) send(batch []*ack) {
	ctx, cancel := context.WithTimeout(context.Background(), ackTime)
	defer cancel()
	node, err := a.f.node(ctx)
	cmds := make([]*goredis.IntCmd, len(batch))
	if err == nil {
		pipe := node.Pipeline()
		for i, one := range batch {
			if one.ctx.Err() == nil {
				cmds[i] = pipe.XAck(ctx, a.f.Stream, a.f.Group, one.id)
			}
		}
		_, _ = pipe.Exec(ctx) // each command has its error
	}
	for i, one := range batch {
		switch {
		case err != nil:
			one.err = err
		case cmds[i] == nil:
			one.err = one.ctx.Err()
		default:
			one.n, one.err = cmds[i].Result()
		}
		close(one.result)
	}
}
