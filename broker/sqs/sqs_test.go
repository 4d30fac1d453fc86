package sqs_test

import (
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/brokertest"
)

// TestQueueIsDeleted deletes a queue of a real server under a consumer.
func TestQueueIsDeleted(t *testing.T) {
	s := startServer(t)
	ctx := t.Context()
	do(t, s.Create(ctx, "jobs", brokertest.QueueConfig{}))
	do(t, s.Publish(ctx, "jobs", broker.Message{Body: []byte("a")}))
	source, err := openAt(s.addr, "jobs", nil)
	do(t, err)
	m := take(t, source, 1)[0]
	_, err = s.client.DeleteQueue(ctx, &awssqs.DeleteQueueInput{QueueUrl: aws.String(s.url("jobs"))})
	do(t, err)
	if err := m.Ack(ctx); !errors.Is(err, broker.ErrSettled) {
		t.Errorf("Ack: got %v, want ErrSettled", err)
	}
	source.Request(1)
	if _, err := source.Next(ctx); !errors.Is(err, broker.ErrPermanent) {
		t.Errorf("Next: got %v, want ErrPermanent", err)
	}
	began := time.Now()
	do(t, source.Close(ctx))
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("Close took %v, want less than the time for a farewell", took)
	}
}
