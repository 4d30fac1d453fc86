package admit

import (
	"math"
	"strings"

	"github.com/weir-go/weir/limit"
)

// FromJSON reads a gate's configuration from a JSON document and returns it as
// one option, for [New] or [Gate.Update]. What the document does not name stays
// as it is, down to the single key of a class or of the queue. It returns an
// error that wraps ErrConfig and says of everything that is wrong on which line and
// under which keys it stands. What depends on the rest of the gate's configuration is
// checked where the option is used. An example with every key:
//
//	{
//	  "limit": {"algorithm": "adaptive", "initial": 32, "min": 1, "max": 1000},
//	  "queue": {"capacity": 64, "max_wait": "500ms", "policy": "reject"},
//	  "classes": {
//	    "critical": {"share": 0.5},
//	    "background": {"max": 0.25},
//	    "reports": {"class": 4, "priority": 150, "share": 0.1, "max": 0.5}
//	  },
//	  "quotas": {
//	    "classes": {"reports": {"rate": 2.5, "burst": 10}},
//	    "tenant": {"rate": 50, "burst": 100},
//	    "tenants": {"acme": {"rate": 500}},
//	    "max_tenants": 100000
//	  },
//	  "dry_run": false,
//	  "max_retry_after": "1s",
//	  "max_open": 5000
//	}
//
// The algorithm is adaptive unless "algorithm" names another. Each has the fields of
// its configuration in package limit, and their defaults:
//
//	{"algorithm": "fixed", "limit": 20}
//	{"algorithm": "aimd", "initial": 20, "min": 1, "max": 1000, "timeout": "5s", "backoff": 0.9}
//	{"algorithm": "vegas", "initial": 20, "min": 1, "max": 1000, "alpha": 3, "beta": 6, "probe_windows": 1000}
//	{"algorithm": "gradient", "initial": 20, "min": 1, "max": 1000, "tolerance": 1.5, "smoothing": 0.2, "long_windows": 600}
//
// "queue": null means no queue, null for "quotas", or for one of them, no quota, and null for
// "max_open" no bound. A
// policy is reject or block. Classes beyond the first four say which [Class] they are.
// A limit in the document is a new one each time it is used: it begins anew.
func FromJSON(document []byte) (Option, error) {
	var r reader
	root := r.read(document)
	if root == nil {
		return nil, r.err()
	}
	o := r.gate(root)
	if err := r.err(); err != nil {
		return nil, err
	}
	return o, nil
}

// gate reads what there is of one gate.
func (r *reader) gate(n *node, more ...string) Option {
	if !r.object(n, append(more, "limit", "queue?", "classes", "quotas?", "dry_run", "max_retry_after", "max_open?")...) {
		return nil
	}
	var opts []Option
	add := func(key string, read func(*node) Option) {
		if v := n.get(key); v != nil && (v.token != nil || key == "queue" || key == "quotas" || key == "max_open") {
			if o := read(v); o != nil {
				opts = append(opts, o)
			}
		}
	}
	add("limit", r.limit)
	add("queue", r.queue)
	add("classes", r.classes)
	add("quotas", r.quotas) // which may name them
	add("dry_run", func(v *node) Option {
		on, ok := r.boolean(v)
		if !ok {
			return nil
		}
		return WithDryRun(on)
	})
	add("max_retry_after", r.maxRetryAfter)
	add("max_open", r.maxOpen)
	return option(func(c *config) { c.take(opts) })
}

// maxRetryAfter reads the longest delay of refusals.
func (r *reader) maxRetryAfter(n *node) Option {
	d, ok := r.duration(n)
	if ok && (d < shortestDelay || d > longestDelay) {
		r.wrong(n, "got %s, want %v to %v", n.got(), shortestDelay, longestDelay)
	}
	if !ok {
		return nil
	}
	return WithMaxRetryAfter(d)
}

// maxOpen reads how many calls may be open.
func (r *reader) maxOpen(n *node) Option {
	if n.token == nil {
		return WithMaxOpen(0)
	}
	most, ok := r.integer(n, 1, maxOpen)
	if !ok {
		return nil
	}
	return WithMaxOpen(most)
}

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

func (r *reader) queue(n *node) Option {
	if n.token == nil {
		return WithoutQueue()
	}
	if !r.object(n, "capacity", "max_wait", "policy") {
		return nil
	}
	capacity, hasCapacity := r.integer(n.get("capacity"), 0, maxQueue)
	wait, hasWait := r.duration(n.get("max_wait"))
	policy, hasPolicy := r.oneOf(n.get("policy"), "reject", "block")
	return option(func(c *config) {
		to := c.queue
		set(&to.Capacity, capacity, hasCapacity)
		set(&to.MaxWait, wait, hasWait)
		set(&to.Policy, Policy(policy), hasPolicy)
		WithQueue(to).apply(c)
	})
}

// set sets what is there.
func set[T any](to *T, from T, there bool) {
	if there {
		*to = from
	}
}

func (r *reader) classes(n *node) Option {
	if n.token == nil || !r.object(n) {
		return nil
	}
	var opts []Option
	taken, shares := map[Class]string{}, 0.0
	for i, name := range n.keys {
		v := n.values[i]
		if v.token == nil {
			r.wrong(v, "got null, want an object")
			continue
		}
		class, ok := r.class(name, v)
		if !ok {
			continue
		}
		if other, there := taken[class]; there && other != name {
			r.wrong(v, "got class %d, as %s has, want one of its own", class, other)
		}
		taken[class] = name
		o, share := r.classConfig(name, class, v)
		shares += share
		opts = append(opts, o)
	}
	if shares > 1+1e-9 {
		r.wrong(n, "got shares of %.4g together, want at most 1", shares)
	}
	return option(func(c *config) { c.take(opts) })
}

// class returns the class that a name stands for.
func (r *reader) class(name string, n *node) (class Class, ok bool) {
	if !r.object(n, "class", "priority", "share", "max") {
		return 0, false
	}
	first := Class(MaxClasses)
	for known := Default; known <= Background; known++ {
		if known.String() == name {
			first = known
		}
	}
	number, given := r.integer(n.get("class"), 0, MaxClasses-1)
	switch {
	case name == "":
		r.wrong(n, "got an empty name, want a class's")
	case given && first < MaxClasses && Class(number) != first:
		r.wrong(n.get("class"), "got class %d, want %d or nothing", number, first)
	case given:
		return Class(number), true
	case first < MaxClasses:
		return first, n.get("class") == nil
	case n.get("class") == nil:
		r.wrong(n, `got a class that is not one of the first four, want its number in "class"`)
	}
	return 0, false
}

func (r *reader) classConfig(name string, class Class, n *node) (o Option, share float64) {
	priority, hasPriority := r.integer(n.get("priority"), 1, 1000)
	share, hasShare := r.number(n.get("share"), 0, 1)
	most, hasMost := r.number(n.get("max"), 0, 1)
	if hasMost && most != 0 && most < share {
		r.wrong(n.get("max"), "got %v, want 0 (all) or from its share (%v) to 1", most, share)
	}
	return option(func(to *config) {
		cfg := to.classes.set[class]
		cfg.Name = name
		set(&cfg.Priority, priority, hasPriority)
		set(&cfg.Share, share, hasShare)
		set(&cfg.Max, most, hasMost)
		to.classes.configure(class, cfg)
	}), share
}
