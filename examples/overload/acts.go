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

// An act is one kind of server under one or more loads.
type act struct {
	Name     string    `json:"name"`
	Title    string    `json:"title"`
	Loads    []float64 `json:"loads"` // what callers ask for, as multiples of what the server can do
	Computes bool      `json:"computes"`

	weight float64 // of each of its steps, in time
	warm   float64 // part of a step that is not counted
}

// The acts. Not quite half of a step is for a bare server to fill up, and for weir
// to find its limit: at 2x the calls that end late begin after patience and end
// after twice that. The harmless day counts from the first call on.
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

// harmless reports whether the server can do all that is asked.
func (a act) harmless() bool { return a.Loads[len(a.Loads)-1] < 1 }

// A play is a demonstration under way.
type play struct {
	show   *show
	launch launcher
	seed   uint64
	unit   time.Duration // a step of weight 1
	probe  time.Duration // how long it takes to find out what a computing server can do
	limit  time.Duration // after which the machine is too busy to go on
}

// errTooSlow ends a play on a machine that does not keep up with its plan.
var errTooSlow = errors.New("it did not keep up with the plan")

// newPlay plans a demonstration that takes about as long as is said.
func newPlay(s *show, f flags) *play {
	p := &play{show: s, launch: launchChild, seed: f.seed, probe: 300 * time.Millisecond, limit: f.duration + 8*time.Second}
	var fixed time.Duration // the last callers of each step are waited for
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

// together measures servers that wait, bare and with weir at the same time: what
// the machine does meanwhile falls on both.
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

// inTurn measures servers that compute one after the other, so that each has a
// processor. What it is worth is found out before and after each.
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

// stage returns what is to be measured: step i of an act.
func (p *play) stage(a act, i int, run string, load, capacity float64, rounds int) *stage {
	step := time.Duration(a.weight * float64(p.unit))
	return &stage{
		act: a, run: run, load: load, capacity: capacity,
		config: config{Weir: run == withWeir, Rounds: rounds, Seed: p.seed},
		step:   step, warm: time.Duration(a.warm * float64(step)),
		began: time.Duration(i) * (step + patience),
	}
}
