package redis

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// node returns the client of the server that has the stream.
func (f *fetcher) node(ctx context.Context) (*goredis.Client, error) {
	switch c := f.client.(type) {
	case *goredis.Client:
		return c, nil
	case *goredis.ClusterClient:
		return c.MasterForKey(ctx, f.Stream)
	default:
		return nil, errors.New("redis: got a client that is neither one of a server nor one of a cluster")
	}
}

// refresh has a cluster's client look for the stream again if err says that it has moved.
func (f *fetcher) refresh(ctx context.Context, err error) {
	c, ok := f.client.(*goredis.ClusterClient)
	if ok && (!isReply(err) || isTemporary(err)) {
		c.ReloadState(ctx)
	}
}

// isReply reports whether err is an answer of Redis, so that the outcome is known.
func isReply(err error) bool {
	var reply goredis.Error
	return errors.As(err, &reply) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) &&
		!errors.Is(err, goredis.ErrClosed) && !isNetwork(err)
}

func isNetwork(err error) bool {
	var network net.Error
	return errors.As(err, &network)
}

// isTemporary reports whether the answer of Redis says that the same command may succeed
// later or elsewhere.
func isTemporary(err error) bool {
	for _, code := range []string{"LOADING ", "READONLY ", "MOVED ", "ASK ", "CLUSTERDOWN ", "TRYAGAIN ", "MASTERDOWN ", "BUSY "} {
		if strings.HasPrefix(err.Error(), code) {
			return true
		}
	}
	return false
}

// A reader has a connection on which one command at a time blocks. A command is never
// abandoned, because Redis may have delivered entries to it. Instead a second connection
// asks Redis to unblock it.
type reader struct {
	node   func(context.Context) (*goredis.Client, error)
	limit  time.Duration // after which a command is unblocked
	wake   chan struct{} // unblocks the command
	conn   *goredis.Conn // nil after an error
	id     int64         // of conn at the server; 0 if the server does not tell
	guards sync.WaitGroup
}

// do sends a command that may block, and returns the reply. It returns soon after ctx ends.
func (r *reader) do(ctx context.Context, args ...any) (any, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	quiet := context.WithoutCancel(ctx)
	node, err := r.node(quiet)
	if err != nil {
		return nil, err
	}
	if r.conn == nil {
		r.conn = node.Conn()
		r.id, err = r.conn.ClientID(quiet).Result()
		if err != nil && !isReply(err) {
			r.drop()
			return nil, err
		}
	}
	stop := r.guard(ctx, node)
	defer stop()
	cmd := goredis.NewCmd(quiet, args...)
	if err := r.conn.Process(quiet, cmd); err != nil && !isReply(err) && !errors.Is(err, goredis.Nil) {
		r.drop()
		return nil, err
	}
	return cmd.Result()
}

// unblockEvery is the time between two tries to unblock a command. The first may come before
// the command has arrived.
const unblockEvery = 50 * time.Millisecond

// guard unblocks the command of conn when ctx ends, when wake says so, and after the limit.
// Redis 7 starts the time of a blocked command again whenever another consumer was faster.
func (r *reader) guard(ctx context.Context, node *goredis.Client) (stop func()) {
	quit, id := make(chan struct{}), r.id
	r.guards.Go(func() {
		timer := time.NewTimer(r.limit)
		defer timer.Stop()
		select {
		case <-quit:
			return
		case <-ctx.Done():
		case <-r.wake:
		case <-timer.C:
		}
		for id != 0 {
			_ = node.ClientUnblock(context.WithoutCancel(ctx), id).Err()
			timer.Reset(unblockEvery)
			select {
			case <-quit:
				return
			case <-timer.C:
			}
		}
	})
	return func() { close(quit) }
}

// interrupt ends a command that blocks now.
func (r *reader) interrupt() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reader) drop() {
	_ = r.conn.Close()
	r.conn = nil
}

func (r *reader) close() {
	r.guards.Wait()
	if r.conn != nil {
		r.drop()
	}
}
