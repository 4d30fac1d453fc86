package admit_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
)

// The default gate is the one for a service about which nothing is known yet. Options
// say what one knows better.
func ExampleNew() {
	gate, err := admit.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(gate.Name(), "adapts its limit; so many may wait:", gate.Stats().QueueCapacity)

	ten, err := limit.NewFixed(10)
	if err != nil {
		fmt.Println(err)
		return
	}
	gate, err = admit.New(
		admit.WithName("database"), // ten connections
		admit.WithLimit(ten),
		admit.WithQueue(admit.QueueConfig{Capacity: 20, MaxWait: 100 * time.Millisecond}),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	s := gate.Stats()
	fmt.Println(s.Name, "runs", s.Limit, "and lets", s.QueueCapacity, "wait")

	_, err = admit.New(admit.WithName(""), admit.WithQueue(admit.QueueConfig{Capacity: -5}))
	fmt.Println(err)
	// Output:
	// default adapts its limit; so many may wait: 4096
	// database runs 10 and lets 20 wait
	// admit: invalid configuration: name: got an empty one, want one that says what the gate protects
	// queue capacity: got -5, want 0 (automatic) to 1048576
}

// Take a permit, give it back in a defer, and say how the call ended.
func ExampleGate_Acquire() {
	one, err := limit.NewFixed(1)
	if err != nil {
		fmt.Println(err)
		return
	}
	gate, err := admit.New(admit.WithLimit(one), admit.WithoutQueue())
	if err != nil {
		fmt.Println(err)
		return
	}
	call := func(work func()) error {
		permit, err := gate.Acquire(context.Background(), admit.Call{})
		if err != nil {
			return err
		}
		outcome := admit.Ignored // what a panic leaves behind
		defer func() { permit.Release(outcome) }()
		work()
		outcome = admit.Success
		return nil
	}

	err = call(func() {
		err := call(func() { fmt.Println("never") }) // the only permit is taken
		if refusal, ok := errors.AsType[*admit.Refusal](err); ok {
			fmt.Println("refused:", refusal.Reason)
			fmt.Println("come back later:", refusal.RetryAfter > 0)
		}
	})
	fmt.Println("the first call:", err)
	fmt.Println("succeeded:", gate.Stats().Ended[admit.Success])
	// Output:
	// refused: queue_full
	// come back later: true
	// the first call: <nil>
	// succeeded: 1
}

// A gate is changed while calls run, all or nothing.
func ExampleGate_Update() {
	gate, err := admit.New(admit.WithName("api"), admit.WithDryRun(true))
	if err != nil {
		fmt.Println(err)
		return
	}
	hundred, err := limit.NewFixed(100)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(gate.Update(admit.WithDryRun(false), admit.WithLimit(hundred)))
	s := gate.Stats()
	fmt.Println("dry run:", s.DryRun, "limit:", s.Limit)

	err = gate.Update(admit.WithDryRun(true), admit.WithQueue(admit.QueueConfig{MaxWait: -time.Second}))
	fmt.Println(errors.Is(err, admit.ErrConfig))
	fmt.Println("dry run:", gate.Stats().DryRun)
	// Output:
	// <nil>
	// dry run: false limit: 100
	// true
	// dry run: false
}

// Before a server stops, its gate sends away who waits, so that stopping takes as long
// as what runs, and not as long as the queue.
func ExampleGate_Drain() {
	gate, err := admit.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	permit, err := gate.Acquire(context.Background(), admit.Call{})
	if err != nil {
		fmt.Println(err)
		return
	}
	gate.Drain()
	_, err = gate.Acquire(context.Background(), admit.Call{Class: admit.Critical})
	fmt.Println(err)
	fmt.Println("still running:", gate.Stats().InFlight)
	permit.Release(admit.Success) // grpc.Server.GracefulStop waits for this
	fmt.Println("still running:", gate.Stats().InFlight)
	// Output:
	// admit: refused: draining
	// still running: 1
	// still running: 0
}

// A gate from a file, and changed while it runs.
func ExampleFromJSON() {
	fromFile, err := admit.FromJSON([]byte(`{"limit": {"algorithm": "fixed", "limit": 20}, "classes": {"critical": {"share": 0.5}}}`))
	if err != nil {
		log.Fatal(err)
	}
	gate, err := admit.New(fromFile)
	if err != nil {
		log.Fatal(err)
	}
	_, err = admit.FromJSON([]byte(`{"limits": {"fixed": 10}}`))
	fmt.Println(gate.Stats().Limit, err)
	// Output: 20 admit: invalid configuration: document: line 1: limits: unknown key, want one of limit, queue, classes, quotas, dry_run, max_retry_after, max_open
}

// Each tenant may make 50 calls a second, acme 500, and reports run once in ten seconds.
func ExampleWithQuotas() {
	gate, err := admit.New(admit.WithQuotas(admit.QuotaConfig{
		Classes: map[admit.Class]admit.Rate{admit.Background: {PerSecond: 0.1}},
		Tenant:  admit.Rate{PerSecond: 50, Burst: 100},
		Tenants: map[string]admit.Rate{"acme": {PerSecond: 500}},
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		permit, err := gate.Acquire(context.Background(), admit.Call{Class: admit.Background, Tenant: "acme"})
		if refusal, ok := errors.AsType[*admit.Refusal](err); ok {
			fmt.Println(refusal.Reason, "come back in", refusal.RetryAfter.Round(time.Second))
			continue
		}
		fmt.Println("runs")
		permit.Release(admit.Success)
	}
	// Output:
	// runs
	// over_quota come back in 10s
}
