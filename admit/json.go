package admit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weir-go/weir/limit"
)

// FromJSON reads a gate's configuration from a JSON document and returns it as
// one option, for [New] or [Gate.Update]. What the document does not name stays
// as it is, down to the single key of a class or of the queue. It returns an
// error that wraps ErrConfig if the document is not one object, and if anything
// in it is unknown, there twice, null or of the wrong type; values are checked
// where the option is used. An example with every key:
//
//	{
//	  "limit": {"algorithm": "adaptive", "initial": 32, "min": 1, "max": 1000},
//	  "queue": {"capacity": 64, "max_wait": "500ms", "policy": "reject"},
//	  "classes": {
//	    "critical": {"share": 0.5},
//	    "background": {"max": 0.25},
//	    "reports": {"class": 4, "priority": 150, "share": 0.1, "max": 0.5}
//	  },
//	  "dry_run": false
//	}
//
// The algorithm is adaptive, or fixed with "limit" and none of the bounds; others
// are set in Go. "queue": null means no queue. A policy is reject or block.
// Classes beyond the first four say
// which [Class] they are. A limit in the document is a new one each time it is
// used: it begins anew.
func FromJSON(document []byte) (Option, error) {
	var d jsonGate
	var opts []Option
	err := strict(document, &d)
	if err == nil {
		opts, err = d.options()
	}
	if err == nil {
		err = checkKeys(json.NewDecoder(bytes.NewReader(document)), "document", 0)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: JSON: %w", ErrConfig, err)
	}
	return option(func(c *config) {
		for _, o := range opts {
			o.apply(c)
		}
	}), nil
}

type (
	jsonGate struct {
		Limit   *jsonLimit           `json:"limit"`
		Queue   json.RawMessage      `json:"queue"`
		Classes map[string]jsonClass `json:"classes"`
		DryRun  *bool                `json:"dry_run"`
	} // pointers: what is not there changes nothing
	jsonLimit struct {
		Algorithm string `json:"algorithm"`
		Limit     int    `json:"limit"`
		Initial   int    `json:"initial"`
		Min       int    `json:"min"`
		Max       int    `json:"max"`
	}
	jsonQueue struct {
		Capacity *int    `json:"capacity"`
		MaxWait  *string `json:"max_wait"`
		Policy   *string `json:"policy"`
	}
	jsonClass struct {
		Class    *Class   `json:"class"`
		Priority *int     `json:"priority"`
		Share    *float64 `json:"share"`
		Max      *float64 `json:"max"`
	}
)

// strict decodes one value and nothing else. Errors name what is unknown.
func strict(document []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(document))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("got nothing, want an object")
		}
		return fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("got something after the object, want nothing")
	}
	return nil
}

// jsonKeys are the keys of all objects.
var jsonKeys = []string{
	"limit", "queue", "classes", "dry_run", "algorithm", "initial", "min", "max",
	"capacity", "max_wait", "policy", "class", "priority", "share",
}

// checkKeys finds, in the value of a key at some depth that can be decoded, what package json lets pass: keys
// that are there twice, or differ from the right ones in case, and nulls.
func checkKeys(d *json.Decoder, of string, depth int) error {
	t, err := d.Token()
	if t == nil && err == nil && (of != "queue" || depth != 1) {
		return fmt.Errorf("%s: got null, want a value", of)
	}
	if t != json.Delim('{') {
		return err
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		switch {
		case seen[key]:
			return fmt.Errorf("got %q twice, want it once", key)
		case (of != "classes" || depth != 1) && !slices.Contains(jsonKeys, key):
			return fmt.Errorf("unknown field %q, want %q", key, strings.ToLower(key))
		}
		seen[key] = true
		if err := checkKeys(d, key, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

func (d *jsonGate) options() (opts []Option, err error) {
	var errs []error
	add := func(o Option, err error) {
		if err != nil {
			errs = append(errs, err)
		} else if o != nil {
			opts = append(opts, o)
		}
	}
	if d.Limit != nil {
		add(d.Limit.option())
	}
	if d.Queue != nil {
		add(queueFromJSON(d.Queue))
	}
	taken := map[Class]string{}
	for _, name := range slices.Sorted(maps.Keys(d.Classes)) {
		c := d.Classes[name]
		class, err := c.number(name)
		if err == nil && taken[class] != "" {
			err = fmt.Errorf("classes: %s: got class %d, as %s has, want one of its own", name, class, taken[class])
		}
		taken[class] = name
		add(c.option(name, class), err)
	}
	if d.DryRun != nil {
		add(WithDryRun(*d.DryRun), nil)
	}
	return opts, errors.Join(errs...)
}

func (l *jsonLimit) option() (Option, error) {
	build := func() (limit.Algorithm, error) {
		return limit.NewAdaptive(limit.AdaptiveConfig{Initial: l.Initial, Min: l.Min, Max: l.Max})
	}
	switch {
	case l.Algorithm == "fixed" && l.Initial == 0 && l.Min == 0 && l.Max == 0:
		build = func() (limit.Algorithm, error) { return limit.NewFixed(l.Limit) }
	case l.Algorithm == "fixed":
		return nil, errors.New(`limit: got bounds of a fixed limit, want only "limit"`)
	case l.Algorithm != "" && l.Algorithm != "adaptive":
		return nil, fmt.Errorf("limit: algorithm: got %q, want adaptive or fixed", l.Algorithm)
	case l.Limit != 0:
		return nil, errors.New(`limit: got "limit" of an adaptive one, want "initial", "min", "max"`)
	}
	if _, err := build(); err != nil {
		return nil, err
	}
	return option(func(c *config) {
		if a, err := build(); err == nil { // it was tried
			c.algorithm, c.algorithmSet = a, true
		}
	}), nil
}

func queueFromJSON(document []byte) (Option, error) {
	if string(document) == "null" {
		return WithoutQueue(), nil
	}
	var q jsonQueue
	if err := strict(document, &q); err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	var errs []error
	var wait time.Duration
	if q.MaxWait != nil {
		var err error
		if wait, err = time.ParseDuration(*q.MaxWait); err != nil {
			errs = append(errs, fmt.Errorf("queue: max_wait: got %q, want a duration such as \"250ms\"", *q.MaxWait))
		}
	}
	one := func(key string, got *string, names ...string) int {
		if got == nil {
			return 0
		}
		i := slices.Index(names, *got)
		if i < 0 {
			errs = append(errs, fmt.Errorf("queue: %s: got %q, want one of %s", key, *got, strings.Join(names, ", ")))
		}
		return max(i, 0)
	}
	policy := one("policy", q.Policy, "reject", "block")
	return option(func(c *config) {
		to := c.queue
		change(&to.Capacity, q.Capacity)
		if q.MaxWait != nil {
			to.MaxWait = wait
		}
		if q.Policy != nil {
			to.Policy = Policy(policy)
		}
		WithQueue(to).apply(c)
	}), errors.Join(errs...)
}

// change sets what is there.
func change[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// number returns the class that a name stands for.
func (c jsonClass) number(name string) (Class, error) {
	class := Class(MaxClasses)
	for known := Default; known <= Background; known++ {
		if known.String() == name {
			class = known
		}
	}
	switch {
	case c.Class != nil && class < MaxClasses && *c.Class != class:
		return 0, fmt.Errorf("classes: %s: got class %d, want %d or nothing", name, *c.Class, class)
	case c.Class != nil && *c.Class >= MaxClasses:
		return 0, fmt.Errorf("classes: %s: got class %d, want less than %d", name, *c.Class, MaxClasses)
	case c.Class != nil:
		return *c.Class, nil
	case class == MaxClasses:
		return 0, fmt.Errorf("classes: %s: got a class that is not one of the first four, want its number in \"class\"", name)
	}
	return class, nil
}

func (c jsonClass) option(name string, class Class) Option {
	return option(func(to *config) {
		cfg := to.classes.set[class]
		cfg.Name = name
		change(&cfg.Priority, c.Priority)
		change(&cfg.Share, c.Share)
		change(&cfg.Max, c.Max)
		to.classes.configure(class, cfg)
	})
}
