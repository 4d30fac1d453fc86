package admit

import (
	"cmp"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/weir-go/weir/admit/internal/turn"
)

// A Class is the kind of a call: when calls compete for a permit or for a place
// in the queue, the class decides first. The zero Class is Default. Four are
// there from the start; [WithClassConfig] changes them, and adds up to four.
type Class uint8

// The classes that every gate has, by falling priority: Critical (400), Default
// (300), Sheddable (200), Background (100).
const (
	// Default is what a call is unless somebody says otherwise.
	Default Class = iota
	// Critical calls are what the service exists for.
	Critical
	// Sheddable calls may be refused whenever others need the room.
	Sheddable
	// Background calls have nobody waiting for them.
	Background

	// MaxClasses is how many classes a gate can have: a Class is less.
	MaxClasses = turn.MaxClasses
)

// String returns a class of the first four in lower case, as metrics name it
// unless [WithClassConfig] gave it another name.
func (c Class) String() string {
	return name("class", int(c), "default", "critical", "sheddable", "background")
}

// A ClassConfig says what the calls of a class get. Zero fields mean what they are
// from the start of the four classes that every gate has; for a class of one's
// own the priority of Default, no share and no bound.
type ClassConfig struct {
	// Name is what metrics call the class.
	Name string
	// Priority decides whose waiting call gets the next permit, and who makes
	// room in a full queue: the higher first, from 1 to 1000. Of classes of the
	// same priority, who waits longer. A class that waits gets at least one
	// permit for 20 that others get, whatever its priority.
	Priority int
	// Share is the part of the limit and of the queue that is guaranteed to the
	// class, whatever its priority: from 0 to 1, all classes together at most 1,
	// rounded down to whole permits and places. Others may use what it does not;
	// once its calls wait, permits that come free are theirs until it has its
	// share.
	Share float64
	// Max is the part of the limit and of the queue that the class may have, what
	// it borrows included, from Share to 1; 0 means 1. One call of it can always
	// run, and one wait.
	Max float64
}

// WithClassConfig says what a class is, and adds it if it is a new one: a constant of
// one's own, from 4 up to less than [MaxClasses]. Nothing of what was said of the
// class before stays. A gate in which any class has a Share or a Max takes
// its lock for every call, which costs some ten nanoseconds.
func WithClassConfig(c Class, cfg ClassConfig) Option {
	return option(func(to *config) { to.classes.configure(c, cfg) })
}

// A classTable is what the classes of a gate are.
type classTable struct {
	set   [MaxClasses]ClassConfig
	known [MaxClasses]bool
	level [MaxClasses]int   // the priority of each
	order [MaxClasses]Class // the first n: by falling priority
	n     int
	bad   int // the last class that cannot be, or 0
}

// startPriority is that of the classes which every gate has.
var startPriority = [...]int{Default: 300, Critical: 400, Sheddable: 200, Background: 100}

func newClassTable() classTable {
	t := classTable{}
	for c := range startPriority {
		t.configure(Class(c), ClassConfig{})
	}
	return t
}

func (t *classTable) configure(c Class, cfg ClassConfig) {
	if c >= MaxClasses {
		t.bad = int(c)
		return
	}
	if int(c) < len(startPriority) {
		cfg.Name = cmp.Or(cfg.Name, c.String())
		cfg.Priority = cmp.Or(cfg.Priority, startPriority[c])
	}
	t.set[c] = cfg
	if !t.known[c] {
		t.known[c] = true
		t.order[t.n] = c
		t.n++
	}
	for c := range t.level {
		t.level[c] = cmp.Or(t.set[c].Priority, t.set[Default].Priority)
	}
	slices.SortStableFunc(t.order[:t.n], func(a, b Class) int { return t.priority(b) - t.priority(a) })
}

func (t *classTable) validate() (errs []error) {
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(t.bad == 0, "class: got %d, want less than %d", t.bad, MaxClasses)
	sum, names := 0.0, map[string]bool{}
	for _, c := range t.order[:t.n] {
		cfg := t.set[c]
		what := fmt.Sprintf("class %d (%q)", c, cfg.Name)
		check(cfg.Name != "", "%s: got no name, want one", what)
		check(utf8.ValidString(cfg.Name), "%s: got a name that is not UTF-8, want one that can be a label", what)
		check(cfg.Name == "" || !names[cfg.Name], "%s: got the name of another class, want one of its own", what)
		names[cfg.Name] = true
		p := t.priority(c)
		check(p >= 1 && p <= 1000, "%s: got priority %d, want 1 to 1000", what, p)
		check(cfg.Share >= 0 && cfg.Share <= 1, "%s: got share %v, want 0 to 1", what, cfg.Share)
		check(cfg.Max == 0 || cfg.Max >= cfg.Share && cfg.Max <= 1,
			"%s: got max %v, want 0 (all) or from its share (%v) to 1", what, cfg.Max, cfg.Share)
		sum += cfg.Share
	}
	check(!(sum > 1+1e-9), "classes: got shares of %.4g together, want at most 1", sum)
	return errs
}

// class returns the class as which a call counts.
func (t *classTable) class(c Class) Class {
	if c < MaxClasses && t.known[c] {
		return c
	}
	return Background
}

func (t *classTable) priority(c Class) int { return t.level[c] }

// turns returns what package turn is told of the classes.
func (t *classTable) turns() (classes [MaxClasses]turn.Class) {
	for _, c := range t.order[:t.n] {
		classes[c] = turn.Class{Priority: t.priority(c), Share: t.set[c].Share, Max: t.set[c].Max}
	}
	return classes
}

// names returns the names of the classes, "" for those that are not there.
func (t *classTable) names() (names [MaxClasses]string) {
	for i := range names {
		names[i] = t.set[i].Name
	}
	return names
}
