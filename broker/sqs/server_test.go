package sqs_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"go.uber.org/goleak"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/brokertest"
	"github.com/weir-go/weir/broker/internal/servertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A server is a process of node with a server of SQS, which keeps everything in memory.
type server struct {
	servertest.Process

	addr   string
	client *awssqs.Client
}

var _ brokertest.Server = (*server)(nil)

// startServer starts a server, or skips the test where there is none. With
// WEIR_BROKERS=required it fails instead.
func startServer(t testing.TB) *server {
	t.Helper()
	_, missing := exec.LookPath("node")
	if _, err := os.Stat("node/node_modules/local-aws-sqs"); missing == nil {
		missing = err
	}
	servertest.Require(t, "server of SQS (npm ci --ignore-scripts in broker/sqs/node)", missing)
	s := &server{addr: servertest.FreeAddr(t)}
	client, done := newClient(s.addr)
	s.client = client
	s.Command = func() *exec.Cmd {
		_, port, _ := net.SplitHostPort(s.addr)
		cmd := exec.CommandContext(context.Background(), "node", "node/sqs.js", port)
		cmd.Stderr = os.Stderr
		return cmd
	}
	s.Ready = func(ctx context.Context) error {
		_, err := s.client.ListQueues(ctx, &awssqs.ListQueuesInput{})
		return err
	}
	t.Cleanup(func() {
		done()
		_ = s.Stop()
	})
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	return s
}

// newClient returns a client of the server at addr, and a function that closes its idle
// connections.
func newClient(addr string) (client *awssqs.Client, done func()) {
	// A connection becomes idle a little after its last answer was read.
	transport := &http.Transport{IdleConnTimeout: time.Second, MaxIdleConnsPerHost: 100}
	client = awssqs.New(awssqs.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://" + addr), HTTPClient: &http.Client{Transport: transport},
		Credentials: credentials.NewStaticCredentialsProvider("x", "x", ""),
	})
	return client, transport.CloseIdleConnections
}

func (s *server) Addr() string { return s.addr }

// url returns the address of a queue. The server looks at its last part alone.
func (s *server) url(queue string) string { return queueURL(s.addr, queue) }

func queueURL(addr, queue string) string { return "http://" + addr + "/123456789012/" + queue }

func (s *server) Create(ctx context.Context, queue string, c brokertest.QueueConfig) error {
	attributes := map[string]string{}
	base, isFIFO := strings.CutSuffix(queue, ".fifo")
	dead := base + "-dead"
	if isFIFO {
		attributes["FifoQueue"] = "true"
		dead += ".fifo"
	}
	_, err := s.client.CreateQueue(ctx, &awssqs.CreateQueueInput{QueueName: &dead, Attributes: attributes})
	if err != nil {
		return err
	}
	attributes["RedrivePolicy"] = fmt.Sprintf(`{"maxReceiveCount":"1000","deadLetterTargetArn":"arn:aws:sqs:us-east-1:123456789012:%s"}`, dead)
	if c.AckTimeout > 0 {
		attributes["VisibilityTimeout"] = strconv.Itoa(int(c.AckTimeout / time.Second))
	}
	_, err = s.client.CreateQueue(ctx, &awssqs.CreateQueueInput{QueueName: &queue, Attributes: attributes})
	return err
}

func (s *server) Publish(ctx context.Context, queue string, msgs ...broker.Message) error {
	for _, m := range msgs {
		in := &awssqs.SendMessageInput{
			QueueUrl: aws.String(s.url(queue)), MessageBody: aws.String(string(m.Body)),
			MessageAttributes: map[string]types.MessageAttributeValue{},
		}
		for name, value := range m.Attributes {
			in.MessageAttributes[name] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(value)}
		}
		if strings.HasSuffix(queue, ".fifo") {
			in.MessageGroupId, in.MessageDeduplicationId = aws.String(m.Key), aws.String(strconv.FormatInt(time.Now().UnixNano(), 10))
		}
		if _, err := s.client.SendMessage(ctx, in); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) Counts(ctx context.Context, queue string) (c brokertest.Counts, err error) {
	out, err := s.client.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{
		QueueUrl: aws.String(s.url(queue)), AttributeNames: []types.QueueAttributeName{"All"},
	})
	if err != nil {
		return c, err
	}
	total, err := strconv.Atoi(out.Attributes["ApproximateNumberOfMessages"])
	hidden, errHidden := strconv.Atoi(out.Attributes["ApproximateNumberOfMessagesNotVisible"])
	// Unlike SQS, this server counts messages that are not visible among all messages.
	return brokertest.Counts{Ready: total - hidden, Unacked: hidden}, errors.Join(err, errHidden)
}

func (s *server) DeadLetters(ctx context.Context, queue string) (letters []brokertest.DeadLetter, err error) {
	base, isFIFO := strings.CutSuffix(queue, ".fifo")
	dead := base + "-dead"
	if isFIFO {
		dead += ".fifo"
	}
	for {
		out, err := s.client.ReceiveMessage(ctx, &awssqs.ReceiveMessageInput{
			QueueUrl: aws.String(s.url(dead)), MaxNumberOfMessages: 10, VisibilityTimeout: 1,
			MessageAttributeNames: []string{"All"},
		})
		if err != nil || len(out.Messages) == 0 {
			return letters, err
		}
		for _, m := range out.Messages {
			letters = append(letters, brokertest.DeadLetter{
				Body: []byte(aws.ToString(m.Body)), Reason: aws.ToString(m.MessageAttributes["weir-reason"].StringValue),
			})
		}
	}
}
