package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/redis"
)

// onRedis runs the incident on a stream of Redis. Both consumers are groups of it.
var onRedis = kind{
	title: "Redis Streams", load: usualLoad, missing: func() error { return needs("redis-server", "Debian's package redis-server") },
	serve: serveRedis, connect: connectRedis, bare: bareRedis, source: sourceRedis,
}

func serveRedis(ctx context.Context) (string, func(), error) {
	run := func(dir, port string) (*launched, error) {
		args := []string{"--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--daemonize", "no"}
		return launch(dir, "redis-server", args, nil)
	}
	return serveProgram(ctx, run, func(ctx context.Context, addr string) error {
		client := goredis.NewClient(&goredis.Options{Addr: addr})
		defer client.Close()
		return client.Ping(ctx).Err()
	})
}

// bodyField is the default of the source.
const bodyField = "body"

// bareRedis reads in a loop, and passes on to workers.
func bareRedis(addr string, pay func([]byte)) error {
	ctx, client := context.Background(), goredis.NewClient(&goredis.Options{Addr: addr})
	q := newQueue(func(m goredis.XMessage) {
		body, _ := m.Values[bodyField].(string)
		pay([]byte(body))
		_ = client.XAck(ctx, topic, roleBare, m.ID).Err() // or another consumer claims it
	})
	for {
		streams, err := client.XReadGroup(ctx, &goredis.XReadGroupArgs{
			Group: roleBare, Consumer: "1", Streams: []string{topic, ">"}, Count: 100, Block: 5 * time.Second,
		}).Result()
		if err != nil && !errors.Is(err, goredis.Nil) {
			return err
		}
		for _, s := range streams {
			for _, m := range s.Messages {
				q.put(m)
			}
		}
	}
}

func sourceRedis(_ context.Context, addr string) (broker.Source, error) {
	return redis.Open(redis.Config{
		Redis:  goredis.UniversalOptions{Addrs: []string{addr}},
		Stream: topic, Group: roleWeir, DeadLetters: dead,
	})
}

type redisServer struct{ client *goredis.Client }

func connectRedis(ctx context.Context, addr string) (server, error) {
	s := &redisServer{goredis.NewClient(&goredis.Options{Addr: addr})}
	return s, errors.Join(
		s.client.XGroupCreateMkStream(ctx, topic, roleBare, "0").Err(),
		s.client.XGroupCreateMkStream(ctx, topic, roleWeir, "0").Err(),
	)
}

func (s *redisServer) publish(ctx context.Context, payments [][]byte) error {
	_, err := s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for _, body := range payments {
			p.XAdd(ctx, &goredis.XAddArgs{Stream: topic, Values: []any{bodyField, body}})
		}
		return nil
	})
	return err
}

func (s *redisServer) backlog(ctx context.Context, consumer string) (backlog, error) {
	groups, err := s.client.XInfoGroups(ctx, topic).Result()
	if err != nil {
		return backlog{}, err
	}
	for _, g := range groups {
		if g.Name == consumer {
			return backlog{Left: int(g.Lag + g.Pending), Held: int(g.Pending)}, nil
		}
	}
	return backlog{}, fmt.Errorf("there is no group %s", consumer)
}

func (s *redisServer) close() { _ = s.client.Close() }
