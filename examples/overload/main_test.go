package main

import (
	"bytes"
	"context"
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
		"too short": {[]string{"-duration", "47s"}, "got 47s, want at least 48s"},
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

// The whole program, with real processes, too briefly for its figures to mean
// anything: it ends, with a table for each act, a verdict and the page.
func TestDemonstration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.html")
	p := newPlay(newShow(), flags{duration: shortest, seed: 1})
	p.unit, p.probe, p.limit = 50*time.Millisecond, 20*time.Millisecond, time.Hour
	var out bytes.Buffer
	if err := demonstrate(t.Context(), flags{addr: "127.0.0.1:0", html: file}, p, &out); err != nil {
		t.Fatalf("demonstrate: got %v, want no error", err)
	}
	steps := 0
	for _, a := range acts {
		steps += len(a.Loads)
		if !strings.Contains(out.String(), a.Title) {
			t.Errorf("output: got %q, want an act called %q", out.String(), a.Title)
		}
	}
	var got part
	for _, p := range keptParts(t, file) {
		got.Rows, got.Samples, got.Verdict = append(got.Rows, p.Rows...), append(got.Samples, p.Samples...), p.Verdict
	}
	if len(got.Rows) != 2*steps || got.Verdict == nil {
		t.Errorf("data of the page: got %d rows, verdict %v, want %d rows and a verdict", len(got.Rows), got.Verdict, 2*steps)
	}
	for _, outside := range []string{"https://", "//cdn", "src="} {
		if strings.Contains(string(page), outside) {
			t.Errorf("the page has %q, want nothing from elsewhere", outside)
		}
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := demonstrate(ctx, flags{}, newPlay(newShow(), flags{duration: shortest}), &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("demonstrate after an interrupt: got %v, want an error that says so", err)
	}
}

// A machine that does not keep up ends the demonstration in time, without a verdict.
func TestTooSlow(t *testing.T) {
	p := newPlay(newShow(), flags{duration: shortest})
	p.limit = time.Millisecond
	var out bytes.Buffer
	if err := demonstrate(t.Context(), flags{}, p, &out); err != nil {
		t.Fatalf("demonstrate: got %v, want no error", err)
	}
	if !strings.Contains(out.String(), "\nNo verdict: ") || strings.Contains(out.String(), "promised") {
		t.Errorf("output: got %q, want no verdict", out.String())
	}
}

// All steps, probes and last callers together take what was asked for.
func TestPlanFitsTheDuration(t *testing.T) {
	for _, d := range []time.Duration{shortest, 50 * time.Second, 3 * time.Minute} {
		p := newPlay(newShow(), flags{duration: d})
		var total time.Duration
		for _, a := range acts {
			for i, load := range a.Loads {
				s := p.stage(a, i, bare, load, 1, 0)
				if a.Computes {
					total += 2*(s.step+patience+p.probe) + p.probe/time.Duration(len(a.Loads))
				} else {
					total += s.step + patience
				}
				if load > 1 && s.warm < 2*patience {
					t.Errorf("%v, %s at %gx: counts after %v, want not before a bare server works for nobody, %v",
						d, a.Title, load, s.warm, 2*patience)
				}
			}
		}
		if off := total - d; off > time.Millisecond || off < -time.Millisecond {
			t.Errorf("a demonstration of %v: planned %v", d, total)
		}
	}
}
