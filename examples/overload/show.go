package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"sync"
	"time"
)

//go:embed page.html
var page []byte

// A show is all that was seen so far, for the page. It is safe for concurrent
// use.
type show struct {
	mu      sync.Mutex // guards what follows
	state   state
	changed chan struct{} // closed when there is more, and replaced
	began   map[string]time.Time

	ending chan struct{} // closed when the page is about to go
}

// farewell is how long browsers have to take what came last.
const farewell = time.Second

type state struct {
	Capacity float64   `json:"capacity"`
	Loads    []float64 `json:"loads"`
	Rows     []Row     `json:"rows"`
	Samples  []Sample  `json:"samples"`
	Done     bool      `json:"done"`
	Warning  string    `json:"warning"` // about the machine, when done
}

func newShow() *show {
	return &show{
		state:   state{Capacity: 1600, Loads: loads, Rows: []Row{}, Samples: []Sample{}},
		changed: make(chan struct{}),
		began:   map[string]time.Time{},
		ending:  make(chan struct{}),
	}
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

func (s *show) addRow(r Row)       { s.change(func(st *state) { st.Rows = append(st.Rows, r) }) }
func (s *show) addSample(x Sample) { s.change(func(st *state) { st.Samples = append(st.Samples, x) }) }

// finish says that nothing more comes.
func (s *show) finish() {
	warning := s.warning()
	s.change(func(st *state) { st.Done, st.Warning = true, warning })
}

func (s *show) change(f func(*state)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.state)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *show) row(run string, load float64) Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.state.Rows {
		if r.Run == run && r.Load == load {
			return r
		}
	}
	return Row{}
}

// since returns what has come after the first rows and samples, as JSON, and
// what to wait on for more.
func (s *show) since(rows, samples int) (part state, more <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	part = s.state
	part.Rows, part.Samples = part.Rows[rows:], part.Samples[samples:]
	return part, s.changed
}

// serve serves the page and its events. The function that it returns stops it,
// once browsers have taken what came last: the last row is the one that counts.
func (s *show) serve(addr string) (url string, stop func(), err error) {
	lis, err := listen(addr)
	if err != nil {
		return "", nil, fmt.Errorf("overload: -addr: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page) // the browser has left: nobody to tell
	})
	mux.HandleFunc("GET /events", s.events)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(lis) })
	return "http://" + lis.Addr().String(), func() {
		close(s.ending)
		ctx, cancel := context.WithTimeout(context.Background(), farewell)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close() // whoever does not read is not waited for
		}
		wg.Wait()
	}, nil
}

// events sends what has come so far, and then what comes, as server-sent events.
func (s *show) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flush := http.NewResponseController(w)
	last := false
	for rows, samples := 0, 0; ; {
		part, more := s.since(rows, samples)
		rows, samples = rows+len(part.Rows), samples+len(part.Samples)
		data, err := json.Marshal(part)
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(w, "data: %s\n\n", data); err != nil {
			return
		}
		if err := flush.Flush(); err != nil || part.Done || last {
			return
		}
		select {
		case <-more:
		case <-s.ending:
			last = true // send what has come meanwhile
		case <-r.Context().Done():
			return
		}
	}
}

// writable says why the page can't be kept in a file, before the time is spent
// that it takes to fill it. It leaves the file as it was.
func writable(file string) error {
	_, before := os.Lstat(file)
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("overload: -html: got a file that can't be written, want one that can: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("overload: -html: %w", err)
	}
	if errors.Is(before, fs.ErrNotExist) {
		return os.Remove(file)
	}
	return nil
}

// save keeps the page with all its data in a file.
func (s *show) save(file string) error {
	part, _ := s.since(0, 0)
	data, err := json.Marshal(part)
	if err != nil {
		return fmt.Errorf("overload: -html: %w", err)
	}
	kept := bytes.Replace(page, []byte("/*DATA*/null"), data, 1)
	if err := os.WriteFile(file, kept, 0o644); err != nil {
		return fmt.Errorf("overload: -html: %w", err)
	}
	return nil
}
