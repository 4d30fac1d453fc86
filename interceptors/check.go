package interceptors

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"

	"github.com/weir-go/weir/admit"
)

// checkMethod returns an error unless a name is "/service/method" or "/service/".
func checkMethod(name string) error {
	service, method, ok := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	odd := func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`*?"'\\,;|{}[]()`, c) }
	switch {
	case strings.ContainsFunc(name, odd):
		return fmt.Errorf(`got %q, want "/service/method" or "/service/": there are no wildcards`, name)
	case service == "" || strings.Contains(method, "/"):
		return fmt.Errorf(`got %q, want "/service/method", or "/service/" for all methods of a service`, name)
	case !ok:
		return fmt.Errorf(`got %q, want "/%s/" for all methods of a service, or "/%s/" and a method`, name, service, service)
	case name[0] != '/':
		return fmt.Errorf(`got %q, want "/%s"`, name, name)
	}
	return nil
}

// checkMatcher returns what is wrong with a matcher. A nil one matches everything.
func checkMatcher(m selector.Matcher) []error {
	if m == nil {
		return nil
	}
	if names, ok := m.(*methods); ok && names != nil {
		return names.wrong
	}
	if isNil(reflect.ValueOf(m)) {
		return []error{fmt.Errorf("got a nil %T, want a matcher, or nil alone for every call", m)}
	}
	return nil
}

// isNil reports whether calling a matcher can only panic. selector.MatchFunc wraps its
// function in a struct.
func isNil(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Func, reflect.Pointer:
		return v.IsNil()
	case reflect.Struct:
		return v.NumField() == 1 && v.Field(0).Kind() == reflect.Func && v.Field(0).IsNil()
	default:
		return false
	}
}

// checkOptions returns what is wrong with the options, as far as the gates tell that are
// made: a class has to be one of at least one of them.
func (c *config) checkOptions(gates ...*admit.Gate) []error {
	errs := slices.Clone(c.wrong)
	for _, err := range checkMatcher(c.matcher) {
		errs = append(errs, fmt.Errorf("WithMatcher: %w", err))
	}
	errs = append(errs, c.streams.check()...)
	for _, rule := range c.classes {
		for _, err := range checkMatcher(rule.matcher) {
			errs = append(errs, fmt.Errorf("WithClass(%v): %w", rule.class, err))
		}
		if known := classNames(gates); known != nil && !slices.Contains(known, rule.class) {
			errs = append(errs, fmt.Errorf("WithClass(%v): got a class that no gate has, want one of %v, or admit.WithClass for it",
				rule.class, known))
		}
	}
	return errs
}

// classNames returns the classes of gates, nil if none is made.
func classNames(gates []*admit.Gate) (known []admit.Class) {
	for _, g := range gates {
		if !made(g) {
			continue
		}
		for c, name := range g.Stats().Classes {
			if name != "" && !slices.Contains(known, admit.Class(c)) {
				known = append(known, admit.Class(c))
			}
		}
	}
	return known
}

// made reports whether a gate is one that admit.New has made.
func made(g *admit.Gate) bool { return g != nil && g.Limit() > 0 }

// cannotWork returns the error of every call of an interceptor that was made without a
// gate, or with wrong options; nil if it can work.
func (c *config) cannotWork(g *admit.Gate) error {
	if !made(g) {
		return errNoGate
	}
	if errs := c.checkOptions(g); len(errs) > 0 {
		return misconfigured(errors.Join(errs...))
	}
	return nil
}

// checkGate says what is wrong with a gate that may be nil.
func (c *checks) gate(what string, g *admit.Gate, streams bool) {
	switch {
	case g == nil:
	case !made(g):
		c.that(false, "%s: got a zero Gate, want one from admit.New", what)
	case streams && g.Adapts():
		c.that(false, "%s: got gate %q with a limit that adapts, want a fixed one: it would learn nothing from streams", what, g.Name())
	}
}
