package sqs_test

import (
	"context"
	"fmt"
	"log"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/weir-go/weir/broker/sqs"
)

func Example() {
	var cfg aws.Config // of config.LoadDefaultConfig
	source, err := sqs.Open(sqs.Config{
		Client:   awssqs.NewFromConfig(cfg),
		QueueURL: "https://sqs.eu-central-1.amazonaws.com/123456789012/jobs",
	})
	if err != nil {
		log.Fatal(err)
	}
	source.Request(1)
	m, err := source.Next(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", m.Body)
	if err := m.Ack(context.Background()); err != nil {
		log.Print(err)
	}
	if err := source.Close(context.Background()); err != nil {
		log.Print(err)
	}
}
