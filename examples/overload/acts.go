package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/weir-go/weir/examples/internal/overload"
)

const (
	bare     = "bare"
	withWeir = "weir"
)

// An act measures one kind of server under one or more loads.
type act struct {
	Name     string    `json:"name"`
	Title    string    `json:"title"`
	Loads    []float64 `json:"loads"` // as multiples of the capacity
	Computes bool      `json:"computes"`

	weight float64 // length of each step, in units
	warm   float64 // part of a step that is not counted
}

// acts are the acts. During almost half of each step, which is not counted, a bare server
// fills up and weir finds its limit. At 2x, the calls that end late begin after patience and
// end after twice that. The harmless day counts from the first call on.
var acts = []act{
	{
		Name: "waits", Title: "Overload, the handler waits", Loads: []float64{1, 2, 4, 8},
		weight: 1, warm: 0.46,
	},
	{
		Name: "computes", Title: "Overload, the handler computes", Loads: []float64{1, 2, 8}, Computes: true,
		weight: 1, warm: 0.46,
	},
	{
		Name: "harmless", Title: "A harmless day", Loads: []float64{0.5},
		weight: 1.2,
	},
}

// harmless reports whether the load is below the capacity.
func (a act) harmless() bool { return a.Loads[len(a.Loads)-1] < 1 }

// A play is a running demonstration.
type play struct {
	show   *show
	launch launcher
	seed   uint64
	unit   time.Duration // a step of weight 1
	probe  time.Duration // time to measure the capacity of a computing server
	limit  time.Duration // the machine is too busy if the play takes longer
}

// errTooSlow ends a play on a machine that does not keep up with its plan.
var errTooSlow = errors.New("it did not keep up with the plan")

// newPlay plans a demonstration of about a given length.
func newPlay(s *show, f flags) *play {
	p := &play{show: s, launch: launchChild, seed: f.seed, probe: 300 * time.Millisecond, limit: f.duration + 8*time.Second}
	var fixed time.Duration // time for the last callers of each step
	var weights float64
	for _, a := range acts {
		steps := len(a.Loads)
		if a.Computes { // bare and weir take turns, and there is a probe around each
			steps *= 2
			fixed += time.Duration(steps+1) * p.probe
		}
		fixed += time.Duration(steps) * patience
		weights += float64(steps) * a.weight
	}
	p.unit = time.Duration(float64(f.duration-fixed) / weights)
	return p
}

// perform runs all acts, and writes their tables.
func (p *play) perform(ctx context.Context, out io.Writer) error {
	for _, a := range acts {
		writeHead(out, a)
		run := p.together
		if a.Computes {
			run = p.inTurn
		}
		if err := run(ctx, a, func(rows [2]Row) {
			p.show.addRows(rows)
			writeRows(out, a, rows)
		}); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	return nil
}

// together measures servers that wait, bare and with weir at the same time. Disturbances of
// the machine affect both.
func (p *play) together(ctx context.Context, a act, each func([2]Row)) error {
	capacity := workers / waits.Seconds()
	for i, load := range a.Loads {
		var rows [2]Row
		var errs [2]error
		var both sync.WaitGroup
		for k, run := range []string{bare, withWeir} {
			both.Go(func() { rows[k], errs[k] = p.measure(ctx, p.stage(a, i, run, load, capacity, 0)) })
		}
		both.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			return err
		}
		each(rows)
	}
	return nil
}

// inTurn measures servers that compute one after the other, so that each has a processor.
// It measures the speed of the processor before and after each.
func (p *play) inTurn(ctx context.Context, a act, each func([2]Row)) error {
	rounds := overload.Rounds(burns)
	before, err := p.capacity(ctx, rounds)
	if err != nil {
		return err
	}
	for i, load := range a.Loads {
		var rows [2]Row
		for k, run := range []string{bare, withWeir} {
			rows[k], err = p.measure(ctx, p.stage(a, i, run, load, before, rounds))
			if err != nil {
				return err
			}
			after, err := p.capacity(ctx, rounds)
			if err != nil {
				return err
			}
			rows[k].between(before, after)
			before = after
		}
		each(rows)
	}
	return nil
}

// stage returns step i of an act.
func (p *play) stage(a act, i int, run string, load, capacity float64, rounds int) *stage {
	step := time.Duration(a.weight * float64(p.unit))
	return &stage{
		act: a, run: run, load: load, capacity: capacity,
		config: config{Weir: run == withWeir, Rounds: rounds, Seed: p.seed},
		step:   step, warm: time.Duration(a.warm * float64(step)),
		began: time.Duration(i) * (step + patience),
	}
}
