package sqs_test

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/weir-go/weir/broker/brokertest"
)

// BenchmarkThroughput consumes messages with a demand of 64, with weir and with the client
// used by hand, in turns. It reports the medians of five rounds and their ratio.
func BenchmarkThroughput(b *testing.B) {
	const messages, rounds = 400, 5
	s := startServer(b)
	consume := map[string]func(context.Context, string, func()){
		"weir": s.consumeWithWeir, "by-hand": s.consumeByHand,
	}
	for b.Loop() {
		times := map[string][]time.Duration{}
		for round := range rounds {
			for name, run := range consume {
				queue := name + "-" + strconv.Itoa(round) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
				s.fill(b, queue, messages)
				var left atomic.Int64
				left.Store(messages)
				ctx, cancel := context.WithCancel(b.Context())
				began := time.Now()
				run(ctx, queue, func() {
					if left.Add(-1) == 0 {
						times[name] = append(times[name], time.Since(began))
						cancel()
					}
				})
				cancel()
				counts, err := s.Counts(b.Context(), queue)
				if err != nil || counts.Ready+counts.Unacked != 0 {
					b.Fatalf("got %+v, %v, want no message left", counts, err)
				}
			}
		}
		rate := func(name string) float64 {
			slices.Sort(times[name])
			return messages / times[name][rounds/2].Seconds()
		}
		b.ReportMetric(rate("weir"), "weir-messages/s")
		b.ReportMetric(rate("by-hand"), "by-hand-messages/s")
		b.ReportMetric(rate("weir")/rate("by-hand"), "ratio")
	}
}

func (s *server) fill(b *testing.B, queue string, n int) {
	b.Helper()
	do(b, s.Create(b.Context(), queue, brokertest.QueueConfig{}))
	for i := 0; i < n; i += 10 {
		in := &awssqs.SendMessageBatchInput{QueueUrl: aws.String(s.url(queue))}
		for j := range 10 {
			in.Entries = append(in.Entries, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(j)), MessageBody: aws.String("0123456789")})
		}
		_, err := s.client.SendMessageBatch(b.Context(), in)
		do(b, err)
	}
}

func (s *server) consumeWithWeir(ctx context.Context, queue string, done func()) {
	source, err := openAt(s.addr, queue, nil)
	if err != nil {
		slog.Error("open", "err", err)
		return
	}
	source.Request(64)
	var work sync.WaitGroup
	for range 64 {
		work.Go(func() {
			for {
				m, err := source.Next(ctx)
				if err != nil {
					return
				}
				if err := m.Ack(context.WithoutCancel(ctx)); err != nil {
					slog.Error("ack", "err", err)
				}
				source.Request(1)
				done()
			}
		})
	}
	work.Wait()
	_ = source.Close(context.WithoutCancel(ctx))
}

func (s *server) consumeByHand(ctx context.Context, queue string, done func()) {
	client, closeIdle := newClient(s.addr)
	defer closeIdle()
	quiet := context.WithoutCancel(ctx)
	url := aws.String(s.url(queue))
	free := make(chan struct{}, 64) // holds the demand
	for range 64 {
		free <- struct{}{}
	}
	var work sync.WaitGroup
	for ctx.Err() == nil {
		<-free
		demand := 1
		for len(free) > 0 && demand < 10 {
			<-free
			demand++
		}
		out, err := client.ReceiveMessage(quiet, &awssqs.ReceiveMessageInput{
			QueueUrl: url, MaxNumberOfMessages: int32(demand), WaitTimeSeconds: 1,
		})
		if err == nil {
			for _, m := range out.Messages {
				demand--
				work.Go(func() {
					if _, err := client.DeleteMessage(quiet, &awssqs.DeleteMessageInput{QueueUrl: url, ReceiptHandle: m.ReceiptHandle}); err != nil {
						slog.Error("delete", "err", err)
					}
					free <- struct{}{}
					done()
				})
			}
		}
		for range demand {
			free <- struct{}{}
		}
	}
	work.Wait()
}
