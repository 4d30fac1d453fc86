package pressure

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/weir-go/weir/internal/check"
)

// A document is the input of FromJSON. A nil field was absent.
type document struct {
	Every *string        `json:"every"`
	Marks *marksDocument `json:"marks"`
}

type marksDocument struct {
	Elevated *float64 `json:"elevated"`
	High     *float64 `json:"high"`
	Extreme  *float64 `json:"extreme"`
	Release  *float64 `json:"release"`
}

// FromJSON reads a configuration from a JSON document and returns it as one option, for [New]
// or [Monitor.Update]. Absent keys change nothing. The error wraps ErrConfig. New and Update
// check that the marks rise, because absent marks keep their values. This document has every
// key:
//
//	{"every": "100ms", "marks": {"elevated": 0.85, "high": 0.92, "extreme": 0.97, "release": 0.75}}
func FromJSON(data []byte) (Option, error) {
	var d document
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	err := dec.Decode(&d)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("got more after the object, want nothing")
		}
	}
	if err != nil {
		return nil, check.One(ErrConfig, "document: byte %d: %w", dec.InputOffset(), err)
	}
	var every time.Duration
	if d.Every != nil {
		if every, err = time.ParseDuration(*d.Every); err != nil || every <= 0 {
			return nil, check.One(ErrConfig, "document: every: got %q, want a duration such as %q", *d.Every, "100ms")
		}
	}
	return option(func(c *config) {
		if d.Every != nil {
			c.every = every
		}
		if d.Marks != nil {
			c.marks = c.marks.withDefaults()
			d.Marks.apply(c)
		}
	}), nil
}

func (d *marksDocument) apply(c *config) {
	for _, f := range []struct {
		name string
		from *float64
		to   *float64
	}{
		{"elevated", d.Elevated, &c.marks.Elevated},
		{"high", d.High, &c.marks.High},
		{"extreme", d.Extreme, &c.marks.Extreme},
		{"release", d.Release, &c.marks.Release},
	} {
		if f.from == nil {
			continue
		}
		if *f.from == 0 { // in Go it means the default, which would be a surprise here
			c.bad.That(false, "marks.%s: got 0, want more than 0", f.name)
		}
		*f.to = *f.from
	}
}
