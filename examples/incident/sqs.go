package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/sqs"
)

// onSQS runs the incident on local-aws-sqs, a server of SQS for tests. Each consumer has a
// queue. The server copes with a few MiB a second, so payments are smaller, and the memory
// is less.
var onSQS = kind{
	title: "Amazon SQS", load: load{size: 12 << 10, memory: 56 * mib}, missing: func() error {
		_, err := scriptSQS()
		return errors.Join(needs("node", "Debian's package nodejs"), err)
	},
	serve: serveSQS, connect: connectSQS, bare: bareSQS, source: sourceSQS,
}

// scriptSQS returns the path of the server's script, which lies in this tree. Its package is
// beside it once it is installed.
func scriptSQS() (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := here; ; dir = filepath.Dir(dir) {
		node := filepath.Join(dir, "broker", "sqs", "node")
		if _, err := os.Stat(filepath.Join(node, "node_modules", "local-aws-sqs")); err == nil {
			return filepath.Join(node, "sqs.js"), nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("there is no broker/sqs/node/node_modules/local-aws-sqs above %s (make node installs it)", here)
		}
	}
}

func serveSQS(ctx context.Context) (string, func(), error) {
	script, err := scriptSQS()
	if err != nil {
		return "", nil, err
	}
	run := func(dir, port string) (*launched, error) { return launch(dir, "node", []string{script, port}, nil) }
	return serveProgram(ctx, run, func(ctx context.Context, addr string) error {
		_, err := clientSQS(addr).ListQueues(ctx, new(awssqs.ListQueuesInput))
		return err
	})
}

func clientSQS(addr string) *awssqs.Client {
	return awssqs.New(awssqs.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://" + addr),
		Credentials: credentials.NewStaticCredentialsProvider("x", "x", ""),
	})
}

func urlSQS(addr, queue string) string { return "http://" + addr + "/123456789012/" + queue }

// bareSQS receives in a loop, and passes on to workers, which delete. Most programs wait for
// 20 s. SQS answers as soon as it has messages, but this server waits for ten of them.
func bareSQS(addr string, pay func([]byte)) error {
	ctx, client, url := context.Background(), clientSQS(addr), aws.String(urlSQS(addr, roleBare))
	q := newQueue(func(m types.Message) {
		pay([]byte(aws.ToString(m.Body)))
		// An error means that the message comes again.
		_, _ = client.DeleteMessage(ctx, &awssqs.DeleteMessageInput{QueueUrl: url, ReceiptHandle: m.ReceiptHandle})
	})
	for {
		out, err := client.ReceiveMessage(ctx, &awssqs.ReceiveMessageInput{
			QueueUrl: url, MaxNumberOfMessages: mostSQS, WaitTimeSeconds: 1,
		})
		if err != nil {
			return err
		}
		for _, m := range out.Messages {
			q.put(m)
		}
	}
}

// mostSQS is the number of messages of a request.
const mostSQS = 10

func sourceSQS(_ context.Context, addr string) (broker.Source, error) {
	return sqs.Open(sqs.Config{Client: clientSQS(addr), QueueURL: urlSQS(addr, roleWeir), DeadLetterURL: urlSQS(addr, "dead")})
}

type sqsServer struct {
	client *awssqs.Client
	addr   string
}

func connectSQS(ctx context.Context, addr string) (server, error) {
	s := &sqsServer{clientSQS(addr), addr}
	for _, queue := range []string{roleBare, roleWeir, "dead"} {
		if _, err := s.client.CreateQueue(ctx, &awssqs.CreateQueueInput{QueueName: aws.String(queue)}); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *sqsServer) publish(ctx context.Context, payments [][]byte) error {
	for some := range slices.Chunk(payments, mostSQS) {
		var entries []types.SendMessageBatchRequestEntry
		for i, p := range some {
			id := aws.String(strconv.Itoa(i))
			entries = append(entries, types.SendMessageBatchRequestEntry{Id: id, MessageBody: aws.String(string(p))})
		}
		for _, queue := range []string{roleBare, roleWeir} {
			in := &awssqs.SendMessageBatchInput{QueueUrl: aws.String(urlSQS(s.addr, queue)), Entries: entries}
			out, err := s.client.SendMessageBatch(ctx, in)
			if err != nil {
				return err
			}
			if n := len(out.Failed); n > 0 {
				return fmt.Errorf("%d messages failed, the first one with %s", n, aws.ToString(out.Failed[0].Message))
			}
		}
	}
	return nil
}

// backlog asks for the attributes of a queue. Unlike SQS, this server counts messages that
// are not visible among all messages.
func (s *sqsServer) backlog(ctx context.Context, consumer string) (backlog, error) {
	out, err := s.client.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{
		QueueUrl: aws.String(urlSQS(s.addr, consumer)), AttributeNames: []types.QueueAttributeName{"All"},
	})
	if err != nil {
		return backlog{}, err
	}
	left, err := strconv.Atoi(out.Attributes["ApproximateNumberOfMessages"])
	held, errHeld := strconv.Atoi(out.Attributes["ApproximateNumberOfMessagesNotVisible"])
	return backlog{Left: left, Held: held}, errors.Join(err, errHeld)
}

func (*sqsServer) close() {}
