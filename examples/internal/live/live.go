// Package live serves a page with live data of a program. A browser gets all data so far,
// and then new data as server-sent events.
package live

import (
	"bytes"
	"context"
	_ "embed" // the shared parts of pages
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

//go:embed style.css
var style []byte

//go:embed script.js
var script []byte

// A Feed is a page and its data, which is a growing list of parts. The page gets the parts as
// server-sent events from /events. Each event is a JSON array of the new parts. A page that
// is kept in a file contains all parts. A Feed is safe for concurrent use.
type Feed struct {
	page []byte

	mu      sync.Mutex // guards the fields below
	parts   []json.RawMessage
	done    bool
	changed chan struct{} // closed and replaced when there is a new part

	ending chan struct{} // closed when the page is about to end

	state atomic.Pointer[http.Handler] // of /debug/weir
}

// New returns a feed for a page. In the page, /*STYLE*/ and /*SCRIPT*/ stand for the shared
// style and script. The page's own script defines the functions take, which gets each part,
// and draw. It calls follow.
func New(page []byte) *Feed {
	page = bytes.Replace(page, []byte("/*STYLE*/"), style, 1)
	page = bytes.Replace(page, []byte("/*SCRIPT*/"), script, 1)
	return &Feed{page: page, changed: make(chan struct{}), ending: make(chan struct{})}
}

// ShowState serves the state of the program at /debug/weir. Nil ends that.
func (f *Feed) ShowState(h http.Handler) { f.state.Store(&h) }

func (f *Feed) serveState(w http.ResponseWriter, r *http.Request) {
	if h := f.state.Load(); h != nil && *h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	http.NotFound(w, r)
}

// Publish adds a part. It must be possible to encode it as JSON. Last marks the last part.
func (f *Feed) Publish(part any, last bool) {
	data, err := json.Marshal(part)
	if err != nil {
		data = fmt.Appendf(nil, `{"error": %q}`, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parts, f.done = append(f.parts, data), last
	close(f.changed)
	f.changed = make(chan struct{})
}

// since returns the parts after the first n, whether the feed is complete, and a channel
// that is closed when there are more.
func (f *Feed) since(n int) (parts []json.RawMessage, done bool, more <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.parts[n:], f.done, f.changed
}

// farewell bounds the time for which browsers may take the last parts.
const farewell = time.Second

// Serve serves the page at an address, or on a free port of the same host if the address is
// taken. stop ends the server once browsers have taken the last parts.
func (f *Feed) Serve(addr string) (url string, stop func(), err error) {
	lis, err := listen(addr)
	if err != nil {
		return "", nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(f.page) // an error means that the browser has left
	})
	mux.HandleFunc("GET /events", f.events)
	mux.HandleFunc("/debug/weir", f.serveState)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(lis) })
	return "http://" + lis.Addr().String(), func() {
		close(f.ending)
		ctx, cancel := context.WithTimeout(context.Background(), farewell)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close() // do not wait for browsers that do not read
		}
		wg.Wait()
	}, nil
}

func listen(addr string) (net.Listener, error) {
	lis, err := net.Listen("tcp", addr)
	if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
		return lis, err
	}
	host, _, _ := net.SplitHostPort(addr)
	return net.Listen("tcp", net.JoinHostPort(host, "0"))
}

func (f *Feed) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flush := http.NewResponseController(w)
	last := false
	for sent := 0; ; {
		parts, done, more := f.since(sent)
		sent += len(parts)
		data, err := json.Marshal(parts)
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(w, "data: %s\n\n", data); err != nil {
			return
		}
		if err := flush.Flush(); err != nil || done || last {
			return
		}
		select {
		case <-more:
		case <-f.ending:
			last = true // send the parts that came meanwhile
		case <-r.Context().Done():
			return
		}
	}
}

// Writable returns an error if the page cannot be written to a file. Call it before the work
// that fills the page. It does not change the file.
func Writable(file string) error {
	_, before := os.Lstat(file)
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("got a file that can't be written, want one that can: %w", err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	if errors.Is(before, fs.ErrNotExist) {
		return os.Remove(file)
	}
	return nil
}

// Save keeps the page with all its data in a file.
func (f *Feed) Save(file string) error {
	parts, _, _ := f.since(0)
	data, err := json.Marshal(parts)
	if err != nil {
		return err
	}
	return os.WriteFile(file, bytes.Replace(f.page, []byte("/*DATA*/null"), data, 1), 0o644)
}
