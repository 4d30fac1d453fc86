package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-go/weir/examples/internal/overload"
)

// patience is how long a caller waits, from the time at which it meant to call.
const patience = 750 * time.Millisecond

// A Row is the result of one server under one load. All of it is of the same window.
type Row struct {
	Act      string  `json:"act"`
	Run      string  `json:"run"`
	Load     float64 `json:"load"`
	Capacity float64 `json:"capacity"` // calls a second
	Offered  float64 `json:"offered"`  // calls a second
	Calls    int     `json:"calls"`    // offered
	Refused  int     `json:"refused"`  // of the offered calls
	Share    float64 `json:"share"`    // served in time, of capacity
	Served   float64 `json:"served"`   // served in time, of the offered calls
	P50      float64 `json:"p50"`      // milliseconds, of the served calls
	P99      float64 `json:"p99"`
	Wasted   float64 `json:"wasted"` // share of the work for callers that had given up
	Heap     float64 `json:"heap"`   // MiB, at most

	// These show disturbances of the machine. The first is the share of the callers that
	// it delayed. The second is the time that a call took to compute, divided by its time
	// on an idle processor. The third is the ratio of two measurements of that, before and
	// after.
	Late    float64 `json:"late"`
	Stretch float64 `json:"stretch"`
	Drift   float64 `json:"drift"`

	got float64 // share of a processor that the server got
}

// A Sample is the state at one moment.
type Sample struct {
	Act      string  `json:"act"`
	Run      string  `json:"run"`
	At       float64 `json:"at"` // seconds since the beginning of the act
	Load     float64 `json:"load"`
	Goodput  float64 `json:"goodput"` // calls a second
	Limit    int     `json:"limit"`
	InFlight int     `json:"inFlight"`
	Queue    int     `json:"queue"`
	Held     int     `json:"held"` // calls in the server, in any state
}

// A stage is a server under one load.
type stage struct {
	act            act
	run            string
	load, capacity float64
	config         config
	step, warm     time.Duration
	began          time.Duration // the beginning of the step, from that of the act
}

// measure puts a fresh server under a load for a step.
func (p *play) measure(ctx context.Context, s *stage) (Row, error) {
	callers := &overload.Load{Rate: s.load * s.capacity, Patience: patience, Seed: p.seed}
	w := &watch{stage: s, callers: callers, show: p.show}
	client, stop, err := p.launch(ctx, s.config, w.take)
	if err != nil {
		return Row{}, err
	}
	callers.Call = func(ctx context.Context) error { return client.Call(ctx, callers.Arrived.Load()) }
	w.start()
	callers.Run(ctx, s.step)
	if err := errors.Join(stop(), ctx.Err()); err != nil {
		return Row{}, err
	}
	r := callers.Between(s.warm, s.step)
	row := Row{
		Act: s.act.Name, Run: s.run, Load: s.load, Capacity: s.capacity,
		Offered: float64(r.Offered) / r.Seconds, Calls: r.Offered, Refused: r.Refused,
		Share: r.Goodput() / s.capacity, Served: ratio(r.Good, r.Offered),
		P50: r.P50.Seconds() * 1e3, P99: r.P99.Seconds() * 1e3,
		Late: ratio(r.Late, r.Offered), Stretch: 1, Drift: 1,
	}
	w.fill(&row)
	return row, nil
}

func ratio(part, whole int) float64 { return float64(part) / float64(max(1, whole)) }

// between corrects the capacity of a computing server by measurements before and after. If
// the server got more of a processor than these, its capacity was higher.
func (r *Row) between(before, after float64) {
	capacity := max((before+after)/2, r.got/burns.Seconds())
	r.Share *= r.Capacity / capacity
	r.Capacity = capacity
	r.Stretch = 1 / burns.Seconds() / min(before, after)
	r.Drift = max(before, after) / min(before, after)
}

// A watch collects a server's reports.
type watch struct {
	stage   *stage
	callers *overload.Load
	show    *show

	mu          sync.Mutex // guards the fields below
	begin       time.Time  // of the load; zero before
	last        report
	lastAt      time.Duration
	served      int64 // callers, at the last report
	windowBegan bool

	// The fields below are of the window.
	done, good int64
	took, cpu  time.Duration
	heap       float64
}

// start notes that callers come from now on.
func (w *watch) start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin = time.Now()
}

// take takes a report.
func (w *watch) take(r report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.begin.IsZero() {
		return
	}
	at, served := time.Since(w.begin), w.callers.Served.Load()
	if at > w.stage.step {
		return // only the last callers are left
	}
	if w.windowBegan {
		w.done += r.Done - w.last.Done
		w.good += served - w.served
		w.took += at - w.lastAt
		w.cpu += r.CPU - w.last.CPU
		w.heap = max(w.heap, r.Heap)
	}
	w.windowBegan = at >= w.stage.warm
	w.show.addSample(Sample{
		Act: w.stage.act.Name, Run: w.stage.run, Load: w.stage.load,
		At:      (w.stage.began + at).Seconds(),
		Goodput: float64(served-w.served) / max(at-w.lastAt, time.Millisecond).Seconds(),
		Limit:   r.Limit, InFlight: r.InFlight, Queue: r.Queue, Held: r.Held,
	})
	w.last, w.served, w.lastAt = r, served, at
}

// fill copies the reports of the window into a row.
func (w *watch) fill(r *Row) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r.Wasted = max(0, 1-ratio(int(w.good), int(w.done)))
	r.Heap = w.heap
	r.got = w.cpu.Seconds() / max(w.took, sampling).Seconds()
}

// capacity measures the calls a second of a computing server in a closed loop of a few
// callers. They are enough to keep it busy when the machine delays some of them, and too few
// to overload it.
func (p *play) capacity(ctx context.Context, rounds int) (float64, error) {
	client, stop, err := p.launch(ctx, config{Rounds: rounds, Seed: p.seed}, func(report) {})
	if err != nil {
		return 0, err
	}
	err = client.Call(ctx, 0) // connects
	var errs [8]error
	var served atomic.Int64
	var callers sync.WaitGroup
	begin := time.Now()
	for i := range errs {
		callers.Go(func() {
			for time.Since(begin) < p.probe && errs[i] == nil {
				errs[i] = client.Call(ctx, int64(i))
				served.Add(1)
			}
		})
	}
	callers.Wait()
	took := time.Since(begin)
	if err := errors.Join(err, errors.Join(errs[:]...), stop()); err != nil {
		return 0, err
	}
	return float64(served.Load()) / took.Seconds(), nil
}
