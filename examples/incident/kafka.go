package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/kafka"
)

// onKafka runs the incident on kfake. Both consumers are groups of one topic.
var onKafka = kind{
	title: "Kafka", load: usualLoad, missing: none,
	serve: serveKafka, connect: connectKafka, bare: bareKafka, source: sourceKafka,
}

const partitions = 4

func serveKafka(context.Context) (string, func(), error) {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic, dead))
	if err != nil {
		return "", nil, err
	}
	return fake.ListenAddrs()[0], fake.Close, nil
}

// bareKafka is the consumer of the incident. It puts the records that it polls into a queue
// without a bound. Once a second the client commits the records that it has polled.
func bareKafka(addr string, pay func([]byte)) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumerGroup(roleBare), kgo.ConsumeTopics(topic),
		kgo.AutoCommitInterval(time.Second))
	if err != nil {
		return err
	}
	q := newQueue(func(r *kgo.Record) { pay(r.Value) })
	for {
		fetches := client.PollFetches(context.Background())
		if err := fetches.Err0(); err != nil {
			return err
		}
		fetches.EachRecord(q.put)
	}
}

func sourceKafka(_ context.Context, addr string) (broker.Source, error) {
	return kafka.Open(kafka.Config{Seeds: []string{addr}, Group: roleWeir, Topics: []string{topic}, DeadLetterTopic: dead})
}

type kafkaServer struct {
	client    *kgo.Client
	published atomic.Int64
}

func connectKafka(_ context.Context, addr string) (server, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	return &kafkaServer{client: client}, err
}

func (s *kafkaServer) publish(ctx context.Context, payments [][]byte) error {
	records := make([]*kgo.Record, len(payments))
	first := s.published.Load()
	for i, p := range payments {
		records[i] = &kgo.Record{Topic: topic, Partition: int32((first + int64(i)) % partitions), Value: p}
	}
	if err := s.client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return err
	}
	s.published.Add(int64(len(payments)))
	return nil
}

// backlog returns the number of records that the group has not committed. The broker does
// not know how many of them the consumer has fetched.
func (s *kafkaServer) backlog(ctx context.Context, consumer string) (backlog, error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	group := kmsg.NewOffsetFetchRequestGroup()
	group.Group, req.Group = consumer, consumer
	req.Groups = append(req.Groups, group)
	resp, err := req.RequestWith(ctx, s.client)
	if err != nil {
		return backlog{}, err
	}
	left := int(s.published.Load())
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				left -= int(max(0, p.Offset))
			}
		}
	}
	return backlog{Left: left, Held: -1}, nil
}

func (s *kafkaServer) close() { s.client.Close() }
