package nats

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/internal/check"
)

// ErrConfig is wrapped by the error of [Open] for a Config or a consumer that cannot work.
var ErrConfig = errors.New("nats: invalid configuration")

// A Config configures [Open]. Stream and Consumer must be set.
type Config struct {
	// Stream is the name of the stream.
	Stream string
	// Consumer is the name of its durable pull consumer. Workers that share the messages
	// use the same name.
	Consumer string
	// DeadLetter is the subject to which dead letters are published. A stream other than
	// Stream must store it. The default is none, and then a dead letter is an error and
	// the message stays where it is.
	DeadLetter string
	// RequeueDelay is the time after which a message that was given back is delivered
	// again. It also holds for messages that a source gives back when it is closed. The
	// default is 0.
	RequeueDelay time.Duration
	// Demand is the largest demand of all workers together. Open returns an error if the
	// consumer's MaxAckPending is lower, because the server would then deliver less than
	// was asked for. The default is 0, which checks nothing.
	Demand int
	// Source configures the source. The default of Name is Stream. The default of
	// ExtendEvery is half of the consumer's AckWait, or half of the shortest time in its
	// BackOff.
	Source broker.SourceConfig
}

// Headers of a dead letter, besides the headers of the message.
const (
	// HeaderReason says why the message was set aside.
	HeaderReason = "Weir-Reason"
	// HeaderStream and HeaderSequence say where the message is, or was, stored.
	HeaderStream   = "Weir-Stream"
	HeaderSequence = "Weir-Sequence"
	// HeaderSubject is the subject to which the message was published.
	HeaderSubject = "Weir-Subject"
	// HeaderAttempt is how often the message was delivered.
	HeaderAttempt = "Weir-Attempt"
)

// validate returns all mistakes in c that show without a server.
func (c Config) validate(js jetstream.JetStream) error {
	var bad check.Errors
	bad.That(js != nil, "js: got nil, want a JetStream")
	bad.That(c.Stream != "", "Stream: got none, want the name of a stream")
	bad.That(c.Consumer != "", "Consumer: got none, want the name of a durable consumer")
	bad.That(!strings.ContainsAny(c.DeadLetter, "*> \t\r\n"), "DeadLetter: got %q, want a subject without wildcards", c.DeadLetter)
	check.NotNegative(&bad, "RequeueDelay", c.RequeueDelay, "none")
	check.NotNegative(&bad, "Demand", c.Demand, "no check")
	bad.From("Source", c.Source.Validate(), broker.ErrConfig)
	return bad.Err(ErrConfig)
}

// check returns all settings of the consumer with which the source would lose messages or
// stall.
func (c Config) check(is jetstream.ConsumerConfig) error {
	var bad check.Errors
	bad.That(is.AckPolicy == jetstream.AckExplicitPolicy,
		"AckPolicy: got %v, want explicit, or one acknowledgement would settle other messages", is.AckPolicy)
	bad.That(is.MaxDeliver <= 0,
		"MaxDeliver: got %d, want -1, or the server drops a message that was given back too often, without a dead letter", is.MaxDeliver)
	bad.That(len(is.PriorityGroups) == 0, "PriorityGroups: got %v, want none", is.PriorityGroups)
	bad.That(!is.HeadersOnly, "HeadersOnly: got true, want false, or messages arrive without a body")
	bad.That(is.MaxAckPending <= 0 || is.MaxAckPending >= c.Demand,
		"MaxAckPending: got %d, want at least the demand of %d", is.MaxAckPending, c.Demand)
	every, wait := c.Source.ExtendEvery, shortest(is)
	bad.That(every <= 0 || every < wait,
		"AckWait: got %v, want more than ExtendEvery of %v, or messages are delivered again while they are held", wait, every)
	return bad.Err(ErrConfig)
}

// of names the consumer in an error.
func (c Config) of() string { return fmt.Sprintf("consumer %q of stream %q", c.Consumer, c.Stream) }

// shortest returns the shortest time after which the server delivers an unacknowledged
// message again.
func shortest(is jetstream.ConsumerConfig) time.Duration {
	wait := is.AckWait
	for _, d := range is.BackOff {
		wait = min(wait, d)
	}
	return wait
}

// matches reports whether a filter with wildcards includes a subject.
func matches(filter, subject string) bool {
	f, s := strings.Split(filter, "."), strings.Split(subject, ".")
	for i, token := range f {
		switch {
		case token == ">":
			return len(s) > i
		case i >= len(s), token != "*" && token != s[i]:
			return false
		}
	}
	return len(f) == len(s)
}
