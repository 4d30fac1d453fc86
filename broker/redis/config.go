package redis

import (
	"cmp"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/internal/check"
)

const (
	// prefix begins the names of consumers that Open makes up.
	prefix = "weir-"
	// givenBack is the consumer that owns the entries on which no process works.
	givenBack = "weir-given-back"
	// longIdle is the idle time that entries get when they are given back. Each consumer
	// may take them over at once, because no AckTimeout is longer.
	longIdle = 24 * time.Hour
	// stale is the idle time after which the name of a consumer without entries is deleted.
	stale = 24 * time.Hour

	minAckTimeout = 100 * time.Millisecond
	minPoll       = 10 * time.Millisecond
	maxPoll       = time.Minute
)

// ErrConfig is wrapped by the error of [Open] for a Config that cannot work.
var ErrConfig = errors.New("redis: invalid configuration")

// A Config says which stream to read, and how. Stream and Group must be set. The zero value
// of each other field means its documented default.
type Config struct {
	// Redis says how to connect. The source has connections of its own, and Close closes
	// them. The default is the server at localhost:6379. MaxRetries is not used, because the
	// source must know which commands may have been executed.
	Redis goredis.UniversalOptions
	// Stream is the key of the stream.
	Stream string
	// Group is the consumer group. It is created when it is missing, and so is the stream.
	Group string
	// Consumer names this source in the group. Two sources at the same time need two names.
	// A source with the name of one that died takes over its entries at once. The default is
	// "weir-", the name of the host and a random text.
	Consumer string
	// From is the ID after which a new group begins. The default is "0", the beginning of the
	// stream. "$" skips the entries that are already there.
	From string

	// AckTimeout is the time after which other consumers take over an entry that was neither
	// settled nor extended. The source extends held messages three times in it. All consumers
	// of a group should have the same. The default is 1 min, the smallest value 100 ms, the
	// largest 24 h.
	AckTimeout time.Duration
	// Poll is the time after which a source looks again for entries to take over, from dead
	// consumers and from consumers that gave them back. New entries arrive at once. An idle
	// source sends two commands in each Poll. The default is 1 s, the smallest value 10 ms,
	// the largest 1 min.
	Poll time.Duration

	// DeadLetters is the key of the stream for dead letters. In a cluster it must hash to the
	// slot of Stream, as "{jobs}.dead" does with "{jobs}". By default there is none, and
	// DeadLetter returns an error.
	DeadLetters string
	// Delete deletes entries from the stream when they are acknowledged or dead letters. Set
	// it only if no other group reads the stream. By default entries stay, and the producer
	// must trim the stream.
	Delete bool

	// BodyField names the field that becomes the body. The default is "body".
	BodyField string
	// KeyField names the field that becomes the key. The default is "key".
	KeyField string

	// Source has the settings that are common to all brokers. The default of Name is Stream,
	// and of ExtendEvery a third of AckTimeout. Its Logger also gets a warning when the group
	// had vanished, and when entries were trimmed before they were consumed.
	Source broker.SourceConfig
}

// Open makes a source. The error wraps [ErrConfig] and names every mistake in c. Open does not block. The first Next
// connects, and creates the group if it is missing.
func Open(c Config) (broker.Source, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	f := newFetcher(c)
	source, err := broker.NewSource(f, c.Source)
	if err != nil {
		return nil, errors.Join(err, f.client.Close())
	}
	return source, nil
}

func (c Config) withDefaults() Config {
	if c.Consumer == "" {
		host, _ := os.Hostname()
		c.Consumer = prefix + host + "-" + strings.ToLower(rand.Text()[:8])
	}
	c.From, c.BodyField, c.KeyField = cmp.Or(c.From, "0"), cmp.Or(c.BodyField, "body"), cmp.Or(c.KeyField, "key")
	c.AckTimeout, c.Poll = cmp.Or(c.AckTimeout, time.Minute), cmp.Or(c.Poll, time.Second)
	c.Source.Name = cmp.Or(c.Source.Name, c.Stream)
	c.Source.ExtendEvery = cmp.Or(c.Source.ExtendEvery, c.AckTimeout/3)
	c.Source.Logger = cmp.Or(c.Source.Logger, slog.Default())
	c.Redis = c.connection()
	return c
}

// connection returns the options of the source's own client. A retry of XREADGROUP would
// fetch more than was requested, so the client makes none.
func (c Config) connection() goredis.UniversalOptions {
	o := c.Redis
	if len(o.Addrs) == 0 {
		o.Addrs = []string{"localhost:6379"}
	}
	o.MaxRetries = -1
	o.ContextTimeoutEnabled = true
	if o.ReadTimeout == 0 {
		o.ReadTimeout = 3 * time.Second
	}
	if o.ReadTimeout > 0 {
		o.ReadTimeout += 2 * c.Poll // a read blocks for one Poll, or for two (see reader.guard)
	}
	return o
}

func (c Config) validate() error {
	var bad check.Errors
	bad.That(c.Stream != "", "Stream: got none, want the key of the stream")
	bad.That(c.Group != "", "Group: got none, want the name of the consumer group")
	bad.That(c.Consumer != givenBack, "Consumer: got %q, want another name, because this one owns what was given back", givenBack)
	bad.That(c.DeadLetters == "" || c.DeadLetters != c.Stream, "DeadLetters: got %q, which is Stream, want another key", c.DeadLetters)
	check.Between(&bad, "AckTimeout", c.AckTimeout, minAckTimeout, longIdle)
	check.Between(&bad, "Poll", c.Poll, minPoll, maxPoll)
	bad.That(c.Source.ExtendEvery < c.AckTimeout,
		"Source: ExtendEvery: got %v, want less than AckTimeout, %v", c.Source.ExtendEvery, c.AckTimeout)
	bad.That(c.BodyField != c.KeyField, "BodyField and KeyField: got %q for both, want two names", c.BodyField)
	bad.From("Source", c.Source.Validate(), broker.ErrConfig)
	return bad.Err(ErrConfig)
}
