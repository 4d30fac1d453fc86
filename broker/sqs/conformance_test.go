package sqs_test

import (
	"context"
	"strings"
	"testing"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/brokertest"
	"github.com/weir-go/weir/broker/sqs"
)

// An oldServer asks for system attributes as the server of the tests understands it.
type oldServer struct{ *awssqs.Client }

func (o oldServer) ReceiveMessage(ctx context.Context, in *awssqs.ReceiveMessageInput, options ...func(*awssqs.Options)) (*awssqs.ReceiveMessageOutput, error) {
	for _, name := range in.MessageSystemAttributeNames {
		in.AttributeNames = append(in.AttributeNames, types.QueueAttributeName(name)) //nolint:staticcheck // deprecated
	}
	return o.Client.ReceiveMessage(ctx, in, options...)
}

// A closing source closes the connections of its client, too.
type closing struct {
	broker.Source

	done func()
}

func (c closing) Close(ctx context.Context) error {
	defer c.done()
	return c.Source.Close(ctx)
}

// openAt makes a source for a queue of the server at addr.
func openAt(addr, queue string, change func(*sqs.Config)) (broker.Source, error) {
	client, done := newClient(addr)
	c := sqs.Config{Client: oldServer{client}, QueueURL: queueURL(addr, queue), Wait: time.Second}
	if change != nil {
		change(&c)
	}
	source, err := sqs.Open(c)
	if err != nil {
		return nil, err
	}
	return closing{source, done}, nil
}

// A keyed server makes a FIFO queue for the check of keys, because other queues have none.
type keyed struct{ *server }

func keyedName(queue string) string {
	if strings.HasPrefix(queue, "keys-") {
		return queue + ".fifo"
	}
	return queue
}

func (k keyed) Create(ctx context.Context, queue string, c brokertest.QueueConfig) error {
	return k.server.Create(ctx, keyedName(queue), c)
}

func (k keyed) Publish(ctx context.Context, queue string, msgs ...broker.Message) error {
	return k.server.Publish(ctx, keyedName(queue), msgs...)
}

func (k keyed) Counts(ctx context.Context, queue string) (brokertest.Counts, error) {
	return k.server.Counts(ctx, keyedName(queue))
}

// TestConformance runs the checks that all brokers have to pass.
func TestConformance(t *testing.T) {
	brokertest.Run(t, brokertest.Broker{
		Start: func(t testing.TB) brokertest.Server { return keyed{startServer(t)} },
		Open: func(_ context.Context, c brokertest.Consumer) (broker.Source, error) {
			return openAt(c.Addr, keyedName(c.Queue), func(conf *sqs.Config) {
				conf.Visibility = c.AckTimeout
				if keyedName(c.Queue) != c.Queue {
					conf.Receives = 1 // unlike SQS, this server does not lock the group of a message
				}
			})
		},
		AckTimeout: time.Second,
		Without: map[string]string{
			"empty":   "SQS takes no message without a body",
			"restart": "the server of the tests keeps everything in memory",
		},
	})
}
