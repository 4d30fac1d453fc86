package redis_test

import (
	"context"
	"testing"
	"time"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/brokertest"
	"github.com/weir-go/weir/broker/redis"
)

// conformance describes the broker to the suite.
var conformance = brokertest.Broker{
	Start: func(t testing.TB) brokertest.Server { return startServer(t) },
	Open: func(_ context.Context, c brokertest.Consumer) (broker.Source, error) {
		conf := config(c.Addr, c.Queue)
		conf.Consumer, conf.AckTimeout, conf.Poll = c.Name, c.AckTimeout, 0
		return redis.Open(conf)
	},
	AckTimeout: time.Second,
}

// TestConformance runs the checks that all brokers have to pass.
func TestConformance(t *testing.T) { brokertest.Run(t, conformance) }
