package brokertest

import (
	"context"
	"errors"

	"github.com/weir-go/weir/broker"
)

// checkRebalance lets workers join and leave a queue while it is consumed.
func checkRebalance(tr *trial) {
	const n, demand = 300, 4
	slow := func(*broker.Message) { tr.pause(brief) }
	tr.publish(n)
	one := tr.open("worker-1")
	first := one.work(demand, slow)
	tr.consumedUntil(n * 4 / 5)
	two := tr.open("worker-2")
	two.work(demand, slow)
	tr.consumedUntil(n * 3 / 5)
	// The first worker leaves in the middle of its work, as a deployment does.
	first.end()
	tr.pause(quiet / 3) // its last requests bring messages that no worker takes
	ctx, cancel := context.WithTimeout(tr.ctx, quiet)
	defer cancel()
	if err := one.source.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		tr.errorf("close the source of the first worker: %w", err)
	}
	tr.consumedUntil(n * 2 / 5)
	three := tr.open("worker-3")
	three.work(demand, slow)
	tr.allConsumed()
	tr.empty()
	tr.publish(20)
	tr.allConsumed()
	tr.empty()
}
