package kafka_test

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/brokertest"
	"github.com/weir-go/weir/broker/kafka"
)

// TestConformance runs the suite of all brokers against kfake, on loopback.
func TestConformance(t *testing.T) {
	brokertest.Run(t, brokertest.Broker{
		Start: func(t testing.TB) brokertest.Server { return serve(t) },
		Open: func(ctx context.Context, c brokertest.Consumer) (broker.Source, error) {
			source, err := openThrough(ctx, c)
			if err == nil && c.Name == "worker-2" && strings.HasPrefix(c.Queue, "share-") {
				// A real broker waits for further members before it hands out partitions
				// (group.initial.rebalance.delay.ms, 3 s). kfake does not.
				_, err = running.cluster().WaitGroupStable(ctx, c.Queue, 2)
			}
			return source, err
		},
		// A fetch brings whole batches of a mean size. What was settled is still counted until
		// its offset is committed.
		Slack:        8,
		RestRequests: 12, // a heartbeat each second, and a report of metrics
		Ignore:       []string{"franz-go/pkg/kfake."},
	})
}

// sources are the open sources of this process, which commit before the server counts.
var sources struct {
	sync.Mutex
	flush map[string][]func(context.Context) error // by topic
}

// openThrough makes a source all of whose connections go through the proxy.
func openThrough(_ context.Context, c brokertest.Consumer) (broker.Source, error) {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, c.Addr)
	}
	source, flush, err := kafka.OpenFlushed(kafka.Config{
		Seeds: []string{c.Addr}, Group: c.Queue, Topics: []string{c.Queue}, DeadLetterTopic: deadOf(c.Queue),
		MaxBytes: c.ByteWindow, CommitInterval: time.Millisecond,
	}, kgo.ClientID(c.Name), kgo.Dialer(dial), kgo.SessionTimeout(3*time.Second), kgo.HeartbeatInterval(time.Second),
		// A join on a connection that has gone silent takes the sum of these.
		kgo.RebalanceTimeout(4*time.Second), kgo.RequestTimeoutOverhead(4*time.Second))
	if err != nil {
		return nil, err
	}
	sources.Lock()
	defer sources.Unlock()
	if sources.flush == nil {
		sources.flush = map[string][]func(context.Context) error{}
	}
	sources.flush[c.Queue] = append(sources.flush[c.Queue], flush)
	return source, nil
}

func deadOf(queue string) string { return queue + ".dead" }

// A server is kfake with its data on disk, as the suite wants it.
type server struct {
	*tap
	dir  string
	port int

	mu     sync.Mutex // guards the fields below
	fake   *kfake.Cluster
	client *kgo.Client
}

// running is the server of this process.
var running *server

func serve(t testing.TB) *server {
	s := &server{tap: newTap(), dir: t.TempDir()}
	running = s
	if err := s.Restart(); err != nil {
		t.Fatalf("kfake: %v", err)
	}
	t.Cleanup(func() {
		s.client.Close()
		s.fake.Close()
	})
	return s
}

func (s *server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

func (s *server) Stop() error {
	s.cluster().Close()
	return nil
}

func (s *server) Restart() error {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(s.port), kfake.DataDir(s.dir), kfake.SyncWrites(),
		kfake.GroupMinSessionTimeout(time.Second), kfake.ListenFn(func(network, addr string) (net.Listener, error) {
			l, err := net.Listen(network, addr)
			if err != nil {
				return nil, err
			}
			return s.listen(l), nil
		}))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fake = fake
	if s.client != nil {
		return nil
	}
	_, port, _ := net.SplitHostPort(fake.ListenAddrs()[0])
	s.port, _ = strconv.Atoi(port)
	// One record a batch, so that a batch is the unit in which the suite counts.
	s.client, err = kgo.NewClient(kgo.SeedBrokers(s.Addr()), kgo.MaxBufferedRecords(1), kgo.MaxProduceRequestsInflightPerBroker(1),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	return err
}

func (s *server) cluster() *kfake.Cluster {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fake
}

// Create makes four partitions for each worker if there are several.
func (s *server) Create(_ context.Context, queue string, c brokertest.QueueConfig) error {
	partitions := int32(1)
	if c.Workers > 1 {
		partitions = int32(4 * c.Workers)
	}
	if err := s.cluster().CreateTopic(deadOf(queue), 1, nil); err != nil {
		return err
	}
	return s.cluster().CreateTopic(queue, partitions, nil)
}

func (s *server) Publish(ctx context.Context, queue string, msgs ...broker.Message) error {
	for _, m := range msgs {
		r := &kgo.Record{Topic: queue, Value: m.Body}
		if m.Key != "" {
			r.Key = []byte(m.Key)
		}
		for _, k := range sortedKeys(m.Attributes) {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: k, Value: []byte(m.Attributes[k])})
		}
		if err := s.client.ProduceSync(ctx, r).FirstErr(); err != nil {
			return err
		}
	}
	return nil
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	var keys []K
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Counts takes a record for unacknowledged if it was sent on a connection that is still
// open and its offset is not committed.
func (s *server) Counts(ctx context.Context, queue string) (brokertest.Counts, error) {
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	sources.Lock()
	flush := slices.Clone(sources.flush[queue])
	sources.Unlock()
	for _, f := range flush {
		_ = f(short) // a source that is closed or in a rebalance commits nothing
	}
	if err := ctx.Err(); err != nil {
		return brokertest.Counts{}, err // a commit that was given up says nothing
	}
	fake := s.cluster()
	at := committed(fake, queue)
	var left int64
	for _, p := range fake.PartitionInfos(queue) {
		left += p.HighWatermark - at[spot{queue, p.Partition}]
	}
	unacked := min(left, s.ahead(queue, at))
	return brokertest.Counts{Ready: int(left - unacked), Unacked: int(unacked)}, nil
}

func (s *server) DeadLetters(ctx context.Context, queue string) ([]brokertest.DeadLetter, error) {
	n := int(s.cluster().PartitionInfo(deadOf(queue), 0).HighWatermark)
	client, err := kgo.NewClient(kgo.SeedBrokers(s.Addr()), kgo.ConsumeTopics(deadOf(queue)))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var dead []brokertest.DeadLetter
	for len(dead) < n {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("dead letters: %w", err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			letter := brokertest.DeadLetter{Body: r.Value}
			for _, h := range r.Headers {
				if h.Key == kafka.HeaderReason {
					letter.Reason = string(h.Value)
				}
			}
			dead = append(dead, letter)
		})
	}
	return dead, nil
}
