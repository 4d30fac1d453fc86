package redis_test

import (
	"context"
	"fmt"
	"log"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/weir-go/weir/broker/redis"
)

func Example() {
	source, err := redis.Open(redis.Config{
		Redis:       goredis.UniversalOptions{Addrs: []string{"localhost:6379"}},
		Stream:      "jobs",
		Group:       "workers",
		DeadLetters: "jobs.dead",
		AckTimeout:  time.Minute,
	})
	if err != nil {
		log.Fatal(err)
	}
	source.Request(1)
	m, err := source.Next(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", m.Body)
	if err := m.Ack(context.Background()); err != nil {
		log.Print(err)
	}
	if err := source.Close(context.Background()); err != nil {
		log.Print(err)
	}
}
