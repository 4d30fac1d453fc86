package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/internal/check"
)

// Open returns a source of the messages of a consumer. It asks the server for the settings
// of the consumer, until ctx ends. The errors of wrong settings wrap [ErrConfig] and
// name every one of them.
//
// The key of a message is its subject, its ID is the stream with the sequence number, and
// its attributes are the first values of its headers.
func Open(ctx context.Context, js jetstream.JetStream, c Config) (broker.Source, error) {
	if err := c.validate(js); err != nil {
		return nil, err
	}
	consumer, err := js.Consumer(ctx, c.Stream, c.Consumer)
	switch {
	case errors.Is(err, jetstream.ErrNotPullConsumer):
		return nil, check.One(ErrConfig, "%s: got a push consumer, want a pull consumer", c.of())
	case err != nil:
		return nil, fmt.Errorf("nats: %s: %w", c.of(), err)
	}
	is := consumer.CachedInfo().Config
	var bad check.Errors
	bad.From(c.of(), c.check(is), ErrConfig)
	err = c.checkDeadLetter(ctx, js, is, &bad)
	if err := errors.Join(bad.Err(ErrConfig), err); err != nil {
		return nil, err
	}
	c.Source.Name = cmp.Or(c.Source.Name, c.Stream)
	if c.Source.ExtendEvery == 0 {
		c.Source.ExtendEvery = max(shortest(is)/2, leastExtend)
	}
	f := newFetcher(js, c, is)
	source, err := broker.NewSource(f, c.Source)
	if err != nil {
		_ = f.Close(ctx)
	}
	return source, err
}

// leastExtend is the shortest time that a source accepts between two extensions.
const leastExtend = 10 * time.Millisecond

// checkDeadLetter looks for the stream that stores the dead letters. It adds mistakes of the
// configuration to bad, and returns an error of the server.
func (c Config) checkDeadLetter(ctx context.Context, js jetstream.JetStream, is jetstream.ConsumerConfig, bad *check.Errors) error {
	if c.DeadLetter == "" {
		return nil
	}
	name, err := js.StreamNameBySubject(ctx, c.DeadLetter)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		bad.That(false, "DeadLetter: got subject %q, which no stream stores, want one that a stream stores", c.DeadLetter)
		return nil
	case err != nil:
		return fmt.Errorf("nats: stream of the subject %q: %w", c.DeadLetter, err)
	}
	filters := is.FilterSubjects
	if is.FilterSubject != "" {
		filters = append(slices.Clip(filters), is.FilterSubject)
	}
	again := len(filters) == 0
	for _, filter := range filters {
		again = again || matches(filter, c.DeadLetter)
	}
	bad.That(name != c.Stream || !again,
		"DeadLetter: got subject %q, which consumer %q would deliver again, want one of another stream", c.DeadLetter, c.Consumer)
	return nil
}
