package redis_test

import (
	"context"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/weir-go/weir/broker/brokertest"
)

// BenchmarkThroughput compares a source with the client used by hand. The server keeps
// nothing on disk, so that the disk is not measured.
func BenchmarkThroughput(b *testing.B) {
	br := conformance
	br.Start = func(t testing.TB) brokertest.Server { return startServer(t, "--appendonly", "no") }
	brokertest.Benchmark(b, br, 5000, byHand)
}

// byHand reads as many entries as it has room for, and acknowledges each in a goroutine.
func byHand(ctx context.Context, c brokertest.Consumer, messages int) error {
	client := goredis.NewClient(&goredis.Options{Addr: c.Addr, PoolSize: brokertest.BenchmarkDemand + 1})
	defer client.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	room := make(chan struct{}, brokertest.BenchmarkDemand)
	var work sync.WaitGroup
	defer work.Wait()
	for messages > 0 {
		room <- struct{}{}
		free := 1
		for free+len(room) <= cap(room) && free < messages {
			free++
		}
		read, err := client.XReadGroup(ctx, &goredis.XReadGroupArgs{
			Group: group, Consumer: c.Name, Streams: []string{c.Queue, ">"}, Count: int64(free), Block: time.Second,
		}).Result()
		if err != nil {
			return err
		}
		<-room
		for _, m := range read[0].Messages {
			room <- struct{}{}
			messages--
			work.Go(func() {
				if err := client.XAck(ctx, c.Queue, group, m.ID).Err(); err != nil {
					cancel(err)
				}
				<-room
			})
		}
	}
	work.Wait()
	return context.Cause(ctx)
}
