package main

import (
	"strings"
	"testing"
	"time"

	"github.com/weir-go/weir/examples/internal/container"
)

func TestParse(t *testing.T) {
	for args, want := range map[string]string{
		"":                       "",
		"-seed 3 -addr":          "needs an argument",
		"-seed 3 x":              `got argument "x", want flags only`,
		"-html /no/such/place/x": "-html: got a file that can't be written",
	} {
		_, err := parse(strings.Fields(args))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want an error that says %q", args, err, want)
		}
	}
}

// The verdict says what was promised and kept, what was not, and when nothing was shown.
func TestJudge(t *testing.T) {
	dead := container.Result{Died: 8 * time.Second, Exit: 2, Peak: memory, Before: 1}
	well := container.Result{Peak: 50 << 20, Before: 1, After: 1, Critical: 1}
	with := func(change func(*container.Result)) container.Result {
		r := well
		change(&r)
		return r
	}
	for _, c := range []struct {
		bare, weir container.Result
		want       string
	}{
		{dead, well, "As promised: the bare server dies 5.0 s after"},
		{well, well, "No verdict"},
		{dead, with(func(r *container.Result) { r.Late = 0.5 }), "No verdict"},
		{dead, with(func(r *container.Result) { r.Died = time.Second }), "Not as promised: with weir the server died"},
		{dead, with(func(r *container.Result) { r.After = 0.9 }), "Not as promised"},
		{dead, with(func(r *container.Result) { r.Critical = 0.9 }), "Not as promised"},
		{container.Result{}, well, "No verdict: this system"},
	} {
		if got := judge(c.bare, c.weir); !strings.HasPrefix(got, c.want) {
			t.Errorf("bare %v, weir %v: got %q, want %q", c.bare, c.weir, got, c.want)
		}
	}
}
