package main

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// The names of the faults.
const (
	faultNone     = "none"
	faultOverload = "overload"
	faultMemory   = "memory"
	faultDeadlock = "deadlock"
	faultCircuit  = "circuit"
	faultStream   = "stream"
	faultConsumer = "consumer"
)

// A fault is one way in which the system breaks. Handlers look at system.is for its name.
type fault struct {
	tells string
	run   func(ctx context.Context, s *system) // returns once the fault is there, or when ctx ends
}

var faults = map[string]fault{
	faultNone: {"nothing broke", func(context.Context, *system) {}},
	faultOverload: {"payments became forty times slower", func(_ context.Context, s *system) {
		s.backend.SetMean(slowPayment)
	}},
	faultMemory:   {"the storefront kept half a megabyte of each browse", func(context.Context, *system) {}},
	faultDeadlock: {"payments paused for a second, and each buy called the storefront again without passing on its permit", pause},
	faultCircuit:  {"payments failed for a second and worked for a second, in turn", toggle},
	faultConsumer: {"the service that handlers of messages call refused everything", func(context.Context, *system) {}},
	faultStream:   {"the subscriber stopped reading", func(context.Context, *system) {}},
}

// names returns the names of the faults, sorted.
func names() []string { return slices.Sorted(maps.Keys(faults)) }

// is reports whether the system is broken in that way now.
func (s *system) is(name string) bool {
	broken := s.broken.Load()
	return broken != nil && slices.Contains(*broken, name)
}

// fail breaks the system in some ways, and waits until ctx ends.
func (s *system) fail(ctx context.Context, chosen []string) {
	s.broken.Store(&chosen)
	var running sync.WaitGroup
	for _, name := range chosen {
		running.Go(func() { faults[name].run(ctx, s) })
	}
	<-ctx.Done()
	running.Wait()
}

// pause stops payments for a second, so that the storefront fills up.
func pause(ctx context.Context, s *system) {
	s.backend.SetWorkers(0)
	sleep(ctx, time.Second)
	s.backend.SetWorkers(paymentWorkers)
}

// toggle lets payments fail and work in turn, until ctx ends.
func toggle(ctx context.Context, s *system) {
	for fails := true; ; fails = !fails {
		s.failing.Store(fails)
		if !sleep(ctx, time.Second) {
			return
		}
	}
}
