// Package sqs is a source of messages from a queue of Amazon SQS, standard or FIFO.
//
// A request asks SQS for at most as many messages as were requested, and for ten at most.
// Without demand there is none. A message is deleted when it was consumed. While it is held,
// its visibility timeout is extended.
//
//	source, err := sqs.Open(sqs.Config{
//		Client:   awssqs.NewFromConfig(cfg),
//		QueueURL: "https://sqs.eu-central-1.amazonaws.com/123456789012/jobs",
//	})
package sqs
