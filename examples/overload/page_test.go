package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-go/weir/examples/internal/live"
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
			var parts []part
			if err := json.Unmarshal([]byte(data), &parts); err != nil {
				t.Fatalf("event %q: got %v, want JSON", data, err)
			}
			for _, p := range parts {
				rows, done = rows+len(p.Rows), p.Verdict != nil
			}
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
	url, stop, err := s.Serve("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	browsers := make([]func() (int, bool), 8)
	for i := range browsers {
		browsers[i] = watchPage(t, url)
	}
	s.addRows([2]Row{{Run: bare, Load: 8}, {Run: withWeir, Load: 8}})
	s.finish(Verdict{})
	stop()
	for i, end := range browsers {
		if rows, done := end(); rows != 2 || !done {
			t.Errorf("browser %d: got %d rows, done %v, want 2 rows, done", i, rows, done)
		}
	}
}

// A program that is interrupted does not wait for the pages that are open, and
// does not tell them that all is done.
func TestStopWhileWatched(t *testing.T) {
	s := newShow()
	url, stop, err := s.Serve("127.0.0.1:0")
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
	for _, want := range []string{"-duration: got 1s, want at least 48s", `got argument "now"`, "-html: got a file that can't be written"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("three mistakes: got %q, want it to contain %q", err, want)
		}
	}
}

// keptParts returns the data of a page that is kept.
func keptParts(t *testing.T, file string) (parts []part) {
	t.Helper()
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, data, found := strings.Cut(string(kept), "const kept = ")
	if !found {
		t.Fatal("the page has no place for its data")
	}
	if err := json.NewDecoder(strings.NewReader(data)).Decode(&parts); err != nil {
		t.Fatalf("data of the page: got %v, want JSON", err)
	}
	return parts
}

// Asking whether a file can be written leaves no trace.
func TestWritable(t *testing.T) {
	dir := t.TempDir()
	fresh, old := filepath.Join(dir, "fresh"), filepath.Join(dir, "old")
	if err := os.WriteFile(old, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{fresh, old} {
		if err := live.Writable(file); err != nil {
			t.Errorf("live.Writable(%s): got %v, want no error", filepath.Base(file), err)
		}
	}
	if _, err := os.Stat(fresh); !os.IsNotExist(err) {
		t.Errorf("a file that was not there: got %v, want that it still is not", err)
	}
	if got, err := os.ReadFile(old); string(got) != "kept" {
		t.Errorf("a file that was there: got %q, %v, want %q", got, err, "kept")
	}
}
