package admit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/weir-go/weir/admit/internal/turn"
	"github.com/weir-go/weir/internal/check"
)

// A Class is the kind of a call. When calls compete for a permit or for a place in the
// queue, their classes decide first. Every gate has four, by falling priority:
//
//   - Critical (priority 400): calls that the service exists for
//   - Default (300): the zero Class
//   - Sheddable (200): calls that may be refused when others need the room
//   - Background (100): calls for which no user waits
//
// [WithClassConfig] changes them and adds up to four more.
type Class uint8

// The classes that every gate has.
const (
	// Default is the class of a call unless it has another.
	Default Class = iota
	// Critical is for calls that the service exists for.
	Critical
	// Sheddable is for calls that may be refused when others need the room.
	Sheddable
	// Background is for calls for which no user waits.
	Background

	// MaxClasses is the largest number of classes of a gate. Every Class is less.
	MaxClasses = 8
)

// String returns the default name of one of the first four classes, in lower case.
// [WithClassConfig] may give the class another name in metrics.
func (c Class) String() string {
	return name("class", int(c), "default", "critical", "sheddable", "background")
}

// A ClassConfig configures a class. The zero value is the default of each of the four
// classes that every gate has. For any other class, Name is required, and the other zero
// fields mean the priority of Default, no share and no bound.
type ClassConfig struct {
	// Name is the name of the class in metrics. It must be unique within the gate.
	Name string
	// Priority is from 1 to 1000. The waiter of the highest priority gets the next
	// permit, and the waiter of the lowest is evicted from a full queue. Among classes
	// of the same priority, the oldest waiter is first. Whatever its priority, a class
	// with waiters gets at least one permit for 20 that others get. While it holds a
	// twentieth of the limit, classes below their Share come first.
	Priority int
	// Share is the part of the limit and of the queue that is guaranteed to the class,
	// whatever its priority. It is from 0 to 1, and all shares together are at most 1.
	// It is rounded down to whole permits and places. Other classes may use the permits
	// of a share that the class has not wanted lately, or that come back soon. Once calls
	// of the class wait, they get the permits that come back until the class has its share.
	Share float64
	// Max bounds the part of the limit and of the queue that the class may use, from
	// Share to 1. Zero means no bound. One call of the class can always run, and one
	// can wait.
	Max float64
}

// WithClassConfig configures a class. A class of your own is a constant from 4 to less
// than [MaxClasses]. The configuration replaces all that was configured for the class
// before. If any class of a gate has a Share or a Max, every call takes the gate's lock,
// which costs some ten nanoseconds.
func WithClassConfig(c Class, cfg ClassConfig) Option {
	return option(func(to *config) { to.classes.configure(c, cfg) })
}

// A classTable holds the configurations of the classes of a gate.
type classTable struct {
	set   [MaxClasses]ClassConfig
	known [MaxClasses]bool
	level [MaxClasses]int   // priorities, with defaults
	order [MaxClasses]Class // the first n, by falling priority
	n     int
	bad   int // the last class that is too large, or 0
}

// defaultPriority holds the priorities of the classes that every gate has.
var defaultPriority = [...]int{Default: 300, Critical: 400, Sheddable: 200, Background: 100}

func newClassTable() classTable {
	t := classTable{}
	for c := range defaultPriority {
		t.configure(Class(c), ClassConfig{})
	}
	return t
}

func (t *classTable) configure(c Class, cfg ClassConfig) {
	if c >= MaxClasses {
		t.bad = int(c)
		return
	}
	if int(c) < len(defaultPriority) {
		cfg.Name = cmp.Or(cfg.Name, c.String())
		cfg.Priority = cmp.Or(cfg.Priority, defaultPriority[c])
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

func (t *classTable) validate(bad *check.Errors) {
	bad.That(t.bad == 0, "class: got %d, want less than %d", t.bad, MaxClasses)
	sum, names := 0.0, map[string]bool{}
	for _, c := range t.order[:t.n] {
		cfg := t.set[c]
		what := fmt.Sprintf("class %d (%q)", c, cfg.Name)
		bad.That(cfg.Name != "", "%s: got no name, want one", what)
		bad.That(utf8.ValidString(cfg.Name), "%s: got a name that is not UTF-8, want a name that can be a label", what)
		bad.That(cfg.Name == "" || !names[cfg.Name], "%s: got the name of another class, want one of its own", what)
		names[cfg.Name] = true
		p := t.priority(c)
		bad.That(p >= 1 && p <= 1000, "%s: got priority %d, want 1 to 1000", what, p)
		bad.That(cfg.Share >= 0 && cfg.Share <= 1, "%s: got share %v, want 0 to 1", what, cfg.Share)
		bad.That(cfg.Max == 0 || cfg.Max >= cfg.Share && cfg.Max <= 1,
			"%s: got max %v, want 0 (all) or from its share (%v) to 1", what, cfg.Max, cfg.Share)
		sum += cfg.Share
	}
	bad.That(!(sum > 1+1e-9), "classes: got shares of %.4g together, want at most 1", sum)
}

// class returns c, or Background if the gate does not have c.
func (t *classTable) class(c Class) Class {
	if c < MaxClasses && t.known[c] {
		return c
	}
	return Background
}

func (t *classTable) priority(c Class) int { return t.level[c] }

// higher returns the class of the higher priority, or a if the priorities are equal.
func (t *classTable) higher(a, b Class) Class {
	if t.priority(t.class(b)) > t.priority(t.class(a)) {
		return b
	}
	return a
}

// lower returns the class of the lower priority, or a if the priorities are equal.
func (t *classTable) lower(a, b Class) Class {
	if t.priority(t.class(b)) < t.priority(t.class(a)) {
		return b
	}
	return a
}

// below returns the class of the next lower priority, or c if it has the lowest.
func (t *classTable) below(c Class) Class {
	for _, other := range t.order[:t.n] {
		if t.priority(other) < t.priority(t.class(c)) {
			return other
		}
	}
	return c
}

// turns returns the classes as package turn knows them.
func (t *classTable) turns() (classes [MaxClasses]turn.Class) {
	for _, c := range t.order[:t.n] {
		classes[c] = turn.Class{Priority: t.priority(c), Share: t.set[c].Share, Max: t.set[c].Max}
	}
	return classes
}

// names returns the name of each class, or "" for a class that the gate does not have.
func (t *classTable) names() (names [MaxClasses]string) {
	for i := range names {
		names[i] = t.set[i].Name
	}
	return names
}

// called returns the class of a name.
func (t *classTable) called(name string) (Class, bool) {
	for _, c := range t.order[:t.n] {
		if t.set[c].Name == name {
			return c, true
		}
	}
	return 0, false
}

// list names the classes for an error.
func (t *classTable) list() string {
	var names []string
	for _, c := range t.order[:t.n] {
		names = append(names, fmt.Sprintf("%d (%s)", c, t.set[c].Name))
	}
	return strings.Join(names, ", ")
}
