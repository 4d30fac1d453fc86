package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-go/weir/examples/internal/child"
)

const (
	workers  = 20 // of the gateway, and of the bare consumer
	usual    = 20 * time.Millisecond
	slowed   = 10 * usual
	rate     = 300 // payments a second
	mib      = 1 << 20
	sampling = 200 * time.Millisecond
)

// A plan has the times of the events, counted from the beginning.
type plan struct {
	troubleFrom, troubleTo time.Duration
	produceTo              time.Duration
	end                    time.Duration // at the latest
}

var usualPlan = plan{
	troubleFrom: 4 * time.Second, troubleTo: 14 * time.Second,
	produceTo: 18 * time.Second, end: 40 * time.Second,
}

// speed returns how long the gateway needs for a payment.
func (p plan) speed(at time.Duration) time.Duration {
	if at >= p.troubleFrom && at < p.troubleTo {
		return slowed
	}
	return usual
}

// An outcome is the fate of both consumers.
type outcome struct {
	plan
	load
	bare, weir fate
}

// replay runs the incident on a kind of broker.
func replay(ctx context.Context, name string, p plan, see func(string, sample)) (o outcome, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The child ends by itself when it is dismissed. It is not killed, because it has
	// processes and files to clean up.
	process, addr, err := start(context.WithoutCancel(ctx), job{Role: roleBroker, Kind: name}, ctx.Done())
	if err != nil {
		return o, err
	}
	defer func() {
		process.Dismiss()
		err = errors.Join(err, process.Wait())
	}()
	srv, err := kinds[name].connect(ctx, addr)
	if err != nil {
		return o, fmt.Errorf("incident: connect to %s: %w", kinds[name].title, err)
	}
	defer srv.close()
	o.plan, o.load = p, kinds[name].load
	var produced atomic.Int64
	began := time.Now()
	var all sync.WaitGroup
	var errs [3]error
	run := func(i int, role string, f *fate) {
		s := &scene{
			plan: p, load: o.load, job: job{Role: role, Kind: name, Broker: addr}, began: began, server: srv, produced: &produced,
			see: func(x sample) { see(role, x) },
		}
		all.Go(func() { *f, errs[i] = s.play(ctx) })
	}
	run(0, roleBare, &o.bare)
	run(1, roleWeir, &o.weir)
	all.Go(func() { errs[2] = produce(ctx, srv, o, began, &produced) })
	all.Wait()
	return o, errors.Join(append(errs[:], ctx.Err())...)
}

// start starts a child that prints its address. It gives up when canceled is closed.
func start(ctx context.Context, j job, canceled <-chan struct{}) (*child.Process, string, error) {
	p, err := child.Start(ctx, j, 0)
	if err != nil {
		return nil, "", err
	}
	printed := make(chan struct{})
	defer close(printed)
	go func() {
		select {
		case <-canceled:
			p.Dismiss()
		case <-printed:
		}
	}()
	if p.Lines.Scan() {
		return p, p.Lines.Text(), nil
	}
	p.Dismiss()
	return nil, "", errors.Join(fmt.Errorf("incident: the %s printed no address", j.Role), p.Wait())
}

// produce publishes payments until ctx ends or its time is over.
func produce(ctx context.Context, srv server, o outcome, began time.Time, produced *atomic.Int64) error {
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	filler := bytes.Repeat([]byte("x"), o.size-idBytes)
	sent := 0
	for at := time.Duration(0); at < o.produceTo; at = time.Since(began) {
		var due [][]byte
		for ; sent < int(at.Seconds()*rate); sent++ {
			due = append(due, fmt.Appendf(nil, "%0*d%s", idBytes, sent, filler))
		}
		if len(due) > 0 {
			if err := srv.publish(ctx, due); err != nil {
				if ctx.Err() != nil {
					return nil // replay reports the end of ctx once
				}
				return fmt.Errorf("incident: publish: %w", err)
			}
			produced.Add(int64(len(due)))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
