package redis_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	goredis "github.com/redis/go-redis/v9"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/redis"
)

func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	source, err := redis.Open(redis.Config{
		Redis:       goredis.UniversalOptions{Addrs: []string{"localhost:6379"}},
		Stream:      "jobs",
		Group:       "workers",
		DeadLetters: "jobs.dead",
	})
	if err != nil {
		log.Fatal(err)
	}
	err = broker.Consume(ctx, source, func(ctx context.Context, m *broker.Message) error {
		fmt.Printf("%s, attempt %d\n", m.Body, m.Attempt)
		return nil // acknowledges
	}, broker.ConsumeConfig{})
	if err != nil {
		log.Print(err)
	}
}
