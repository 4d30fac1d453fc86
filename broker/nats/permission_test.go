package nats_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-go/weir/broker"
	weirnats "github.com/weir-go/weir/broker/nats"
)

// users returns an administrator and, with its permissions, the user of the source.
func users(p *server.Permissions) []*server.User {
	return []*server.User{{Username: "admin", Password: "a"}, {Username: "worker", Password: "w", Permissions: p}}
}

// guard starts a server with users, and returns a source of theirs and the way to change
// them.
func guard(t *testing.T, onError func(error)) (*fixture, broker.Source, func([]*server.User)) {
	t.Helper()
	options := server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true, Users: users(nil)}
	s, err := server.NewServer(options.Clone())
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("nats-server is not ready")
	}
	dial := func(user, password string) *fixture {
		nc, err := nats.Connect(s.ClientURL(), nats.UserInfo(user, password), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		return &fixture{nc, js}
	}
	admin, worker := dial("admin", "a"), dial("worker", "w")
	admin.stream(t, "JOBS", "jobs.>")
	admin.consumer(t, func(c *jetstream.ConsumerConfig) { c.AckWait = 4 * time.Second })
	source := worker.open(t, weirnats.Config{Source: broker.SourceConfig{OnError: onError}})
	return admin, source, func(us []*server.User) {
		t.Helper()
		o := options.Clone()
		o.Users = us
		if err := s.ReloadOptions(o); err != nil {
			t.Fatal(err)
		}
	}
}

// A user that may neither fetch nor acknowledge for a while goes on when it may again.
func TestPermissionIsRevoked(t *testing.T) {
	t.Parallel()
	var told atomic.Bool
	admin, source, change := guard(t, func(err error) {
		if strings.Contains(err.Error(), "JOBS") && errors.Is(err, nats.ErrPermissionViolation) {
			told.Store(true)
		}
	})
	for range 5 {
		admin.publish(t, "jobs.a", "x", nil)
	}
	source.Request(2)
	held := next(t, source)
	change(users(&server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.>"}}}))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := held.Ack(ctx); err == nil {
		t.Error("Ack without permission = nil, want an error")
	}
	_ = next(t, source).Ack(ctx)
	source.Request(3)
	for end := time.Now().Add(time.Minute); !told.Load(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("OnError got nothing about the stream JOBS and its permission")
		}
	}
	change(users(nil))
	_ = held.Ack(t.Context())
	for admin.left(t) > 0 {
		if err := next(t, source).Ack(t.Context()); err != nil && !errors.Is(err, broker.ErrSettled) {
			t.Fatal(err)
		}
		source.Request(1)
	}
}

// left returns how many messages are not acknowledged.
func (f *fixture) left(t *testing.T) int {
	t.Helper()
	c, err := f.js.Consumer(t.Context(), "JOBS", worker)
	if err != nil {
		t.Fatal(err)
	}
	is := c.CachedInfo()
	return int(is.NumPending) + is.NumAckPending
}

// The client gives up when its user is unknown twice. Next says so.
func TestUserIsRemoved(t *testing.T) {
	t.Parallel()
	_, source, change := guard(t, nil)
	source.Request(1)
	change(users(nil)[:1])
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := source.Next(ctx); !errors.Is(err, broker.ErrPermanent) || !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("Next = %v, want %v and %v", err, broker.ErrPermanent, nats.ErrAuthorization)
	}
}
