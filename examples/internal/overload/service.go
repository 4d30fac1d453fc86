// Package overload is a server whose capacity is known exactly, and callers
// that do not wait for it: what one needs to see an overload, in a benchmark,
// a test or a demonstration.
package overload

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// A Shape is how service times vary around their mean.
type Shape int

const (
	// Exponential service times vary as much as their mean.
	Exponential Shape = iota
	// Constant service times do not vary.
	Constant
	// Bimodal service times: one call in ten takes ten times as long as the others.
	Bimodal
)

// Config describes a Service. Workers and Mean must be positive.
type Config struct {
	// Workers is how many calls are served at once.
	Workers int
	// Mean is the mean service time.
	Mean time.Duration
	// Shape is how it varies.
	Shape Shape
	// Slowdown is by how much each call that waits for a worker slows down
	// the one that begins: contention, caches, garbage. 0.01 is one per cent.
	Slowdown float64
	// Seed makes the service times reproducible.
	Seed uint64
}

// A Service serves so many calls at once and lets the others wait, in order,
// for as long as it takes: a server without protection. It is safe for
// concurrent use.
//
// It finishes what it began even if the caller is gone: most handlers do.
//
// Timers fire late, by a tenth of a millisecond and more. That is this machine's
// fault and not the service's, so a worker's next call begins when its last
// should have ended; otherwise lateness would look like lost capacity.
type Service struct {
	cfg Config

	mu      sync.Mutex // guards what follows
	random  *rand.Rand
	idle    []worker
	busy    int
	workers int
	queue   []chan worker
	closed  chan struct{}
	work    Work
}

// Work is what a Service has done, in service time.
type Work struct {
	// Useful was for callers that were still there at the end, Wasted for others.
	Useful, Wasted time.Duration
	// Waiting is how many calls wait for a worker now, Busy how many are served.
	Waiting, Busy int
}

// A worker is when it should have been free, and how late its last timer was.
type worker struct {
	freeAt time.Time
	late   time.Duration
}

// NewService returns a Service. Close it when done.
func NewService(c Config) *Service {
	s := &Service{
		cfg:     c,
		random:  rand.New(rand.NewPCG(c.Seed, 42)),
		idle:    make([]worker, c.Workers),
		workers: c.Workers,
		closed:  make(chan struct{}),
	}
	return s
}

// Capacity is how many calls a second the service can serve.
func (s *Service) Capacity() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.workers) / s.cfg.Mean.Seconds()
}

// SetWorkers changes the capacity while calls run; those under way are finished.
func (s *Service) SetWorkers(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workers = n
	for s.busy+len(s.idle) > n && len(s.idle) > 0 {
		s.idle = s.idle[1:]
	}
	for s.busy+len(s.idle) < n {
		s.releaseLocked(worker{freeAt: time.Now()})
	}
}

// SetMean changes the mean service time of the calls that begin from now on.
func (s *Service) SetMean(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.Mean = d
}

// Work returns what was done so far.
func (s *Service) Work() Work {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.work
	w.Waiting, w.Busy = len(s.queue), s.busy
	return w
}

// Close lets every waiting call go, unserved. Calls that are served are finished.
func (s *Service) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
}

// Serve serves one call: it waits for a worker and then for the service time.
// It does not heed ctx, except to tell useful work from wasted.
func (s *Service) Serve(ctx context.Context) {
	w, ok := s.take()
	if !ok {
		return
	}
	now := time.Now()
	begin := now.Add(-w.late)
	if begin.Before(w.freeAt) {
		begin = w.freeAt
	}
	t := s.serviceTime()
	end := begin.Add(t)
	time.Sleep(time.Until(end))
	s.done(worker{freeAt: end, late: max(0, time.Since(end))}, t, ctx.Err() != nil)
}

// take waits for a worker. It reports false when the service is closed.
func (s *Service) take() (worker, bool) {
	s.mu.Lock()
	if len(s.idle) > 0 {
		w := s.idle[0]
		s.idle = s.idle[1:]
		s.busy++
		s.mu.Unlock()
		return w, true
	}
	turn := make(chan worker, 1)
	s.queue = append(s.queue, turn)
	s.mu.Unlock()
	select {
	case w := <-turn:
		return w, true
	case <-s.closed:
		return worker{}, false
	}
}

func (s *Service) serviceTime() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := 1.0
	switch s.cfg.Shape {
	case Exponential:
		f = s.random.ExpFloat64()
	case Bimodal:
		f = 1 / 1.9
		if s.random.IntN(10) == 0 {
			f = 10 / 1.9
		}
	case Constant:
	}
	f *= 1 + s.cfg.Slowdown*float64(len(s.queue))
	return time.Duration(f * float64(s.cfg.Mean))
}

func (s *Service) done(w worker, t time.Duration, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if gone {
		s.work.Wasted += t
	} else {
		s.work.Useful += t
	}
	s.busy--
	if s.busy+len(s.idle) < s.workers {
		s.releaseLocked(w)
	}
}

// releaseLocked gives a worker to the call that has waited longest.
func (s *Service) releaseLocked(w worker) {
	if len(s.queue) == 0 {
		s.idle = append(s.idle, w)
		return
	}
	turn := s.queue[0]
	s.queue = s.queue[1:]
	s.busy++
	// It was wanted all the time: the next call begins when this one should have ended.
	turn <- worker{freeAt: w.freeAt, late: time.Since(w.freeAt)}
}
