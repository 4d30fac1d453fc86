package main

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"github.com/weir-go/weir/broker"
)

const (
	// topic is the name under which the payments are published, however a broker calls it.
	topic = "payments"
	// dead is the name for dead letters, of which a run has none.
	dead = topic + ".dead"
)

// A kind is a broker on which the incident can be replayed. Each address is the one that
// serve returned. Each consumer has the payments for itself, and is named after its role.
type kind struct {
	// title is the broker's name for people.
	title string
	load
	// missing returns an error that says how to install the programs for serve.
	missing func() error
	// serve starts a server. It gives up when ctx ends. It runs in a process of its own,
	// which calls stop before it ends.
	serve func(ctx context.Context) (addr string, stop func(), err error)
	// connect makes the queues of both consumers.
	connect func(ctx context.Context, addr string) (server, error)
	// bare consumes as fast as the client can, without a bound, and calls pay for each
	// payment. It returns only with an error.
	bare func(addr string, pay func(payment []byte)) error
	// source opens the consumer with weir.
	source func(ctx context.Context, addr string) (broker.Source, error)
}

// A load is heavy enough to kill the bare consumer during the trouble.
type load struct {
	size   int   // bytes of a payment
	memory int64 // bytes that a consumer may take
}

var usualLoad = load{size: 32 << 10, memory: 80 * mib}

// A server is the parent's connection to the server of a broker. It is safe for concurrent
// use.
type server interface {
	// publish stores payments for both consumers.
	publish(ctx context.Context, payments [][]byte) error
	// backlog returns the messages that the server has for a consumer.
	backlog(ctx context.Context, consumer string) (backlog, error)
	close()
}

// A backlog is the work of a consumer as its broker sees it.
type backlog struct {
	Left int // payments that are not acknowledged
	Held int // of these, delivered; -1 if the broker does not know
}

var kinds = map[string]kind{
	"kafka": onKafka, "nats": onNATS, "rabbitmq": onRabbitMQ, "redis": onRedis, "sqs": onSQS,
}

func names() string { return strings.Join(slices.Sorted(maps.Keys(kinds)), ", ") }

// none is the missing of a broker that is part of this program.
func none() error { return nil }

// needs returns an error if a program is not installed.
func needs(program, install string) error {
	if _, err := exec.LookPath(program); err != nil {
		return fmt.Errorf("there is no %s (%s): %w", program, install, err)
	}
	return nil
}
