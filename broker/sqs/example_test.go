package sqs_test

import (
	"context"
	"log"
	"os"
	"os/signal"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/sqs"
)

// consume works on the jobs until ctx ends. A job is deleted when work returns nil.
func consume(ctx context.Context, cfg aws.Config, work func(ctx context.Context, job []byte) error) error {
	source, err := sqs.Open(sqs.Config{
		Client:   awssqs.NewFromConfig(cfg), // cfg of config.LoadDefaultConfig
		QueueURL: "https://sqs.eu-central-1.amazonaws.com/123456789012/jobs",
	})
	if err != nil {
		return err
	}
	handle := func(ctx context.Context, m *broker.Message) error { return work(ctx, m.Body) }
	return broker.Consume(ctx, source, handle, broker.ConsumeConfig{})
}

func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	work := func(context.Context, []byte) error { return nil } // yours
	if err := consume(ctx, aws.Config{}, work); err != nil {
		log.Print(err)
	}
}
