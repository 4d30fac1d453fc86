package sqs_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/sqs"
)

func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var cfg aws.Config // of config.LoadDefaultConfig
	source, err := sqs.Open(sqs.Config{
		Client:   awssqs.NewFromConfig(cfg),
		QueueURL: "https://sqs.eu-central-1.amazonaws.com/123456789012/jobs",
	})
	if err != nil {
		log.Fatal(err)
	}
	err = broker.Consume(ctx, source, func(ctx context.Context, m *broker.Message) error {
		fmt.Printf("%s, attempt %d\n", m.Body, m.Attempt)
		return nil // deletes
	}, broker.ConsumeConfig{})
	if err != nil {
		log.Print(err)
	}
}
