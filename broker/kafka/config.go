package kafka

import (
	"cmp"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/internal/check"
)

// ErrConfig is wrapped by the error of [Open] for a Config that cannot work.
var ErrConfig = errors.New("kafka: invalid configuration")

// A Config describes a consumer. Seeds, Group and Topics must be set. The zero value of
// each other field means its documented default.
type Config struct {
	// Seeds are the addresses of some of the brokers, as host:port.
	Seeds []string
	// Group is the consumer group. Its members share the partitions of the topics.
	Group string
	// Topics are the topics to consume. A group without committed offsets starts at the
	// oldest record.
	Topics []string
	// DeadLetterTopic is the topic for records that are set aside. It must exist, or the
	// brokers must create topics. By default there is none, and Nack with a dead letter
	// returns an error.
	DeadLetterTopic string

	// MaxAhead bounds the records of a partition from the oldest unfinished one to the
	// newest delivered one. A record that takes long stops its partition when this many
	// were delivered behind it, and only its partition. After a crash, at most this many
	// records of a partition are delivered again. The default is 4096.
	MaxAhead int
	// MaxBytes bounds the bytes that one broker sends for one fetch. The source asks for as
	// many bytes as the demand has on average, if that is less. A batch of records that is
	// larger passes alone. The default is 1 MiB.
	MaxBytes int64
	// CommitInterval is the least time between two commits. An acknowledgement does not
	// wait for its commit. The default is 100 ms.
	CommitInterval time.Duration
	// RevokeWait bounds how long a rebalance waits for the unfinished records of the
	// partitions that leave this process. Records that are not finished by then are
	// delivered to the next owner again. It must be less than the rebalance timeout of the
	// group. Fetching rests meanwhile. The default is 1 s.
	RevokeWait time.Duration
	// Source configures the part of the source that all brokers share. The default of its
	// Name is the topics. Its OnError also gets the errors of commits. Its ExtendEvery has
	// no use, because Kafka knows no time for a single record.
	Source broker.SourceConfig
}

const (
	defaultMaxAhead       = 4096
	defaultMaxBytes       = 1 << 20
	defaultCommitInterval = 100 * time.Millisecond
	defaultRevokeWait     = time.Second

	mostBytes = 1 << 30
)

// validate returns c with defaults, or every mistake in it.
func (c Config) validate() (Config, error) {
	var bad check.Errors
	bad.That(len(c.Seeds) > 0 && !slices.Contains(c.Seeds, ""), "Seeds: got %q, want at least one address", c.Seeds)
	bad.That(c.Group != "", "Group: got none, want the name of a consumer group")
	bad.That(len(c.Topics) > 0 && !slices.Contains(c.Topics, ""), "Topics: got %q, want at least one topic", c.Topics)
	bad.That(c.DeadLetterTopic == "" || !slices.Contains(c.Topics, c.DeadLetterTopic),
		"DeadLetterTopic: got %q, which is one of Topics, want another topic", c.DeadLetterTopic)
	check.NotNegative(&bad, "MaxAhead", c.MaxAhead, defaultMaxAhead)
	bad.That(c.MaxBytes >= 0 && c.MaxBytes <= mostBytes,
		"MaxBytes: got %d, want 1 to %d, or 0 for %d", c.MaxBytes, mostBytes, defaultMaxBytes)
	check.NotNegative(&bad, "CommitInterval", c.CommitInterval, defaultCommitInterval)
	check.NotNegative(&bad, "RevokeWait", c.RevokeWait, defaultRevokeWait)
	bad.From("Source", c.Source.Validate(), broker.ErrConfig)
	if err := bad.Err(ErrConfig); err != nil {
		return c, err
	}
	c.MaxAhead = cmp.Or(c.MaxAhead, defaultMaxAhead)
	c.MaxBytes = cmp.Or(c.MaxBytes, defaultMaxBytes)
	c.CommitInterval = cmp.Or(c.CommitInterval, defaultCommitInterval)
	c.RevokeWait = cmp.Or(c.RevokeWait, defaultRevokeWait)
	c.Source.Name = cmp.Or(c.Source.Name, strings.Join(c.Topics, ","))
	c.Source.Logger = cmp.Or(c.Source.Logger, slog.Default())
	return c, nil
}
