package admit

import (
	"encoding/json"
	"math"
	"strings"
	"time"

	"github.com/weir-go/weir/limit"
)

// A field is a key of an object and the variable that its value sets.
type field struct {
	key string
	to  any // *int, *float64 or *time.Duration
	max int // of an int; 0 means limit.Max
}

// An algorithm is a kind of limit in a document.
type algorithm struct {
	fields []field
	build  func() (limit.Algorithm, error) // from the variables of fields
}

// algorithms holds the constructors of each kind of algorithm.
var algorithms = map[string]func() algorithm{
	"adaptive": func() algorithm {
		var c limit.AdaptiveConfig
		return algorithm{bounds(&c.Initial, &c.Min, &c.Max), func() (limit.Algorithm, error) { return limit.NewAdaptive(c) }}
	},
	"fixed": func() algorithm {
		var n int
		return algorithm{[]field{{key: "limit", to: &n}}, func() (limit.Algorithm, error) { return limit.NewFixed(n) }}
	},
	"aimd": func() algorithm {
		var c limit.AIMDConfig
		fields := bounds(&c.Initial, &c.Min, &c.Max, field{key: "timeout", to: &c.Timeout}, field{key: "backoff", to: &c.Backoff})
		return algorithm{fields, func() (limit.Algorithm, error) { return limit.NewAIMD(c) }}
	},
	"vegas": func() algorithm {
		var c limit.VegasConfig
		fields := bounds(&c.Initial, &c.Min, &c.Max, field{key: "alpha", to: &c.Alpha}, field{key: "beta", to: &c.Beta},
			field{key: "probe_windows", to: &c.ProbeWindows, max: math.MaxInt32})
		return algorithm{fields, func() (limit.Algorithm, error) { return limit.NewVegas(c) }}
	},
	"gradient": func() algorithm {
		var c limit.GradientConfig
		fields := bounds(&c.Initial, &c.Min, &c.Max, field{key: "tolerance", to: &c.Tolerance},
			field{key: "smoothing", to: &c.Smoothing}, field{key: "long_windows", to: &c.LongWindows, max: math.MaxInt32})
		return algorithm{fields, func() (limit.Algorithm, error) { return limit.NewGradient(c) }}
	},
}

var algorithmNames = []string{"adaptive", "fixed", "aimd", "vegas", "gradient"}

// bounds returns the three fields that every moving limit has, and more.
func bounds(initial, lo, hi *int, more ...field) []field {
	return append([]field{{key: "initial", to: initial}, {key: "min", to: lo}, {key: "max", to: hi}}, more...)
}

// set reads the fields of an object. A key may be left out, but it must not be 0. Zero
// does not mean the default in a document.
func (r *reader) set(n *node, fields []field) {
	for _, f := range fields {
		v, zero := n.get(f.key), false
		switch to := f.to.(type) {
		case *int:
			hi := f.max
			if hi == 0 {
				hi = limit.Max
			}
			assign(to)(r.integer(v, 1, hi))
		case *float64:
			zero = assign(to)(r.number(v, -math.MaxFloat64, math.MaxFloat64)) && *to == 0
		case *time.Duration:
			zero = assign(to)(r.duration(v)) && *to == 0
		}
		if zero {
			r.wrong(v, "got 0, want more than 0")
		}
	}
}

// assign returns a function that sets *to if there is a value.
func assign[T any](to *T) func(value T, there bool) bool {
	return func(value T, there bool) bool {
		if there {
			*to = value
		}
		return there
	}
}

// limit reads a limit. Its constructor runs once to check it, and again for each use of
// the option.
func (r *reader) limit(n *node) Option {
	if !r.is(n, json.Delim('{'), "an object") {
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
	a := algorithms[name]()
	keys := []string{"algorithm"}
	for _, f := range a.fields {
		keys = append(keys, f.key)
	}
	r.object(n, keys...)
	before := len(r.bad)
	if name == "fixed" && n.get("limit") == nil {
		r.wrong(n, `got a fixed limit without "limit", want the number of calls that may run`)
	}
	r.set(n, a.fields)
	if len(r.bad) > before {
		return nil
	}
	if _, err := a.build(); err != nil {
		r.wrongLimit(n, err)
		return nil
	}
	return option(func(c *config) {
		if fresh, err := a.build(); err == nil { // it succeeded above
			c.algorithm, c.algorithmSet = fresh, true
		}
	})
}

// keyOf maps the fields of configurations in package limit to keys.
var keyOf = strings.NewReplacer(
	"Initial", "initial", "Min", "min", "Max", "max", "Timeout", "timeout", "Backoff", "backoff", "Alpha", "alpha", "Beta", "beta",
	"ProbeWindows", "probe_windows", "Tolerance", "tolerance", "Smoothing", "smoothing", "LongWindows", "long_windows",
)

// wrongLimit reports each part of an error of package limit at the key that it is about.
func (r *reader) wrongLimit(n *node, err error) {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range several.Unwrap() {
			r.wrongLimit(n, e)
		}
		return
	}
	if err == limit.ErrConfig { //nolint:errorlint // one of the parts
		return
	}
	key, says, _ := strings.Cut(keyOf.Replace(err.Error()), ": ")
	at := n.get(key)
	if at == nil {
		at = &node{path: join(n.path, key), line: n.line}
	}
	r.wrong(at, "%s", says)
}
