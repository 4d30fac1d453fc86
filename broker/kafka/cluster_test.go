package kafka_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A cluster is a Kafka server in this process, with a tap on its connections in memory.
type cluster struct {
	*kfake.Cluster
	*tap
	addrs   []string
	network kfake.VirtualNetwork
}

func start(t testing.TB, brokers int, opts ...kfake.Opt) *cluster {
	t.Helper()
	c := &cluster{tap: newTap()}
	ports := make([]int, brokers)
	for i := range ports {
		ports[i] = 9000 + i
	}
	fake, err := kfake.NewCluster(append(opts, kfake.Ports(ports...), kfake.ListenFn(c.listenInMemory))...)
	if err != nil {
		t.Fatalf("kfake: %v", err)
	}
	c.Cluster, c.addrs = fake, fake.ListenAddrs()
	t.Cleanup(fake.Close)
	return c
}

// client returns a client for the tests themselves.
func (c *cluster) client(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(c.addrs...), c.dialer())...)
	if err != nil {
		t.Fatalf("client: %v", err)
	}
	t.Cleanup(client.Close)
	return client
}

// committed returns the offsets that the group has stored.
func (c *cluster) committed(group string) map[spot]int64 { return committed(c.Cluster, group) }

func committed(c *kfake.Cluster, group string) map[spot]int64 {
	at := map[spot]int64{}
	info := c.GroupInfo(group)
	if info == nil {
		return at
	}
	for topic, parts := range info.Commits {
		for p, commit := range parts {
			at[spot{topic, p}] = commit.Offset
		}
	}
	return at
}

// produce writes records, each a batch of its own if single is true.
func (c *cluster) produce(t testing.TB, single bool, records ...*kgo.Record) {
	t.Helper()
	opts := []kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner())}
	if single {
		opts = append(opts, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(1))
	}
	client := c.client(t, opts...)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if !single {
		if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
			t.Fatalf("produce: %v", err)
		}
		return
	}
	for _, r := range records {
		if err := client.ProduceSync(ctx, r).FirstErr(); err != nil {
			t.Fatalf("produce: %v", err)
		}
	}
}

// dialer connects to the brokers in memory, so that all runs in a bubble of synctest.
func (c *cluster) dialer() kgo.Opt { return kgo.Dialer(c.network.DialContext) }

func (c *cluster) listenInMemory(network, addr string) (net.Listener, error) {
	l, err := c.network.Listen(network, addr)
	if err != nil {
		return nil, err
	}
	return c.listen(l), nil
}

// kfakeTopic makes the topics of the tests.
func kfakeTopic(partitions int32) kfake.Opt { return kfake.SeedTopics(partitions, topic, dead) }

// kick makes the group forget its member, as after a session timeout.
func (c *cluster) kick(t testing.TB) {
	t.Helper()
	c.ControlKey(kmsg.Heartbeat.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
		resp.ErrorCode = kerr.UnknownMemberID.Code
		return resp, nil, true
	})
}

// deleteTopic deletes the topic of the tests with its records.
func (c *cluster) deleteTopic(t testing.TB) {
	t.Helper()
	named := kmsg.NewDeleteTopicsRequestTopic()
	named.Topic = new(topic)
	req := kmsg.NewDeleteTopicsRequest()
	req.TopicNames, req.Topics = []string{topic}, []kmsg.DeleteTopicsRequestTopic{named}
	if _, err := req.RequestWith(t.Context(), c.client(t)); err != nil {
		t.Fatalf("delete the topic: %v", err)
	}
}
