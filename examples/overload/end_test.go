package main

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// watchPage opens the events as a browser does, reads the first, and returns
// what counts the rows of all, once the stream has ended.
func watchPage(t *testing.T, url string) func() (rows int, done bool) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(url + "/events")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = resp.Body.Close()
		client.CloseIdleConnections()
	})
	events := bufio.NewScanner(resp.Body)
	events.Buffer(nil, 1<<20)
	if !events.Scan() {
		t.Fatalf("first event: got none, %v, want one", events.Err())
	}
	return func() (rows int, done bool) {
		for events.Scan() {
			data, is := strings.CutPrefix(events.Text(), "data: ")
			if !is {
				continue
			}
			var part state
			if err := json.Unmarshal([]byte(data), &part); err != nil {
				t.Fatalf("event %q: got %v, want JSON", data, err)
			}
			rows, done = rows+len(part.Rows), part.Done
		}
		if err := events.Err(); err != nil {
			t.Errorf("events: got %v, want an orderly end", err)
		}
		return rows, done
	}
}

// The last row comes at the very end, and is the one that counts: a page that
// is open sees it although the program ends.
func TestLastRowArrives(t *testing.T) {
	s := newShow()
	url, stop, err := s.serve("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	browsers := make([]func() (int, bool), 8)
	for i := range browsers {
		browsers[i] = watchPage(t, url)
	}
	s.addRow(Row{Run: withWeir, Load: 8})
	s.finish()
	stop()
	for i, end := range browsers {
		if rows, done := end(); rows != 1 || !done {
			t.Errorf("browser %d: got %d rows, done %v, want 1 row, done", i, rows, done)
		}
	}
}

// A program that is interrupted does not wait for the pages that are open, and
// does not tell them that all is done.
func TestStopWhileWatched(t *testing.T) {
	s := newShow()
	url, stop, err := s.serve("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	end := watchPage(t, url)
	stop()
	if rows, done := end(); rows != 0 || done {
		t.Errorf("page of a program that was interrupted: got %d rows, done %v, want none, not done", rows, done)
	}
}

// Every mistake is named at once, and before the demonstration, not after it.
func TestAllFlagsChecked(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "no", "page.html")
	_, err := parse([]string{"-duration", "1s", "-html", missing, "now"})
	if err == nil {
		t.Fatal("three mistakes: got no error, want all three named")
	}
	for _, want := range []string{"-duration: got 1s", `got argument "now"`, "-html: got a file that can't be written"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("three mistakes: got %q, want it to contain %q", err, want)
		}
	}
}

// A machine that is too busy to tell is said to be so, and a quiet one is not.
func TestWarning(t *testing.T) {
	s := newShow()
	s.addRow(Row{Run: bare, Load: 8, Late: 1}) // it does that to itself
	s.addRow(Row{Run: withWeir, Load: 8, Late: tooMany})
	if got := s.warning(); got != "" {
		t.Errorf("warning of a quiet machine: got %q, want none", got)
	}
	s.finish()
	if part, _ := s.since(0, 0); part.Warning != "" {
		t.Errorf("page of a quiet machine: got warning %q, want none", part.Warning)
	}
	s.addRow(Row{Run: withWeir, Load: 4, Late: 0.4})
	s.finish()
	if got, want := s.reading(), "40 % of the callers at 4x with weir set off more than 10ms late"; !strings.Contains(got, want) {
		t.Errorf("reading of a busy machine: got %q, want it to contain %q", got, want)
	}
	if part, _ := s.since(0, 0); part.Warning != s.warning() {
		t.Errorf("page of a busy machine: got warning %q, want %q", part.Warning, s.warning())
	}
}

// A caller is late by what is missing of its patience.
func TestNoteLateness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			left time.Duration
			want int64
		}{{patience, 0}, {patience - heldUp, 0}, {patience - heldUp - 1, 1}} {
			ctx, cancel := context.WithTimeout(t.Context(), tt.left)
			var s stage
			s.noteLateness(ctx)
			if got := s.late.Load(); got != tt.want {
				t.Errorf("late callers, %v of %v left: got %d, want %d", tt.left, patience, got, tt.want)
			}
			cancel()
		}
	})
}

// Asking whether a file can be written leaves no trace.
func TestWritable(t *testing.T) {
	dir := t.TempDir()
	fresh, old := filepath.Join(dir, "fresh"), filepath.Join(dir, "old")
	if err := os.WriteFile(old, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{fresh, old} {
		if err := writable(file); err != nil {
			t.Errorf("writable(%s): got %v, want no error", filepath.Base(file), err)
		}
	}
	if _, err := os.Stat(fresh); !os.IsNotExist(err) {
		t.Errorf("a file that was not there: got %v, want that it still is not", err)
	}
	if got, err := os.ReadFile(old); string(got) != "kept" {
		t.Errorf("a file that was there: got %q, %v, want %q", got, err, "kept")
	}
}
