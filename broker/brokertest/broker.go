package brokertest

import (
	"context"
	"testing"
	"time"

	"github.com/weir-go/weir/broker"
)

// A Broker describes one kind of broker and the adapter under test. Start and Open must be
// set. The zero value of each other field means its documented default.
type Broker struct {
	// Start starts an empty server on loopback, on a free port, and ends it in a clean-up
	// of t. The suite calls it once and shares the server between its checks. Each check
	// has queues of its own.
	Start func(t testing.TB) Server
	// Open makes the source of a consumer. It is also called in a second process, which
	// knows the server only by the consumer's address. So it must not depend on Start.
	Open func(ctx context.Context, c Consumer) (broker.Source, error)

	// Without names checks that the broker cannot pass, each with the reason. They are
	// skipped, and the reason is printed. An unknown name is an error.
	Without map[string]string

	// Serial runs one check after the other. The default is to run most of them in
	// parallel, with a queue for each.
	Serial bool
	// AckTimeout is the shortest time after which the broker delivers an unacknowledged
	// message again. The default is 0, for a broker that waits until the connection or the
	// session ends.
	AckTimeout time.Duration
	// Patience bounds how long the broker may need until the messages of a lost consumer
	// reach another one. The default is 20 s.
	Patience time.Duration
	// GiveBack bounds how long the messages of a closed source may need until they reach
	// another one. It must be shorter than the time of QueueConfig.AckTimeout, or a source
	// that gives nothing back could pass. The default is 3 s.
	GiveBack time.Duration
	// Slack is the number of messages that the broker may count as unacknowledged beyond
	// the demand, because its protocol has no smaller unit. The default is 0.
	Slack int
	// LargeBody is the size in bytes of the largest message that the suite sends. The
	// default is 256 KiB.
	LargeBody int
	// IdleRequests bounds the requests that a source with demand sends during 5 s while
	// its queue is empty. The default is 20.
	IdleRequests int
	// RestRequests bounds the requests that a source without demand sends during 5 s. Only
	// the heartbeats of the connection belong here. The default is 0.
	RestRequests int
	// Ignore lists parts of stack traces of goroutines that may outlive the sources, such
	// as "nats-server/v2/server." for a server in the process of the test.
	Ignore []string
}

// A Consumer says which source Open is to make. It is sent to another process as JSON.
type Consumer struct {
	// Addr is the host and port of the proxy in front of the server. All connections of the
	// source must go there, also if the broker announces another address.
	Addr string `json:"addr"`
	// Queue is the name of a queue that Server.Create has made.
	Queue string `json:"queue"`
	// Name is the name of the worker. Two workers of a queue have different names and
	// share its messages.
	Name string `json:"name"`
	// AckTimeout is the value of the queue's configuration.
	AckTimeout time.Duration `json:"ack_timeout"`
	// ByteWindow bounds the bytes that the source holds, for an adapter that has such a
	// bound. The default is 0, the default of the adapter.
	ByteWindow int64 `json:"byte_window"`
}

// A Server is a running broker. The suite calls its methods from several goroutines.
// Methods that take a context block until the broker has answered. They connect to the
// server directly, so that a broken proxy does not disturb them.
type Server interface {
	// Addr is the host and port of the server. It may change while the server is down.
	Addr() string
	// Create makes an empty queue with a dead letter queue.
	Create(ctx context.Context, queue string, c QueueConfig) error
	// Publish appends messages, and returns when the broker has stored all of them. ID
	// and Attempt of a message are not used.
	Publish(ctx context.Context, queue string, msgs ...broker.Message) error
	// Counts asks the broker about the messages of a queue.
	Counts(ctx context.Context, queue string) (Counts, error)
	// DeadLetters returns the messages that were set aside, oldest first.
	DeadLetters(ctx context.Context, queue string) ([]DeadLetter, error)
	// Stop ends the server as a crash does. The data on disk remains.
	Stop() error
	// Restart starts the server again with its data.
	Restart() error
}

// A QueueConfig says which queue Server.Create is to make.
type QueueConfig struct {
	// AckTimeout is the time after which the broker delivers an unacknowledged message
	// again. It is 0 if Broker.AckTimeout is, and at least Broker.AckTimeout otherwise.
	AckTimeout time.Duration
	// Workers is the number of sources that are to share the queue. A broker that gives
	// each worker a partition needs several times as many partitions.
	Workers int
}

// Counts is the state of a queue as the broker sees it.
type Counts struct {
	// Ready messages wait for a consumer.
	Ready int
	// Unacked messages were delivered and not acknowledged. Messages that were given back
	// count here or as ready ones.
	Unacked int
	// Misuse counts settlements that the broker has refused, because it does not know the
	// message or has settled it already. It is 0 if the broker does not tell.
	Misuse int
}

// A DeadLetter is a message that was set aside.
type DeadLetter struct {
	// Body is the content of the message.
	Body []byte
	// Reason says why it was set aside.
	Reason string
}
