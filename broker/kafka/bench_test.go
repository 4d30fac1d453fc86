package kafka_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/weir-go/weir/broker/kafka"
)

// BenchmarkThroughput compares a source with a demand of 64 with franz-go by hand, which
// hands 64 records at a time to the handlers, and commits in the background. All handle the
// same records of 300 bytes with 64 goroutines. Rounds alternate, and each ratio is the
// quotient of the medians. By hand, the client fetches ahead as far as it likes, which is all
// of the topic at once. A second client by hand fetches as many bytes at a time as the
// source, and has another fetch waiting.
func BenchmarkThroughput(b *testing.B) {
	for _, brokers := range []int{1, 3} {
		for _, batch := range []int{1, 100} {
			b.Run(fmt.Sprintf("brokers=%d/batch=%d", brokers, batch), func(b *testing.B) {
				const parts, each = 6, 5000
				fake, err := kfake.NewCluster(kfake.NumBrokers(brokers), kfake.SeedTopics(parts, topic))
				if err != nil {
					b.Fatal(err)
				}
				defer fake.Close()
				fill(b, fake, parts, each, batch)
				var fetches fetchCount
				var source, hand, bounded []float64
				for round := range 5 * b.N {
					consumer := func(name string) string { return fmt.Sprint(name, round) }
					source = append(source, rate(parts*each, func() func() {
						return consume(b, fake, consumer("source"), parts*each, kgo.WithHooks(&fetches))
					}))
					hand = append(hand, rate(parts*each, func() func() { return byHand(b, fake, consumer("hand"), parts*each) }))
					bounded = append(bounded, rate(parts*each, func() func() {
						return byHand(b, fake, consumer("bounded"), parts*each, kgo.FetchMaxBytes(benchDemand*benchSize))
					}))
				}
				b.ReportMetric(median(source), "source/s")
				b.ReportMetric(median(hand), "hand/s")
				b.ReportMetric(median(source)/median(hand), "ratio")
				b.ReportMetric(median(source)/median(bounded), "bounded-ratio")
				b.ReportMetric(float64(len(source)*parts*each)/float64(fetches.Load()), "records/fetch")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// benchSize is the size of a batch of one record at the broker.
const benchSize = 371

// A fetchCount counts the fetches of a client.
type fetchCount struct{ atomic.Int64 }

func (c *fetchCount) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	if key == kmsg.Fetch.Int16() {
		c.Add(1)
	}
}

const benchDemand = 64

func fill(b *testing.B, fake *kfake.Cluster, parts int32, each, batch int) {
	opts := []kgo.Opt{kgo.SeedBrokers(fake.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner())}
	client, err := kgo.NewClient(append(opts, kgo.ProducerLinger(0), kgo.ProducerBatchMaxBytes(int32(max(512, 400*batch))),
		kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	var rs []*kgo.Record
	for p := range parts {
		for range each {
			rs = append(rs, &kgo.Record{Topic: topic, Partition: p, Value: make([]byte, 300)})
		}
	}
	if err := client.ProduceSync(b.Context(), rs...).FirstErr(); err != nil {
		b.Fatal(err)
	}
}

// consume takes n records from a source.
func consume(b *testing.B, fake *kfake.Cluster, group string, n int, opts ...kgo.Opt) func() {
	source, err := kafka.Open(kafka.Config{Seeds: fake.ListenAddrs(), Topics: []string{topic}, Group: group}, opts...)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var left counter
	left.left = n
	source.Request(benchDemand)
	var workers sync.WaitGroup
	for range benchDemand {
		workers.Go(func() {
			for {
				m, err := source.Next(ctx)
				if err != nil {
					return
				}
				if err := m.Ack(ctx); err != nil {
					b.Error(err)
				}
				source.Request(1)
				if left.done() {
					cancel()
				}
			}
		})
	}
	workers.Wait()
	return func() { _ = source.Close(b.Context()) }
}

// byHand takes n records with franz-go alone.
func byHand(b *testing.B, fake *kfake.Cluster, group string, n int, opts ...kgo.Opt) func() {
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(fake.ListenAddrs()...), kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.AutoCommitMarks(), kgo.AutoCommitInterval(100*time.Millisecond))...)
	if err != nil {
		b.Fatal(err)
	}
	var left counter
	left.left = n
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	work := make(chan *kgo.Record)
	var workers sync.WaitGroup
	for range benchDemand {
		workers.Go(func() {
			for r := range work {
				client.MarkCommitRecords(r)
				if left.done() {
					cancel()
				}
			}
		})
	}
	for ctx.Err() == nil {
		client.PollRecords(ctx, benchDemand).EachRecord(func(r *kgo.Record) { work <- r })
	}
	close(work)
	workers.Wait()
	return client.Close
}

// A counter counts down to the last record.
type counter struct {
	mu   sync.Mutex
	left int
}

func (c *counter) done() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left--
	return c.left == 0
}

// rate returns records a second. What f returns runs outside of the time.
func rate(n int, f func() func()) float64 {
	began := time.Now()
	end := f()
	took := time.Since(began)
	end()
	return float64(n) / took.Seconds()
}

func median(s []float64) float64 {
	s = slices.Sorted(slices.Values(s))
	return s[len(s)/2]
}
