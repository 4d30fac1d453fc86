package admit

import (
	"math"
	"strings"

	"github.com/weir-go/weir/limit"
)

// A maker makes the limit that an object describes.
type maker = func() (limit.Algorithm, error)

// algorithms are the ways to make a limit from a document.
var algorithms = map[string]struct {
	keys []string
	make func(*reader, *node) maker
}{
	"adaptive": {[]string{"initial", "min", "max"}, func(r *reader, n *node) maker {
		var c limit.AdaptiveConfig
		r.bounds(n, &c.Initial, &c.Min, &c.Max)
		return func() (limit.Algorithm, error) { return limit.NewAdaptive(c) }
	}},
	"fixed": {[]string{"limit"}, func(r *reader, n *node) maker {
		size := 0
		if n.get("limit") == nil {
			r.wrong(n, `got a fixed limit without "limit", want how many calls may run`)
			return nil
		}
		r.positive(n.get("limit"), limit.Max, &size)
		return func() (limit.Algorithm, error) { return limit.NewFixed(size) }
	}},
	"aimd": {[]string{"initial", "min", "max", "timeout", "backoff"}, func(r *reader, n *node) maker {
		var c limit.AIMDConfig
		r.bounds(n, &c.Initial, &c.Min, &c.Max)
		if d, ok := r.duration(n.get("timeout")); ok {
			if c.Timeout = d; d == 0 {
				r.wrong(n.get("timeout"), "got 0, want more than 0")
			}
		}
		r.fraction(n.get("backoff"), &c.Backoff)
		return func() (limit.Algorithm, error) { return limit.NewAIMD(c) }
	}},
	"vegas": {[]string{"initial", "min", "max", "alpha", "beta", "probe_windows"}, func(r *reader, n *node) maker {
		var c limit.VegasConfig
		r.bounds(n, &c.Initial, &c.Min, &c.Max)
		r.fraction(n.get("alpha"), &c.Alpha)
		r.fraction(n.get("beta"), &c.Beta)
		r.positive(n.get("probe_windows"), math.MaxInt32, &c.ProbeWindows)
		return func() (limit.Algorithm, error) { return limit.NewVegas(c) }
	}},
	"gradient": {[]string{"initial", "min", "max", "tolerance", "smoothing", "long_windows"}, func(r *reader, n *node) maker {
		var c limit.GradientConfig
		r.bounds(n, &c.Initial, &c.Min, &c.Max)
		r.fraction(n.get("tolerance"), &c.Tolerance)
		r.fraction(n.get("smoothing"), &c.Smoothing)
		r.positive(n.get("long_windows"), math.MaxInt32, &c.LongWindows)
		return func() (limit.Algorithm, error) { return limit.NewGradient(c) }
	}},
}

// bounds reads the three limits that every moving algorithm has.
func (r *reader) bounds(n *node, initial, lo, hi *int) {
	r.positive(n.get("initial"), limit.Max, initial)
	r.positive(n.get("min"), limit.Max, lo)
	r.positive(n.get("max"), limit.Max, hi)
}

// positive reads a number from 1. Zero is not the default here: that is what a key
// has which is left out.
func (r *reader) positive(n *node, most int, to *int) {
	if i, ok := r.integer(n, 1, most); ok {
		*to = i
	}
}

// fraction reads a number whose bounds the algorithm knows.
func (r *reader) fraction(n *node, to *float64) {
	if f, ok := r.number(n, -math.MaxFloat64, math.MaxFloat64); ok {
		if *to = f; f == 0 {
			r.wrong(n, "got 0, want more than 0")
		}
	}
}

func (r *reader) limit(n *node) Option {
	if !r.object(n) {
		return nil
	}
	name := "adaptive"
	if v := n.get("algorithm"); v != nil && v.token != nil {
		i, ok := r.oneOf(v, algorithmNames...)
		if !ok {
			return nil
		}
		name = algorithmNames[i]
	}
	r.object(n, append([]string{"algorithm"}, algorithms[name].keys...)...)
	before := len(r.errs)
	build := algorithms[name].make(r, n)
	if len(r.errs) > before {
		return nil
	}
	if _, err := build(); err != nil {
		r.ofLimit(n, err)
		return nil
	}
	return option(func(c *config) {
		if a, err := build(); err == nil { // it was tried
			c.algorithm, c.algorithmSet = a, true
		}
	})
}

var algorithmNames = []string{"adaptive", "fixed", "aimd", "vegas", "gradient"}

// inDocument turns the fields of package limit into keys.
var inDocument = strings.NewReplacer(
	"Initial", "initial", "Min", "min", "Max", "max", "Timeout", "timeout", "Backoff", "backoff", "Alpha", "alpha", "Beta", "beta",
	"ProbeWindows", "probe_windows", "Tolerance", "tolerance", "Smoothing", "smoothing", "LongWindows", "long_windows",
)

// ofLimit reports the error of a constructor of package limit where the keys stand.
func (r *reader) ofLimit(n *node, err error) {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range several.Unwrap() {
			r.ofLimit(n, e)
		}
		return
	}
	if err == limit.ErrConfig { //nolint:errorlint // one of the parts
		return
	}
	key, says, _ := strings.Cut(inDocument.Replace(err.Error()), ": ")
	at := n.get(key)
	if at == nil {
		at = &node{path: join(n.path, key), line: n.line}
	}
	r.wrong(at, "%s", says)
}
