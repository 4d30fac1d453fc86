package redis_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/brokertest"
	"github.com/weir-go/weir/broker/internal/servertest"
	"github.com/weir-go/weir/broker/redis"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if shared != nil {
		shared.end()
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, "leak:", err)
		code = 1
	}
	os.Exit(code)
}

// shared is the server of the tests that stop none. It is started once.
var shared *server

// sharedServer returns the shared server, without data.
func sharedServer(t testing.TB) *server {
	t.Helper()
	if shared == nil {
		shared = start(t)
	}
	do(t, shared.client.FlushAll(t.Context()).Err())
	return shared
}

// group is the consumer group of all tests.
const group = "workers"

// A server is a process of redis-server that keeps its data on disk.
type server struct {
	servertest.Process

	addr   string
	dir    string
	client *goredis.Client
}

var _ brokertest.Server = (*server)(nil)

// startServer starts a server for one test.
func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	s := start(t, args...)
	t.Cleanup(s.end)
	return s
}

// start starts a server, or skips the test where there is none. With WEIR_BROKERS=required
// it fails instead.
func start(t testing.TB, args ...string) *server {
	t.Helper()
	_, missing := exec.LookPath("redis-server")
	servertest.Require(t, "redis-server (Debian's package redis-server)", missing)
	dir, err := os.MkdirTemp("", "weir-redis-") //nolint:usetesting // the shared server outlives a test
	do(t, err)
	s := &server{addr: servertest.FreeAddr(t), dir: dir}
	_, port, _ := net.SplitHostPort(s.addr)
	args = append([]string{
		"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "yes",
		"--appendfsync", "always", "--daemonize", "no",
	}, args...)
	s.client = goredis.NewClient(&goredis.Options{Addr: s.addr, PoolSize: 20})
	s.Command = func() *exec.Cmd { return exec.CommandContext(context.Background(), "redis-server", args...) }
	s.Ready = func(ctx context.Context) error { return s.client.Ping(ctx).Err() }
	if err := s.Restart(); err != nil {
		s.end()
		t.Fatal(err)
	}
	return s
}

// end stops the server for good.
func (s *server) end() {
	_ = s.client.Close()
	_ = s.Stop()
	_ = os.RemoveAll(s.dir)
}

func (s *server) Addr() string { return s.addr }

func (s *server) Create(ctx context.Context, queue string, _ brokertest.QueueConfig) error {
	return s.client.XGroupCreateMkStream(ctx, queue, group, "0").Err()
}

func (s *server) Publish(ctx context.Context, queue string, msgs ...broker.Message) error {
	_, err := s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for _, m := range msgs {
			values := []any{"body", m.Body, "key", m.Key}
			for name, value := range m.Attributes {
				values = append(values, name, value)
			}
			p.XAdd(ctx, &goredis.XAddArgs{Stream: queue, Values: values})
		}
		return nil
	})
	return err
}

// Counts counts entries that belong to the consumer weir-given-back as ready.
func (s *server) Counts(ctx context.Context, queue string) (c brokertest.Counts, err error) {
	cmds, err := s.client.TxPipelined(ctx, func(p goredis.Pipeliner) error {
		p.XInfoGroups(ctx, queue)
		p.XInfoConsumers(ctx, queue, group)
		return nil
	})
	if err != nil {
		return c, err
	}
	for _, g := range cmds[0].(*goredis.XInfoGroupsCmd).Val() {
		c.Ready += int(g.Lag)
	}
	for _, consumer := range cmds[1].(*goredis.XInfoConsumersCmd).Val() {
		if consumer.Name == "weir-given-back" {
			c.Ready += int(consumer.Pending)
		} else {
			c.Unacked += int(consumer.Pending)
		}
	}
	return c, nil
}

func (s *server) DeadLetters(ctx context.Context, queue string) (letters []brokertest.DeadLetter, err error) {
	entries, err := s.client.XRange(ctx, queue+".dead", "-", "+").Result()
	for _, e := range entries {
		body, _ := e.Values["body"].(string)
		reason, _ := e.Values["weir-reason"].(string)
		letters = append(letters, brokertest.DeadLetter{Body: []byte(body), Reason: reason})
	}
	return letters, err
}

// config returns the configuration of a source for a stream.
func config(addr, stream string) redis.Config {
	return redis.Config{
		Redis: goredis.UniversalOptions{Addrs: []string{addr}}, Stream: stream, Group: group,
		DeadLetters: stream + ".dead", Poll: 100 * time.Millisecond,
		Source: broker.SourceConfig{Logger: slog.New(slog.DiscardHandler)},
	}
}
