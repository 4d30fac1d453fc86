// Package overload has a server of exactly known capacity and an open loop of callers. It
// shows an overload in a benchmark, a test or a demonstration.
package overload

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// A Shape is the distribution of service times. It is Exponential, Constant or Bimodal.
type Shape int

const (
	// Exponential service times vary as much as their mean.
	Exponential Shape = iota
	// Constant service times do not vary.
	Constant
	// Bimodal service times are ten times as long for one call in ten.
	Bimodal
)

// Config describes a Service. Workers and Mean must be positive.
type Config struct {
	// Workers is the number of calls that are served at once.
	Workers int
	// Mean is the mean service time.
	Mean time.Duration
	// Shape is the distribution of service times.
	Shape Shape
	// Slowdown lengthens a call for each call that waits when it begins. It models
	// contention, caches and garbage. 0.01 is one per cent.
	Slowdown float64
	// Seed makes the service times reproducible.
	Seed uint64
}

// A Service serves a number of calls at once. The others wait in order, without a bound, as
// in a server without protection. It is safe for concurrent use. Like most handlers, it
// finishes calls of callers that are gone.
//
// Timers fire late, by a tenth of a millisecond and more. That is due to the machine. So the
// next call of a worker begins when the last one should have ended. Otherwise lateness
// would look like lost capacity.
type Service struct {
	cfg Config

	mu      sync.Mutex // guards the fields below
	random  *rand.Rand
	idle    []worker
	busy    int
	workers int
	queue   []chan worker
	closed  chan struct{}
	work    Work
}

// Work is the work of a Service so far, in service time.
type Work struct {
	// Useful was for callers that were still there at the end, Wasted for the others.
	Useful, Wasted time.Duration
	// Waiting is the number of calls that wait for a worker now, Busy the number that
	// are served.
	Waiting, Busy int
}

// A worker records when it should have been free, and how late its last timer was.
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

// Capacity returns the number of calls a second that the service can serve.
func (s *Service) Capacity() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.workers) / s.cfg.Mean.Seconds()
}

// SetWorkers changes the capacity while calls run. Running calls finish.
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

// Work returns the work so far.
func (s *Service) Work() Work {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.work
	w.Waiting, w.Busy = len(s.queue), s.busy
	return w
}

// Close ends every waiting call without serving it. Running calls finish.
func (s *Service) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
}

// Serve serves one call. It blocks until a worker is free, and then for the service time.
// It uses ctx only to tell useful work from wasted work.
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

// releaseLocked gives a worker to the oldest waiting call.
func (s *Service) releaseLocked(w worker) {
	if len(s.queue) == 0 {
		s.idle = append(s.idle, w)
		return
	}
	turn := s.queue[0]
	s.queue = s.queue[1:]
	s.busy++
	// Calls waited all the time, so the next one begins when this one should have ended.
	turn <- worker{freeAt: w.freeAt, late: time.Since(w.freeAt)}
}
