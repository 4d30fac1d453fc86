package redis_test

import (
	"context"
	"log"
	"os"
	"os/signal"

	goredis "github.com/redis/go-redis/v9"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/redis"
)

// consume works on the jobs until ctx ends. A job is acknowledged when work returns nil.
func consume(ctx context.Context, work func(ctx context.Context, job []byte) error) error {
	source, err := redis.Open(redis.Config{
		Redis:       goredis.UniversalOptions{Addrs: []string{"localhost:6379"}},
		Stream:      "jobs",
		Group:       "workers",
		DeadLetters: "jobs.dead",
	})
	if err != nil {
		return err
	}
	handle := func(ctx context.Context, m *broker.Message) error { return work(ctx, m.Body) }
	return broker.Consume(ctx, source, handle, broker.ConsumeConfig{})
}

func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	work := func(context.Context, []byte) error { return nil } // yours
	if err := consume(ctx, work); err != nil {
		log.Print(err)
	}
}
