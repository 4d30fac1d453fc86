package main

import (
	_ "embed"
	"slices"
	"sync"

	"github.com/weir-go/weir/examples/internal/live"
)

//go:embed page.html
var page []byte

// A show holds all results so far, for the page. It is safe for concurrent use.
type show struct {
	*live.Feed

	mu   sync.Mutex // guards the fields below
	rows []Row
}

// A part is an update of the page.
type part struct {
	Acts     []act    `json:"acts,omitempty"`
	Patience float64  `json:"patience,omitempty"` // milliseconds
	Rows     []Row    `json:"rows,omitempty"`
	Samples  []Sample `json:"samples,omitempty"`
	Verdict  *Verdict `json:"verdict,omitempty"` // the last part has it
}

func newShow() *show {
	s := &show{Feed: live.New(page)}
	s.Publish(part{Acts: acts, Patience: patience.Seconds() * 1e3}, false)
	return s
}

func (s *show) addRows(rows [2]Row) {
	s.mu.Lock()
	s.rows = append(s.rows, rows[:]...)
	s.mu.Unlock()
	s.Publish(part{Rows: rows[:]}, false)
}

func (s *show) addSample(x Sample) { s.Publish(part{Samples: []Sample{x}}, false) }

// all returns the rows so far.
func (s *show) all() []Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rows)
}

// finish tells the page that it is complete.
func (s *show) finish(v Verdict) { s.Publish(part{Verdict: &v}, true) }
