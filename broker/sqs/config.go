package sqs

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/internal/check"
)

// An API has the methods of the client of SQS that a source uses.
//
//nolint:lll // the signatures of the client
type API interface {
	// ReceiveMessage and the next ones, which are DeleteMessageBatch, ChangeMessageVisibilityBatch,
	// SendMessage, GetQueueAttributes and GetQueueUrl, are methods of the client.
	ReceiveMessage(ctx context.Context, in *awssqs.ReceiveMessageInput, options ...func(*awssqs.Options)) (*awssqs.ReceiveMessageOutput, error)
	DeleteMessageBatch(ctx context.Context, in *awssqs.DeleteMessageBatchInput, options ...func(*awssqs.Options)) (*awssqs.DeleteMessageBatchOutput, error)
	ChangeMessageVisibilityBatch(ctx context.Context, in *awssqs.ChangeMessageVisibilityBatchInput, options ...func(*awssqs.Options)) (*awssqs.ChangeMessageVisibilityBatchOutput, error)
	SendMessage(ctx context.Context, in *awssqs.SendMessageInput, options ...func(*awssqs.Options)) (*awssqs.SendMessageOutput, error)
	GetQueueAttributes(ctx context.Context, in *awssqs.GetQueueAttributesInput, options ...func(*awssqs.Options)) (*awssqs.GetQueueAttributesOutput, error)
	GetQueueUrl(ctx context.Context, in *awssqs.GetQueueUrlInput, options ...func(*awssqs.Options)) (*awssqs.GetQueueUrlOutput, error)
}

var _ API = (*awssqs.Client)(nil)

// ErrConfig is wrapped by the error of [Open] for a Config that cannot work.
var ErrConfig = errors.New("sqs: invalid configuration")

// A Config says which queue to read, and how. Client and QueueURL must be set. The zero
// value of each other field means its documented default.
type Config struct {
	// Client is the client of SQS. The source does not close it.
	Client API
	// QueueURL is the address of the queue. A queue with a name that ends in ".fifo" is
	// read in order.
	QueueURL string

	// Visibility is the time for which SQS hides a received message from others. The source
	// extends it at half of that time, counted from the receipt. The default is 30 s, the
	// smallest value 1 s, the largest 12 h, in whole seconds.
	Visibility time.Duration
	// Wait is the time for which SQS holds a request while the queue is empty. The source
	// never cancels a request, so Close takes as long, but no longer than 5 s. A process
	// that ends before its request does may leave messages hidden for Visibility. The
	// default is 3 s, the smallest value 1 s, the largest 20 s, in whole seconds.
	Wait time.Duration
	// Receives bounds the requests for messages at the same time. There is one while the
	// queue is empty, and more while it is not. The default is 8.
	Receives int
	// Batch bounds the messages of one request. The default is 10, the most that SQS
	// returns. For a FIFO queue it is 1, so that a message which is requeued stays before
	// the later ones of its group.
	Batch int

	// RequeueDelay is the time after which a requeued message is delivered again. Close
	// gives back messages without delay. The default is 0, the largest value 12 h, in whole
	// seconds.
	RequeueDelay time.Duration
	// DeadLetterURL is the address of the queue for dead letters. It must be a FIFO queue
	// if and only if the queue is one. By default it is the target of the queue's redrive
	// policy. If the queue has none, DeadLetter returns an error.
	DeadLetterURL string

	// Source has the settings that are common to all brokers. The default of Name is
	// the name of the queue, and of ExtendEvery half of Visibility.
	Source broker.SourceConfig
}

// Open makes a source. It returns an error if c is wrong. It does not block, and it does not
// ask SQS for anything before the first message is requested.
func Open(c Config) (broker.Source, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	return broker.NewSource(newFetcher(c), c.Source)
}

func (c Config) fifo() bool { return strings.HasSuffix(c.QueueURL, ".fifo") }

// most is the number of messages that SQS returns at once, or takes in a batch.
const most = 10

func (c Config) withDefaults() Config {
	c.Visibility, c.Wait = cmp.Or(c.Visibility, 30*time.Second), cmp.Or(c.Wait, 3*time.Second)
	c.Receives = cmp.Or(c.Receives, 8)
	if c.Batch == 0 && c.fifo() {
		c.Batch = 1
	}
	c.Batch = cmp.Or(c.Batch, most)
	c.Source.Name = cmp.Or(c.Source.Name, c.QueueURL[strings.LastIndexByte(c.QueueURL, '/')+1:])
	c.Source.ExtendEvery = cmp.Or(c.Source.ExtendEvery, c.Visibility/2)
	c.Source.Logger = cmp.Or(c.Source.Logger, slog.Default())
	return c
}

const (
	maxVisibility = 12 * time.Hour
	maxWait       = 20 * time.Second
)

func (c Config) validate() error {
	var bad check.Errors
	bad.That(c.Client != nil, "Client: got none, want a client of SQS")
	bad.That(c.QueueURL != "", "QueueURL: got none, want the address of the queue")
	bad.That(seconds(c.Visibility, time.Second, maxVisibility),
		"Visibility: got %v, want whole seconds from 1s to %v", c.Visibility, maxVisibility)
	bad.That(seconds(c.Wait, time.Second, maxWait), "Wait: got %v, want whole seconds from 1s to %v", c.Wait, maxWait)
	check.Positive(&bad, "Receives", c.Receives)
	check.Between(&bad, "Batch", c.Batch, 1, most)
	bad.That(seconds(c.RequeueDelay, 0, maxVisibility),
		"RequeueDelay: got %v, want whole seconds from 0 to %v", c.RequeueDelay, maxVisibility)
	bad.That(c.Source.ExtendEvery < c.Visibility,
		"Source: ExtendEvery: got %v, want less than Visibility, %v", c.Source.ExtendEvery, c.Visibility)
	bad.That(c.DeadLetterURL == "" || c.DeadLetterURL != c.QueueURL,
		"DeadLetterURL: got %q, which is QueueURL, want another queue", c.DeadLetterURL)
	bad.That(c.DeadLetterURL == "" || strings.HasSuffix(c.DeadLetterURL, ".fifo") == c.fifo(),
		"DeadLetterURL: got %q for the queue %q, want both FIFO or both standard", c.DeadLetterURL, c.QueueURL)
	bad.From("Source", c.Source.Validate(), broker.ErrConfig)
	return bad.Err(ErrConfig)
}

// seconds reports whether d is a whole number of seconds from lo to hi.
func seconds(d, lo, hi time.Duration) bool { return d >= lo && d <= hi && d%time.Second == 0 }
