package main

import (
	_ "embed"
	"sync"
	"time"

	"github.com/weir-go/weir/examples/internal/live"
)

//go:embed page.html
var page []byte

// A show is all that was seen so far, for the page. It is safe for concurrent
// use.
type show struct {
	*live.Feed

	mu    sync.Mutex // guards what follows
	rows  []Row
	began map[string]time.Time
}

// A part is what the page is told at once.
type part struct {
	Capacity float64   `json:"capacity,omitempty"`
	Loads    []float64 `json:"loads,omitempty"`
	Rows     []Row     `json:"rows,omitempty"`
	Samples  []Sample  `json:"samples,omitempty"`
	Done     bool      `json:"done,omitempty"`
	Warning  string    `json:"warning,omitempty"` // about the machine, when done
}

func newShow() *show {
	s := &show{Feed: live.New(page), began: map[string]time.Time{}}
	s.Publish(part{Capacity: 1600, Loads: loads}, false)
	return s
}

// clock returns what tells the seconds since a run began.
func (s *show) clock(run string) func() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.began[run].IsZero() {
		s.began[run] = time.Now()
	}
	began := s.began[run]
	return func() float64 { return time.Since(began).Seconds() }
}

func (s *show) addRow(r Row) {
	s.mu.Lock()
	s.rows = append(s.rows, r)
	s.mu.Unlock()
	s.Publish(part{Rows: []Row{r}}, false)
}

func (s *show) addSample(x Sample) { s.Publish(part{Samples: []Sample{x}}, false) }

// finish says that nothing more comes.
func (s *show) finish() { s.Publish(part{Done: true, Warning: s.warning()}, true) }

func (s *show) row(run string, load float64) Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rows {
		if r.Run == run && r.Load == load {
			return r
		}
	}
	return Row{}
}
