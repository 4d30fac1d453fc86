package main

import (
	"context"
	"errors"
	"os"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-go/weir/broker"
	weirnats "github.com/weir-go/weir/broker/nats"
)

// onNATS runs the incident on JetStream. Both consumers are durable consumers of one stream.
var onNATS = kind{
	title: "NATS JetStream", load: usualLoad, missing: none,
	serve: serveNATS, connect: connectNATS, bare: bareNATS, source: sourceNATS,
}

// deadSubject is not a subject of the stream.
const deadSubject = "dead." + topic

func serveNATS(context.Context) (string, func(), error) {
	dir, err := os.MkdirTemp("", "weir-incident-")
	if err != nil {
		return "", nil, err
	}
	remove := func() { _ = os.RemoveAll(dir) }
	s, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true,
	})
	if err != nil {
		remove()
		return "", nil, err
	}
	s.Start()
	stop := func() {
		s.Shutdown()
		s.WaitForShutdown()
		remove()
	}
	if !s.ReadyForConnections(startTime) {
		stop()
		return "", nil, errors.New("nats-server is not ready")
	}
	return s.ClientURL(), stop, nil
}

func dialNATS(url string) (*nats.Conn, jetstream.JetStream, error) {
	nc, err := nats.Connect(url, nats.MaxReconnects(-1))
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc)
	return nc, js, err
}

// bareNATS has Consume fetch far ahead, and its callback return at once. The callback would
// else hold up the client, which drops messages when 64 MiB wait for it.
func bareNATS(url string, pay func([]byte)) error {
	_, js, err := dialNATS(url)
	if err != nil {
		return err
	}
	consumer, err := js.Consumer(context.Background(), topic, roleBare)
	if err != nil {
		return err
	}
	q := newQueue(func(m jetstream.Msg) {
		pay(m.Data())
		_ = m.Ack() // or it comes again
	})
	consuming, err := consumer.Consume(q.put, jetstream.PullMaxMessages(10_000))
	if err != nil {
		return err
	}
	<-consuming.Closed()
	return errors.New("the subscription has ended")
}

func sourceNATS(ctx context.Context, url string) (broker.Source, error) {
	_, js, err := dialNATS(url)
	if err != nil {
		return nil, err
	}
	return weirnats.Open(ctx, js, weirnats.Config{Stream: topic, Consumer: roleWeir, DeadLetter: deadSubject})
}

type natsServer struct {
	nc *nats.Conn
	js jetstream.JetStream
}

// connectNATS makes the streams and the consumers. The bare one has no MaxAckPending, or
// fetching ahead of 1,000 messages would have no effect.
func connectNATS(ctx context.Context, url string) (server, error) {
	nc, js, err := dialNATS(url)
	if err != nil {
		return nil, err
	}
	for name, subject := range map[string]string{topic: topic, "dead": deadSubject} {
		_, errStream := js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{subject}})
		err = errors.Join(err, errStream)
	}
	for name, pending := range map[string]int{roleBare: -1, roleWeir: 0} {
		_, errConsumer := js.CreateConsumer(ctx, topic, jetstream.ConsumerConfig{
			Durable: name, AckPolicy: jetstream.AckExplicitPolicy, AckWait: 30 * time.Second, MaxAckPending: pending,
		})
		err = errors.Join(err, errConsumer)
	}
	return &natsServer{nc, js}, err
}

func (s *natsServer) publish(ctx context.Context, payments [][]byte) error {
	acks := make([]jetstream.PubAckFuture, len(payments))
	for i, p := range payments {
		var err error
		if acks[i], err = s.js.PublishAsync(topic, p); err != nil {
			return err
		}
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *natsServer) backlog(ctx context.Context, consumer string) (backlog, error) {
	c, err := s.js.Consumer(ctx, topic, consumer)
	if err != nil {
		return backlog{}, err
	}
	info := c.CachedInfo()
	return backlog{Left: int(info.NumPending) + info.NumAckPending, Held: info.NumAckPending}, nil
}

func (s *natsServer) close() { s.nc.Close() }
