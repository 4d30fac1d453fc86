package broker_test

import (
	"context"
	"fmt"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
)

// numbers is an adapter for a broker with an endless queue of numbers.
type numbers struct{ last int }

func (n *numbers) Fetch(_ context.Context, demand int) (messages []*broker.Message, err error) {
	for range demand {
		n.last++
		messages = append(messages, broker.NewMessage(broker.Message{ID: fmt.Sprint(n.last)}, receipt{n.last}))
	}
	return messages, nil
}

func (n *numbers) Close(context.Context) error { return nil }

// A receipt settles one number.
type receipt struct{ number int }

func (r receipt) Ack(context.Context) error     { fmt.Println("acknowledged", r.number); return nil }
func (r receipt) Requeue(context.Context) error { fmt.Println("given back", r.number); return nil }
func (r receipt) Extend(context.Context) error  { return nil }
func (r receipt) DeadLetter(_ context.Context, reason string) error {
	fmt.Println("set aside", r.number, "because of", reason)
	return nil
}

func ExampleNewSource() {
	ctx := context.Background()
	source, err := broker.NewSource(&numbers{}, broker.SourceConfig{})
	if err != nil {
		panic(err)
	}
	source.Request(3) // the source fetches no more than three
	for range 2 {
		m, err := source.Next(ctx)
		if err != nil {
			panic(err)
		}
		if err := m.Ack(ctx); err != nil {
			panic(err)
		}
	}
	if err := source.Close(ctx); err != nil {
		panic(err)
	}
	// Output:
	// acknowledged 1
	// acknowledged 2
	// given back 3
}

func ExampleConsume() {
	source, err := broker.NewSource(newQueue(3), broker.SourceConfig{})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	handle := func(_ context.Context, m *broker.Message) error {
		fmt.Println("message", m.ID)
		if m.ID == "3" {
			stop() // messages in hand are settled first
		}
		return nil
	}
	// A gate with a limit of one makes the order certain.
	err = broker.Consume(ctx, source, handle, broker.ConsumeConfig{Gate: must(admitOne())})
	fmt.Println("ended:", err)
	// Output:
	// message 1
	// message 2
	// message 3
	// ended: <nil>
}

func admitOne() (*admit.Gate, error) { return admit.New(admit.WithFixedLimit(1)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
