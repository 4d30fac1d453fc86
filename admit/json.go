package admit

// FromJSON reads a gate's configuration from a JSON document and returns it as one option
// for [New] or [Gate.Update]. Keys that the document does not have keep their values, down
// to a single key of a class or of the queue. The error wraps ErrConfig and names every
// wrong value with its line and its keys. Values that depend on the rest of the gate's
// configuration are checked when the option is used. An example with every key:
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
// The default of "algorithm" is adaptive. Each algorithm has the fields and the defaults
// of its configuration in package limit:
//
//	{"algorithm": "fixed", "limit": 20}
//	{"algorithm": "aimd", "initial": 20, "min": 1, "max": 1000, "timeout": "5s", "backoff": 0.9}
//	{"algorithm": "vegas", "initial": 20, "min": 1, "max": 1000, "alpha": 3, "beta": 6, "probe_windows": 1000}
//	{"algorithm": "gradient", "initial": 20, "min": 1, "max": 1000, "tolerance": 1.5, "smoothing": 0.2, "long_windows": 600}
//
// A policy is reject or block. A queue of null means no queue. A null for "quotas", or for
// one of them, removes the quota, and a null for "max_open" the bound. A class beyond the
// first four needs its number as "class". Each use of the option creates a new limit, which
// learns from scratch.
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

// gate reads the configuration of one gate. More are further keys that it may have.
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
	add("quotas", r.quotas) // after the classes that they may name
	add("dry_run", r.dryRun)
	add("max_retry_after", r.maxRetryAfter)
	add("max_open", r.maxOpen)
	return option(func(c *config) { c.apply(opts) })
}

func (r *reader) dryRun(n *node) Option {
	on, ok := r.boolean(n)
	if !ok {
		return nil
	}
	return WithDryRun(on)
}

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
		assign(&to.Capacity)(capacity, hasCapacity)
		assign(&to.MaxWait)(wait, hasWait)
		assign(&to.Policy)(Policy(policy), hasPolicy)
		WithQueue(to).apply(c)
	})
}

func (r *reader) classes(n *node) Option {
	var opts []Option
	taken, shares := map[Class]string{}, 0.0
	r.each(n, func(name string, v *node) {
		class, ok := r.class(name, v)
		if !ok {
			return
		}
		if other, there := taken[class]; there && other != name {
			r.wrong(v, "got class %d, as %s has, want one of its own", class, other)
		}
		taken[class] = name
		o, share := r.classConfig(name, class, v)
		shares += share
		opts = append(opts, o)
	})
	if shares > 1+1e-9 {
		r.wrong(n, "got shares of %.4g together, want at most 1", shares)
	}
	return option(func(c *config) { c.apply(opts) })
}

// class returns the class of a name and its object.
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
		assign(&cfg.Priority)(priority, hasPriority)
		assign(&cfg.Share)(share, hasShare)
		assign(&cfg.Max)(most, hasMost)
		to.classes.configure(class, cfg)
	}), share
}
