package main

import (
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFlags(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"too short": {[]string{"-duration", "1s"}, "got 1s, want at least 2s"},
		"argument":  {[]string{"now"}, `got argument "now"`},
		"seed":      {[]string{"-seed", "x"}, "invalid value"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parse(tt.args); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("parse(%q): got %v, want an error with %q", tt.args, err, tt.want)
			}
		})
	}
}

// TestDemonstration runs all of it, briefly, and reads what it leaves.
func TestDemonstration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.html")
	if err := demonstrate(t.Context(), flags{duration: shortest, addr: "127.0.0.1:0", seed: 1, html: file}); err != nil {
		t.Fatalf("demonstrate: got %v, want no error", err)
	}
	var got part
	for _, p := range keptParts(t, file) {
		got.Rows, got.Samples, got.Done = append(got.Rows, p.Rows...), append(got.Samples, p.Samples...), p.Done
	}
	if len(got.Rows) != 2*len(loads) || !got.Done || len(got.Samples) == 0 {
		t.Errorf("data of the page: got %d rows, %d samples, done %v, want %d rows, some samples, done",
			len(got.Rows), len(got.Samples), got.Done, 2*len(loads))
	}
	for _, outside := range []string{"https://", "//cdn", "src="} {
		if strings.Contains(string(page), outside) {
			t.Errorf("the page has %q, want nothing from elsewhere", outside)
		}
	}
}

// TestLivePage: a browser that comes late gets all that it missed, and the rest.
func TestLivePage(t *testing.T) {
	s := newShow()
	url, stop, err := s.Serve("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	s.addRow(Row{Run: bare, Load: 1})
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(url + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	s.addRow(Row{Run: withWeir, Load: 1})
	s.finish()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for event := range strings.SplitSeq(strings.TrimSpace(string(all)), "\n\n") {
		var parts []part
		if err := json.Unmarshal([]byte(strings.TrimPrefix(event, "data: ")), &parts); err != nil {
			t.Fatalf("event %q: got %v, want JSON", event, err)
		}
		for _, p := range parts {
			rows += len(p.Rows)
		}
	}
	if rows != 2 {
		t.Errorf("rows: got %d, want 2", rows)
	}
}

func TestReading(t *testing.T) {
	s := newShow()
	for _, load := range loads {
		s.addRow(Row{Run: bare, Load: load, Share: min(load, 1) * map[bool]float64{true: 1, false: .1}[load < 2], Wasted: .9})
		s.addRow(Row{Run: withWeir, Load: load, Share: .5})
	}
	got := s.reading()
	for _, want := range []string{"bare server does 10 %", "defaults 50 %", "breaks at 2x", "90 % of its work"} {
		if !strings.Contains(got, want) {
			t.Errorf("reading: got %q, want it to contain %q", got, want)
		}
	}
}
